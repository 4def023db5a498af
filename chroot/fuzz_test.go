package chroot_test

import (
	"os"
	"path"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// caged is a thread with a root of its own by chroot(2), the reference for a resolution inside a root. It is thrown away.
type caged struct{ calls chan func() }

func newCaged(t testing.TB, dir string) *caged {
	t.Helper()
	c, ready := &caged{make(chan func())}, make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chroot(dir)
		}
		if err == nil {
			err = unix.Chdir("/")
		}
		ready <- err
		for f := range c.calls {
			f()
		}
	}()
	t.Cleanup(func() { close(c.calls) })
	if err := <-ready; err == syscall.EPERM && os.Geteuid() != 0 {
		t.Skip("needs CAP_SYS_CHROOT")
	} else if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *caged) do(f func()) {
	done := make(chan struct{})
	c.calls <- func() { f(); close(done) }
	<-done
}

// what is found: a file, or an errno.
type found struct {
	dev, ino uint64
	errno    syscall.Errno
}

func (c *caged) lookup(name string, flags int) (f found) {
	c.do(func() {
		fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
		if err != nil {
			f.errno = plan.Errno(err)
			return
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			f.errno = plan.Errno(err)
			return
		}
		f.dev, f.ino = st.Dev, st.Ino
	})
	return f
}

// build makes a tree of lines: d NAME, f NAME, l NAME TARGET, h NAME OTHER. What cannot be made is left out.
func (c *caged) build(text string) {
	c.do(func() {
		for i, line := range strings.Split(text, "\n") {
			words := strings.SplitN(line, " ", 3)
			if i > 60 || len(words) < 2 {
				continue
			}
			switch {
			case words[0] == "d":
				unix.Mkdir(words[1], 0o755)
			case words[0] == "f":
				if fd, err := unix.Open(words[1], unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644); err == nil {
					unix.Close(fd)
				}
			case words[0] == "l" && len(words) == 3:
				unix.Symlink(words[2], words[1])
			case words[0] == "h" && len(words) == 3:
				unix.Link(words[2], words[1])
			}
		}
	})
}

func stated(r *chroot.Root, name string, follow bool) (f found) {
	stat := r.Lstat
	if follow {
		stat = r.Stat
	}
	info, err := stat(name)
	if err != nil {
		return found{errno: plan.Errno(err)}
	}
	st := info.Sys().(*syscall.Stat_t)
	return found{dev: uint64(st.Dev), ino: st.Ino}
}

// FuzzResolve compares both ways to resolve with chroot(2): the same file, or the same errno.
func FuzzResolve(f *testing.F) {
	const tree = "d a\nd a/b\nd a/b/c\nf a/f\nl a/up ..\nl abs /a/b\nl rel a/b/\nl loop loop\nl x y\nl y x\nl out ../../../../etc\nl self .\nl file a/f\nl slash a/f/\nl dangling /no/such\nl a/b/far ../../../../../../a\nh hard a/f\nl root /"
	for _, name := range []string{"/", "a", "abs/c", "rel/c/..", "loop", "x/", "out/passwd", "self/self/self/a", "file", "file/", "slash", "dangling", "a/b/far/b/far/f",
		"hard/..", "/../../a/./b//c///", "a/f/.", "a/f/..", "root/root/root/abs", "", ".", "..", "a/up/abs/c/../../up/out", strings.Repeat("self/", 41), strings.Repeat("self/", 40) + "a"} {
		f.Add(tree, name)
	}
	deep := ""
	for i := range 45 { // more than are held open
		deep += "d " + strings.Repeat("a/", i) + "a\n"
	}
	for _, up := range []int{1, 12, 13, 14, 44, 45, 60} {
		f.Add(deep+"l a/a/l "+strings.Repeat("a/", 42)+"a", "a/a/l"+strings.Repeat("/..", up)+"/a/./a")
	}
	f.Fuzz(func(t *testing.T, tree, name string) {
		if len(tree) > 4096 || len(name) > 5000 || strings.ContainsRune(name, 0) {
			return
		}
		dir := t.TempDir()
		reference := newCaged(t, dir)
		reference.build(tree)
		r, err := chroot.Open(dir)
		require.NoError(t, err)
		defer r.Close()
		for _, way := range []string{"openat2", "by hand"} {
			if way == "by hand" {
				r.ByHand()
			}
			for flags, follow := range map[int]bool{0: true, unix.O_NOFOLLOW: false} {
				want, got := reference.lookup(name, flags), stated(r, name, follow)
				// When the kernel has to begin a resolution anew (LOOKUP_RCU), it counts the links of both passes, and may find too many.
				for i := 0; i < 20 && want != got && (want.errno == syscall.ELOOP || got.errno == syscall.ELOOP); i++ {
					want, got = reference.lookup(name, flags), stated(r, name, follow)
				}
				require.Equal(t, want, got, "%s, follow %v: %q", way, follow, name)
			}
		}
		resolved, err := r.Resolve(name)
		if err == nil {
			want := reference.lookup(name, 0)
			require.Equal(t, path.Clean("/"+resolved), resolved)
			require.Equal(t, want, reference.lookup(resolved, unix.O_NOFOLLOW))
		}
	})
}
