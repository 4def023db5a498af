package chroot_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// shape is what can be reached in a sandbox, and how it is mounted.
func shape(t *testing.T, parts ...plan.Primitive) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, m := range reached(t, run(t, "cat /proc/self/mountinfo", parts...)) {
		all[m.Mountpoint] = strings.Join([]string{m.Root, m.Options, m.FSType, regexp.MustCompile("[0-9]+").ReplaceAllString(m.Optional, "")}, " ")
	}
	return all
}

// sameBothWays compares what is built by mount_setattr(2) and openat2(2) with what is built without.
func sameBothWays(t *testing.T, parts ...plan.Primitive) map[string]string {
	t.Helper()
	now := shape(t, parts...)
	require.Equal(t, now, shape(t, append([]plan.Primitive{plan.Func(mnt.Old)}, parts...)...))
	return now
}

// mounts makes a tree with mounts of all kinds in it.
func mounts(t *testing.T, dir string) {
	t.Helper()
	for _, m := range []struct {
		name  string
		flags uintptr
	}{{"", 0}, {"ro", unix.MS_RDONLY}, {"noexec", unix.MS_NOEXEC | unix.MS_NODEV | unix.MS_NOATIME}, {"noexec/deep/er", unix.MS_STRICTATIME}, {"a b\n,:\\x", unix.MS_NODIRATIME},
		{"twice", unix.MS_NOSUID}, {"twice", 0}, {"covered/below", 0}, {"covered", 0}, {"closed/inside", unix.MS_NODEV}} {
		name := filepath.Join(dir, m.name)
		require.NoError(t, os.MkdirAll(name, 0o755))
		require.NoError(t, unix.Mount("tmpfs", name, "tmpfs", m.flags, "mode=755"))
		t.Cleanup(func() { unix.Unmount(name, unix.MNT_DETACH) })
	}
	require.NoError(t, os.Chmod(filepath.Join(dir, "closed"), 0o700))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("covered\n"), 0o644))
	require.NoError(t, unix.Mount("/etc/passwd", file, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(file, unix.MNT_DETACH) })
}

// TestSameBothWays: which flags each mount has does not depend on the calls that set them.
func TestSameBothWays(t *testing.T) {
	host := sameBothWays(t, chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"})
	require.Contains(t, host["/"], "ro,nosuid,nodev")
	sameBothWays(t, append([]plan.Primitive{chroot.Host{}}, docker()...)...)
	_, parts := rootfs(t)
	sameBothWays(t, append(parts, chroot.Proc{}, chroot.Dev{}, chroot.File{Path: "/f/g", Data: []byte("x"), ReadOnly: true}, chroot.Device{Path: "/dev/null", Target: "/dev/x"},
		chroot.Mask{"/f/g", "/none"}, chroot.ReadOnly{"/usr"}, chroot.Dir{Path: "/d"}, chroot.Mask{"/d"})...)
}

// TestSameBothWaysBelow is the same for a tree with mounts below it, as root and in a user namespace, where the host's flags are locked.
func TestSameBothWaysBelow(t *testing.T) {
	inPrivateNamespace(t, func(t *testing.T) {
		src := t.TempDir()
		mounts(t, src)
		file, err := os.Open(src)
		require.NoError(t, err)
		defer file.Close()
		root, parts := rootfs(t)
		mounts(t, filepath.Join(root, "mnt"))
		shared := t.TempDir()
		require.NoError(t, unix.Mount("tmpfs", shared, "tmpfs", 0, ""))
		require.NoError(t, unix.Mount("", shared, "", unix.MS_SHARED, ""))
		mounts(t, filepath.Join(shared, "tree"))
		defer unix.Unmount(shared, unix.MNT_DETACH)
		base := append([]plan.Primitive{chroot.Proc{}}, parts[1:]...)
		pivot := chroot.Pivot{Dir: root}
		for name, more := range map[string][]plan.Primitive{
			"host":          {chroot.Host{}},
			"pivot":         {pivot},
			"pivot ro":      {chroot.Pivot{Dir: root, ReadOnly: true}},
			"bind":          {pivot, chroot.Bind{Source: src, Target: "/b"}},
			"bind ro":       {pivot, chroot.Bind{Source: src, Target: "/b", ReadOnly: true, NoExec: true}},
			"bind as is":    {pivot, chroot.Bind{Source: src, Target: "/b", Dev: true, SUID: true}},
			"bind one":      {pivot, chroot.Bind{Source: src, Target: "/b", NonRecursive: true, ReadOnly: true}},
			"descriptor":    {pivot, chroot.Bind{File: file, Target: "/b", ReadOnly: true}},
			"two":           {pivot, chroot.Bind{Source: src + "/noexec", Target: "/b"}, chroot.Bind{Source: src + "/noexec/deep", Target: "/b/deep", ReadOnly: true}},
			"file":          {pivot, chroot.Bind{Source: src + "/file", Target: "/b/c", ReadOnly: true}},
			"slave":         {pivot, chroot.Bind{Source: shared, Target: "/b", Propagation: chroot.Slave}},
			"shared":        {pivot, chroot.Bind{Source: shared, Target: "/b", Propagation: chroot.Shared}},
			"shared source": {pivot, chroot.Bind{Source: shared, Target: "/b", ReadOnly: true}},
			"shared root":   {chroot.Pivot{Dir: root, Propagation: chroot.Shared}, chroot.Bind{File: file, Target: "/b"}},
		} {
			if os.Getenv("VMRUN") != "" && !slices.Contains([]string{"pivot ro", "bind ro", "descriptor", "shared"}, name) { // emulated: half a second for each
				continue
			}
			all := append(more, base...)
			if name == "host" {
				all = append(more, chroot.Proc{})
			}
			for _, user := range []bool{false, true} {
				if user && name == "bind one" { // the kernel does not take apart what came from elsewhere
					continue
				}
				if user {
					all = append(all, plan.Func(withUser))
				}
				before := hostState(t)
				got := sameBothWays(t, all...)
				require.Equal(t, before, hostState(t), name)
				if name == "bind ro" {
					require.Contains(t, got["/b/noexec/deep/er"], "ro,nosuid,nodev,noexec")
					require.Contains(t, got["/b/closed/inside"], "ro,nosuid,nodev,noexec")
					require.Contains(t, got["/b/file"], "ro,nosuid,nodev,noexec")
				}
			}
		}
	})
}

// TestOldWayWhileHostMounts: the host mounts and unmounts below a tree while sandboxes begin. None of them has a mount in it without what was asked for.
func TestOldWayWhileHostMounts(t *testing.T) {
	inPrivateNamespace(t, func(t *testing.T) {
		src := t.TempDir()
		for _, d := range []string{"a/m", "b"} {
			require.NoError(t, os.MkdirAll(filepath.Join(src, d), 0o755))
		}
		stop, done := make(chan struct{}), sync.WaitGroup{}
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, d := range []string{"a/m", "b"} {
					unix.Mount("tmpfs", filepath.Join(src, d), "tmpfs", 0, "")
				}
				time.Sleep(pace())
				unix.Unmount(filepath.Join(src, "a/m"), unix.MNT_DETACH)
				unix.Unmount(filepath.Join(src, "b"), unix.MNT_DETACH)
				time.Sleep(pace())
			}
		})
		defer done.Wait()
		defer close(stop)
		_, parts := rootfs(t)
		parts = append([]plan.Primitive{plan.Func(mnt.Old)}, append(parts, chroot.Proc{}, chroot.Bind{Source: src, Target: "/b", ReadOnly: true})...)
		starts(t, rounds(200), "grep ' /b' /proc/self/mountinfo", func(out string) {
			for line := range strings.Lines(out) {
				require.Contains(t, line, " ro,nosuid,nodev,", out)
			}
		}, parts...)
	})
}

