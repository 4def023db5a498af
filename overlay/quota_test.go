package overlay_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/overlay"
)

// TestQuota: the upper directory of a sandbox has its limit on the disk, on each file system that can.
func TestQuota(t *testing.T) {
	asRoot(t)
	limited := 0
	for _, fs := range []struct {
		name, mkfs string
		args       []string
	}{{"ext4", "mkfs.ext4", []string{"-q", "-O", "quota,project", "-E", "quotatype=prjquota"}}, {"xfs", "mkfs.xfs", []string{"-q"}}} {
		inPrivate(t, func(dir string) {
			at := quotaMount(t, dir, fs.name, fs.mkfs, fs.args...)
			if at == "" {
				return
			}
			box := at + "/box"
			require.NoError(t, os.Mkdir(box, 0o755))
			err := overlay.Quota{Project: 7, Bytes: 4 << 20, Inodes: 30}.Set(box)
			require.NoError(t, err)
			require.NoError(t, errors.Join(os.Mkdir(box+"/upper", 0o755), os.Mkdir(box+"/work", 0o755)))
			root := overlay.Root{Lower: []string{put(t, t.TempDir(), nil)}, Upper: box + "/upper", Work: box + "/work"}
			out := run(t, "head -c 8000000 /dev/zero 2>&1 > big; stat -c %s big; rm big; for i in $(seq 40); do echo > f$i || break; done 2>&1; ls | grep -c ^f",
				append(programs(t), root, chroot.Dev{})...)
			require.Regexp(t, "No space left|quota exceeded", out)
			require.NotContains(t, out, "8000000")
			require.NotContains(t, out, "\n40\n")
			used, err := overlay.Used(box)
			require.NoError(t, err)
			require.Positive(t, used.Bytes)
			require.LessOrEqual(t, used.Bytes, int64(4<<20))
			require.LessOrEqual(t, used.Inodes, int64(30))
			require.NoError(t, os.WriteFile(at+"/outside", bytes.Repeat([]byte("x"), 8<<20), 0o600), "others are not limited")
			require.NoError(t, overlay.Quota{Project: 7}.Set(box), "no limits any more")
			run(t, "for i in $(seq 40); do echo > f$i; done", append(programs(t), root)...)
			require.FileExists(t, box+"/upper/f40")
			full := at + "/full"
			require.NoError(t, os.MkdirAll(full+"/x", 0o755))
			require.ErrorIs(t, overlay.Quota{Project: 8, Bytes: 1}.Set(full), syscall.ENOTEMPTY)
			limited++
		})
	}
	if limited == 0 {
		t.Skip("no file system with project quotas could be mounted; see above")
	}
}

func TestQuotaErrors(t *testing.T) {
	dir := t.TempDir()
	for _, q := range []overlay.Quota{{}, {Project: 1, Bytes: -1}, {Project: 1, Inodes: -1}} {
		require.ErrorIs(t, q.Set(dir), syscall.EINVAL)
	}
	require.ErrorIs(t, overlay.Quota{Project: 1}.Set("/no/such"), syscall.ENOENT)
	require.ErrorIs(t, overlay.Quota{Project: 1, Bytes: 1}.Set("/proc/sys/kernel"), errors.ErrUnsupported)
	_, err := overlay.Used("/proc/sys/kernel")
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// quotaMount mounts a fresh file system with quotas of projects, or says why that cannot be.
func quotaMount(t *testing.T, dir, fstype, mkfs string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(mkfs); err != nil {
		t.Logf("needs %s", mkfs)
		return ""
	}
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 320<<20))
	require.NoError(t, os.Mkdir(at, 0o755))
	out, err := exec.Command(mkfs, append(args, image)...).CombinedOutput()
	require.NoError(t, err, string(out))
	for _, module := range []string{"loop", "quota_v2", fstype} {
		exec.Command("modprobe", module).Run()
	}
	out, err = exec.Command("mount", "-o", "loop,prjquota", "-t", fstype, image, at).CombinedOutput()
	if err == nil {
		t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
		return at
	}
	t.Logf("%s cannot be mounted with quotas here: %s", fstype, out)
	if exec.Command("mount", "-o", "loop,ro,noload", "-t", "ext4", image, at).Run() == nil { // and without it can: there the limit is refused
		defer unix.Unmount(at, unix.MNT_DETACH)
		require.ErrorIs(t, overlay.Quota{Project: 7, Bytes: 1 << 20}.Set(at), errors.ErrUnsupported)
	}
	return ""
}
