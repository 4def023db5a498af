package copytree

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func copyTo(t *testing.T, c *Copy, from, to string) error {
	t.Helper()
	require.NoError(t, os.MkdirAll(to, 0o755))
	src, err := os.Open(from)
	require.NoError(t, err)
	defer src.Close()
	dst, err := os.Open(to)
	require.NoError(t, err)
	defer dst.Close()
	return c.Run(src, dst)
}

func stat(t *testing.T, name string) (st unix.Stat_t) {
	t.Helper()
	require.NoError(t, unix.Lstat(name, &st))
	return st
}

// capability is a file capability, cap_net_raw+ep.
var capability = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func TestCopyKeepsAll(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()+"/to"
	require.NoError(t, errors.Join(
		os.WriteFile(from+"/f", bytes.Repeat([]byte("data"), 100000), 0o600), os.Chmod(from+"/f", 0o640),
		os.Mkdir(from+"/d", 0o700), os.Link(from+"/f", from+"/d/linked"), os.Symlink("../../outside", from+"/link"),
		unix.Mkfifo(from+"/fifo", 0o604), unix.Mknod(from+"/white", unix.S_IFCHR, 0), os.WriteFile(from+"/hole", nil, 0o600), os.Truncate(from+"/hole", 16<<20),
		os.WriteFile(from+"/empty", nil, 0o400)))
	old := []unix.Timespec{{Sec: 1000000000, Nsec: 123456789}, {Sec: 1100000000, Nsec: 987654321}}
	for _, name := range []string{"/d/linked", "/fifo", "/white", "/d", ""} {
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, from+name, old, 0))
	}
	root := os.Geteuid() == 0
	if root {
		require.NoError(t, errors.Join(os.Chown(from+"/f", 5, 6), os.Chmod(from+"/f", 0o4751), os.Lchown(from+"/link", 7, 8), unix.Mknod(from+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))))
		require.NoError(t, unix.Setxattr(from+"/f", "security.capability", capability, 0))
	}
	require.NoError(t, copyTo(t, &Copy{}, from, to))
	for _, name := range []string{"", "/f", "/d", "/d/linked", "/link", "/fifo", "/white", "/hole", "/empty"} {
		a, b := stat(t, from+name), stat(t, to+name)
		require.Equal(t, [4]uint64{uint64(a.Mode), uint64(a.Uid), uint64(a.Gid), uint64(a.Rdev)}, [4]uint64{uint64(b.Mode), uint64(b.Uid), uint64(b.Gid), uint64(b.Rdev)}, name)
		require.Equal(t, a.Mtim, b.Mtim, name)
		if a.Mode&unix.S_IFMT != unix.S_IFDIR {
			require.Equal(t, [2]int64{a.Size, int64(a.Nlink)}, [2]int64{b.Size, int64(b.Nlink)}, name)
		}
	}
	require.Equal(t, stat(t, to+"/f").Ino, stat(t, to+"/d/linked").Ino)
	require.Zero(t, stat(t, to+"/hole").Blocks)
	a, err := os.ReadFile(from + "/f")
	require.NoError(t, err)
	b, err := os.ReadFile(to + "/f")
	require.NoError(t, err)
	require.Equal(t, a, b)
	target, err := os.Readlink(to + "/link")
	require.NoError(t, err)
	require.Equal(t, "../../outside", target)
	if root {
		require.Equal(t, uint64(unix.Mkdev(1, 3)), uint64(stat(t, to+"/null").Rdev))
		value := make([]byte, 64)
		n, err := unix.Getxattr(to+"/f", "security.capability", value)
		require.NoError(t, err)
		require.Equal(t, capability, value[:n])
	}
	t.Run("not over what is there", func(t *testing.T) {
		require.ErrorIs(t, copyTo(t, &Copy{}, from, to), syscall.EEXIST)
	})
	t.Run("and removed", func(t *testing.T) {
		require.NoError(t, RemoveAll(to))
		require.NoDirExists(t, to)
		require.ErrorIs(t, RemoveAll(to), syscall.ENOENT)
	})
}

// TestPump copies where the kernel has no way of its own.
func TestPump(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	data := bytes.Repeat([]byte("0123456789"), 100000)
	require.NoError(t, os.WriteFile(from+"/f", data, 0o600))
	src, err := os.Open(from + "/f")
	require.NoError(t, err)
	defer src.Close()
	dst, err := os.Create(to + "/f")
	require.NoError(t, err)
	defer dst.Close()
	require.NoError(t, new(Copy).pump(int(src.Fd()), int(dst.Fd()), 0, int64(len(data))))
	got, err := os.ReadFile(to + "/f")
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

// TestMountInTheWay: what is mounted in the tree does not belong to it.
func TestMountInTheWay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a mount")
	}
	from, to := t.TempDir(), t.TempDir()
	require.NoError(t, os.Mkdir(from+"/m", 0o755))
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", from+"/m", "tmpfs", 0, "")); err != nil {
			t.Error(err)
			return
		}
		if err := copyTo(t, &Copy{}, from, to); !errors.Is(err, syscall.EXDEV) {
			t.Errorf("%v", err)
		}
	}()
	<-done
}

func TestStrip(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, errors.Join(os.Mkdir(dir+"/d", 0o755), os.WriteFile(dir+"/d/f", nil, 0o600), os.WriteFile(dir+"/g", nil, 0o600), os.Symlink("/etc/passwd", dir+"/l")))
	if err := unix.Setxattr(dir+"/d/f", "user.x", []byte("1"), 0); err == syscall.EOPNOTSUPP {
		t.Skip("the file system of temporary files has no extended attributes user.*")
	} else {
		require.NoError(t, err)
	}
	require.NoError(t, errors.Join(unix.Setxattr(dir+"/d", "user.x", []byte("1"), 0), unix.Setxattr(dir+"/g", "user.y", []byte("1"), 0), os.Chmod(dir+"/d/f", 0o400)))
	require.NoError(t, Strip(dir, "user.x"))
	b := make([]byte, 8)
	for name, want := range map[string]error{"/d": syscall.ENODATA, "/d/f": syscall.ENODATA} {
		_, err := unix.Getxattr(dir+name, "user.x", b)
		require.ErrorIs(t, err, want)
	}
	_, err := unix.Getxattr(dir+"/g", "user.y", b)
	require.NoError(t, err)
	require.Equal(t, uint32(0o400), stat(t, dir+"/d/f").Mode&0o777)
}