// TestOldWayWhileRenamed: somebody who can write to the tree exchanges directories on the way to a mount below it, with each other and with links to other mounts. Each
// mount keeps what it had, and has what was asked for, or the start fails.
func TestOldWayWhileRenamed(t *testing.T) {
	inPrivateNamespace(t, func(t *testing.T) {
		src := t.TempDir()
		for i, d := range []string{"a/m", "b/m", "c"} {
			require.NoError(t, os.MkdirAll(filepath.Join(src, d), 0o777))
			require.NoError(t, unix.Mount("tmpfs", filepath.Join(src, d), "tmpfs", []uintptr{unix.MS_NOEXEC, unix.MS_RDONLY, 0}[i], ""))
			t.Cleanup(func() {
				unix.Unmount(filepath.Join(src, d), unix.MNT_DETACH)
				unix.Unmount(filepath.Join(src, "x", filepath.Base(d)), unix.MNT_DETACH)
			})
		}
		require.NoError(t, os.Symlink("c", filepath.Join(src, "x")))
		exchange(t, [2]string{filepath.Join(src, "a"), filepath.Join(src, "x")}, [2]string{filepath.Join(src, "a"), filepath.Join(src, "b")})
		_, parts := rootfs(t)
		parts = append([]plan.Primitive{plan.Func(mnt.Old)}, append(parts, chroot.Proc{}, chroot.Bind{Source: src, Target: "/b"})...)
		starts(t, rounds(200), "grep ' /b' /proc/self/mountinfo", func(out string) {
			require.Contains(t, out, "noexec", "what the host has said of a mount is not lost")
			require.Contains(t, out, " ro,", "what the host has said of a mount is not lost")
			for line := range strings.Lines(out) {
				require.Contains(t, line, ",nosuid,nodev,", out)
			}
		}, parts...)
	})
}

// TestOldWayOutOfReach: below a directory that the caller may not enter is a mount whose attributes cannot be changed one by one.
func TestOldWayOutOfReach(t *testing.T) {
	const mark = "CAISSON_TEST_REACH"
	if os.Getenv(olderEnv) != "" && os.Getenv(mark) == "" {
		t.Skip("chooses its kernel itself")
	}
	if src := os.Getenv(mark); src != "" {
		older := []plan.Primitive{chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}}
		before := hostState(t)
		_, err := start(t, "true", older...)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "a mount that the caller cannot reach")
		require.Equal(t, before, hostState(t))
		_, parts := rootfs(t)
		got := shape(t, append(parts, chroot.Proc{}, chroot.Bind{Source: src + "/noexec", Target: "/b", ReadOnly: true})...)
		require.Contains(t, got["/b/deep/er"], "ro,nosuid,nodev")
		return
	}
	inPrivateNamespace(t, func(t *testing.T) {
		src := t.TempDir()
		require.NoError(t, os.Chmod(filepath.Dir(src), 0o755))
		mounts(t, src)
		c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestOldWayOutOfReach$")
		c.Env = append(os.Environ(), mark+"="+src, "TMPDIR=/tmp", olderEnv+"=5.11")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestOldWayOutOfReach")
	})
}
