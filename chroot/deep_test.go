package chroot_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
)

// fewDescriptors is the limit under which hostile trees are looked at.
func fewDescriptors(t *testing.T) {
	t.Helper()
	var old unix.Rlimit
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &old))
	require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: old.Max}, nil))
	t.Cleanup(func() { require.NoError(t, unix.Prlimit(0, unix.RLIMIT_NOFILE, &old, nil)) })
}

// depth of a hostile tree. An emulated machine is slow.
func depth() int {
	if os.Getenv("VMRUN") != "" {
		return 4_000
	}
	return 20_000
}

// deepen makes directories n levels deep below dir, each with what fill makes, and gives the innermost one.
func deepen(t *testing.T, dir string, n int, fill func(at, level int)) int {
	t.Helper()
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	for i := range n {
		fill(at, i)
		require.NoError(t, unix.Mkdirat(at, "d", 0o755))
		next, err := unix.Openat(at, "d", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		unix.Close(at)
		at = next
	}
	return at
}

// links leads down n levels by symbolic links of 2000 levels each: a name that is longer than a path can be.
func links(t *testing.T, at, level, n int) {
	t.Helper()
	const stride = 2000
	if level%stride != 0 {
		return
	}
	target := strings.Repeat("d/", min(stride, n-level)-1) + "d"
	if level+stride < n {
		target += "/down"
	}
	require.NoError(t, unix.Symlinkat(target, at, "down"))
}

// short is the error without its path of thousands of words.
func short(err error) error {
	var e *chroot.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// inMemory lets temporary directories be in memory where that is possible: a disk needs seconds for so many.
func inMemory(t *testing.T) {
	t.Helper()
	if unix.Access("/dev/shm", unix.W_OK|unix.X_OK) == nil {
		t.Setenv("TMPDIR", "/dev/shm")
	}
}

// TestDeepTree: a tree of many more levels than there may be descriptors is walked, read from and removed.
func TestDeepTree(t *testing.T) {
	inMemory(t)
	dir, outside := cage(t)
	n := depth()
	plant(t, dir, outside, n)
	fewDescriptors(t)
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		r := open(dir)
		b, err := r.ReadFile("down/c", 100)
		require.NoError(t, err)
		require.Equal(t, "deep", string(b))
		names, err := r.ReadDirNames("down")
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"a", "b", "c", "out"}, names)
		want, err := r.Stat("down/b")
		require.NoError(t, err)
		for _, up := range []int{1, 33, 800} {
			got, err := r.Stat("down/" + strings.Repeat("../", up) + strings.Repeat("d/", up) + "b")
			require.NoError(t, short(err), "%d levels up", up)
			require.True(t, os.SameFile(want, got), "%d levels up", up)
		}
		resolved, err := r.Resolve("down/" + strings.Repeat("../", 100) + "d")
		require.NoError(t, err)
		require.True(t, strings.Repeat("/d", n-99) == resolved)
	})
	r, err := chroot.Open(dir)
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, short(r.RemoveAll("d")))
	require.NoDirExists(t, filepath.Join(dir, "d"))
	require.FileExists(t, filepath.Join(dir, "etc/passwd"))
	unchanged(t, outside)
}

// plant makes a tree of n levels, with three files and a link to outside at its end.
func plant(t *testing.T, dir, outside string, n int) {
	t.Helper()
	inner := deepen(t, dir, n, func(at, level int) { links(t, at, level, n) })
	defer unix.Close(inner) // who keeps it keeps all those above in the kernel's memory, and makes it slow
	require.NoError(t, unix.Symlinkat(outside, inner, "out"))
	for i, name := range []string{"a", "b", "c"} {
		fd, err := unix.Openat(inner, name, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
		require.NoError(t, err)
		_, err = unix.Write(fd, []byte("deep"[:i+2]))
		require.NoError(t, err)
		unix.Close(fd)
	}
}

// TestRemoveWide: many directories that are not empty beside each other, some of which may not be entered or removed.
func TestRemoveWide(t *testing.T) {
	inMemory(t)
	dir, outside := cage(t)
	r, err := chroot.Open(dir)
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, r.Mkdir("w", 0o755))
	for i := range 500 {
		name := filepath.Join(dir, "w", strings.Repeat("x", 1+i%200)+string(rune('a'+i/200)))
		require.NoError(t, os.Mkdir(name, 0o755))
		require.NoError(t, os.Symlink(outside, name+"/l"))
		require.NoError(t, unix.Mkfifo(name+"/fifo", 0o600))
		require.NoError(t, os.Mkdir(name+"/d", 0o000)) // empty: it need not be entered
	}
	require.NoError(t, r.RemoveAll("w"))
	require.NoDirExists(t, filepath.Join(dir, "w"))
	unchanged(t, outside)
	require.NoError(t, r.RemoveAll("w"))
	require.NoError(t, r.RemoveAll("etc/passwd"))
	require.ErrorIs(t, r.RemoveAll("../../"), syscall.EINVAL)

	if os.Geteuid() != 0 {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "kept/d"), 0o755))
		require.NoError(t, os.Chmod(filepath.Join(dir, "kept"), 0o555))
		require.ErrorIs(t, r.RemoveAll("kept"), syscall.EACCES)
		require.NoError(t, os.Chmod(filepath.Join(dir, "kept"), 0o755))
		require.DirExists(t, filepath.Join(dir, "kept/d"))
	}
}

// TestRemoveMounts: what is mounted in the tree is not the tree's.
func TestRemoveMounts(t *testing.T) {
	inPrivateNamespace(t, func(t *testing.T) {
		dir, outside := cage(t)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b/mount"), 0o755))
		require.NoError(t, unix.Mount(outside, filepath.Join(dir, "a/b/mount"), "", unix.MS_BIND, ""))
		r, err := chroot.Open(dir)
		require.NoError(t, err)
		defer r.Close()
		require.ErrorIs(t, r.RemoveAll("a"), syscall.EBUSY)
		unchanged(t, outside)
		require.NoError(t, unix.Unmount(filepath.Join(dir, "a/b/mount"), 0))
		require.NoError(t, r.RemoveAll("a"))
	})
}

// confined runs a test that would do harm, were the code wrong: as root in a process whose root is a file system in memory.
func confined(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	inPrivateNamespace(t, func(t *testing.T) {
		require.NoError(t, unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "size=64m"))
		require.NoError(t, os.Mkdir("/tmp/tmp", 0o777))
		require.NoError(t, os.Mkdir("/tmp/proc", 0o755))
		require.NoError(t, unix.Mount("proc", "/tmp/proc", "proc", unix.MS_RDONLY, ""))
		require.NoError(t, unix.Chroot("/tmp"))
		require.NoError(t, unix.Chdir("/"))
		t.Setenv("TMPDIR", "/tmp")
		f(t)
	})
}

// TestRemoveRace: while a deep tree is removed, what is in the middle of it is moved out and in again: ".." of what is below is then a directory
// that is nobody's to remove.
func TestRemoveRace(t *testing.T) {
	confined(t, testRemoveRace)
}

func testRemoveRace(t *testing.T) {
	const deep = 120
	dir, _ := cage(t)
	outside, check := victim(t)
	elsewhere := filepath.Join(filepath.Dir(dir), "elsewhere")
	r, err := chroot.Open(dir)
	require.NoError(t, err)
	defer r.Close()
	middle := filepath.Join(dir, strings.Repeat("d/", deep/2)+"d")
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		moved := 0
		defer func() { done <- moved }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if os.Rename(middle, filepath.Join(outside, "d")) == nil {
				moved++
				os.Rename(filepath.Join(outside, "d"), filepath.Join(dir, "back"))
			}
			os.Rename(middle+"/d", elsewhere)
			os.RemoveAll(elsewhere)
		}
	}()
	for range rounds(80) {
		os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", deep)), 0o755)
		require.NoError(t, short(r.RemoveAll("d")))
		require.NoError(t, r.RemoveAll("back"))
	}
	close(stop)
	moved := <-done
	require.NotZero(t, moved)
	os.RemoveAll(filepath.Join(outside, "d"))
	check()
}
