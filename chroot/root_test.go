package chroot_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
)

// eachWay runs the test with openat2 and without. Under a filter that forbids it the Root has to find that out by itself.
func eachWay(t *testing.T, f func(t *testing.T, open func(dir string) *chroot.Root)) {
	t.Helper()
	forbidden := os.Getenv(underFilter) != ""
	for _, way := range []string{"openat2", "by hand"} {
		if forbidden && way == "openat2" {
			continue
		}
		t.Run(way, func(t *testing.T) {
			f(t, func(dir string) *chroot.Root {
				r, err := chroot.Open(dir)
				require.NoError(t, err)
				t.Cleanup(func() { r.Close() })
				require.Equal(t, !forbidden, r.HaveOpenat2(), "kernels of the tests have openat2")
				if way == "by hand" && !forbidden {
					r.ByHand()
				}
				return r
			})
		})
	}
}

// cage makes a root with a secret beside it, and gives both directories.
func cage(t *testing.T) (root, outside string) {
	t.Helper()
	top := t.TempDir()
	root, outside = filepath.Join(top, "root"), filepath.Join(top, "outside")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	require.NoError(t, os.Mkdir(outside, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(root, "etc", "passwd"), []byte("inside"), 0o644))
	return root, outside
}

// unchanged fails when something has happened outside.
func unchanged(t *testing.T, outside string) {
	t.Helper()
	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	b, err := os.ReadFile(filepath.Join(outside, "secret"))
	require.NoError(t, err)
	require.Equal(t, "secret", string(b))
}

func TestRootStaysInside(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		dir, outside := cage(t)
		r := open(dir)
		for name, target := range map[string]string{
			"absolute": outside, "up": "../outside", "far": strings.Repeat("../", 30) + outside, "chain": "up", "slash": "/../../outside",
		} {
			require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
			for act, f := range map[string]func(string) error{
				"open":     func(n string) error { f, err := r.Open(n); closeIf(f); return err },
				"create":   func(n string) error { f, err := r.Create(n, 0o600); closeIf(f); return err },
				"read":     func(n string) error { _, err := r.ReadFile(n, 10); return err },
				"write":    func(n string) error { return r.WriteFile(n, []byte("x"), 0o600) },
				"mkdir":    func(n string) error { return r.Mkdir(n+"x", 0o700) },
				"mkdirall": func(n string) error { return r.MkdirAll(n+"x/y", 0o700) },
				"symlink":  func(n string) error { return r.Symlink("x", n+"x") },
				"mknod":    func(n string) error { return r.Mknod(n+"x", fs.ModeNamedPipe|0o600, 0) },
				"rename":   func(n string) error { return r.Rename("/etc/passwd", n) },
				"fetch":    func(n string) error { return r.Rename(n, "/etc/fetched") },
				"remove":   r.Remove,
				"stat":     func(n string) error { _, err := r.Stat(n); return err },
				"readdir":  func(n string) error { _, err := r.ReadDirNames(filepath.Dir(n)); return err },
				"resolve":  func(n string) error { _, err := r.Resolve(n); return err },
				"copyout":  func(n string) error { _, err := r.CopyOut(n, &bytes.Buffer{}, 10); return err },
				"copyin":   func(n string) error { _, err := r.CopyIn(n, strings.NewReader("x"), 0o600, 10); return err },
			} {
				require.Error(t, f(name+"/secret"), "%s %s", act, name)
			}
			require.NoError(t, r.RemoveAll(name+"/secret"))
		}
		unchanged(t, outside)
	})
}

func closeIf(f *os.File) {
	if f != nil {
		f.Close()
	}
}

func TestRootOperations(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		dir, outside := cage(t)
		r := open(dir)
		require.Equal(t, dir, r.Name())
		require.NoError(t, r.MkdirAll("/a/b/c", 0o755))
		require.NoError(t, r.MkdirAll("a/b/c/", 0o755))
		require.NoError(t, r.Symlink("/a/b", "link"))
		require.NoError(t, r.WriteFile("/link/file", []byte("data"), 0o640))
		b, err := os.ReadFile(filepath.Join(dir, "a/b/file"))
		require.NoError(t, err)
		require.Equal(t, "data", string(b))
		b, err = r.ReadFile("link/../b/file", 4)
		require.NoError(t, err)
		require.Equal(t, "data", string(b))
		_, err = r.ReadFile("link/file", 3)
		require.ErrorIs(t, err, syscall.EFBIG)
		resolved, err := r.Resolve("link/./c/../file")
		require.NoError(t, err)
		require.Equal(t, "/a/b/file", resolved)
		resolved, err = r.Resolve("/../..")
		require.NoError(t, err)
		require.Equal(t, "/", resolved)
		text, err := r.Readlink("link")
		require.NoError(t, err)
		require.Equal(t, "/a/b", text)
		_, err = r.Readlink("a")
		require.ErrorIs(t, err, syscall.EINVAL)
		st, err := r.Stat("link")
		require.NoError(t, err)
		require.True(t, st.IsDir())
		st, err = r.Lstat("link")
		require.NoError(t, err)
		require.Equal(t, fs.ModeSymlink, st.Mode().Type())
		names, err := r.ReadDirNames("/link")
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"c", "file"}, names)
		require.NoError(t, r.Rename("link/file", "/etc/new"))
		require.FileExists(t, filepath.Join(dir, "etc/new"))
		require.NoError(t, r.Remove("link")) // the link and not what it leads to
		require.DirExists(t, filepath.Join(dir, "a/b"))
		require.NoError(t, r.Remove("a/b/c"))
		require.ErrorIs(t, r.Remove("a"), syscall.ENOTEMPTY)
		require.NoError(t, os.Symlink(outside, filepath.Join(dir, "a/out")))
		require.NoError(t, r.RemoveAll("a"))
		require.NoError(t, r.RemoveAll("a"))
		require.NoError(t, r.RemoveAll("a/b"))
		require.NoDirExists(t, filepath.Join(dir, "a"))
		unchanged(t, outside)
	})
}

func TestRootCreate(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		dir, outside := cage(t)
		r := open(dir)
		require.NoError(t, r.Mkdir("run", 0o755))
		for _, l := range [][2]string{{"etc/resolv.conf", "../run/stub"}, {"etc/abs", "/run/abs"}, {"etc/last", "/run/two"}, {"etc/two", "last"}} {
			require.NoError(t, r.Symlink(l[1], l[0]))
			if l[0] != "etc/last" {
				require.NoError(t, r.WriteFile(l[0], []byte("data"), 0o644), l[0])
			}
		}
		for _, want := range []string{"stub", "abs", "two"} {
			require.FileExists(t, filepath.Join(dir, "run", want))
		}
		// What was there is emptied, and keeps its mode.
		require.NoError(t, r.WriteFile("run/stub", []byte("x"), 0o600))
		b, err := r.ReadFile("etc/resolv.conf", 100)
		require.NoError(t, err)
		require.Equal(t, "x", string(b))
		require.NoError(t, r.Symlink(outside+"/made", "escape"))
		require.ErrorIs(t, r.WriteFile("escape", nil, 0o600), fs.ErrNotExist)
		require.NoError(t, r.Symlink("loop", "loop"))
		for _, name := range []string{"loop", "loop/x"} {
			require.ErrorIs(t, r.WriteFile(name, nil, 0o600), syscall.ELOOP)
		}
		require.ErrorIs(t, r.WriteFile("etc", nil, 0o600), syscall.EISDIR)
		unchanged(t, outside)
	})
}

// TestCreateOfHardLink: a file inside may be another name of one outside.
func TestCreateOfHardLink(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		dir, outside := cage(t)
		r := open(dir)
		require.NoError(t, os.Link(filepath.Join(outside, "secret"), filepath.Join(dir, "hard")))
		require.NoError(t, os.Symlink("hard", filepath.Join(dir, "soft")))
		for _, name := range []string{"hard", "soft"} {
			err := r.WriteFile(name, []byte("x"), 0o600)
			var refused *chroot.RefusedError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, chroot.IsHardLink, refused.Why)
			_, err = r.Create(name, 0o600)
			require.ErrorIs(t, err, syscall.EMLINK)
		}
		unchanged(t, outside)
		require.NoError(t, os.Remove(filepath.Join(outside, "secret")))
		require.NoError(t, r.WriteFile("hard", []byte("x"), 0o600))
		b, err := r.ReadFile("soft", 10)
		require.NoError(t, err)
		require.Equal(t, "x", string(b))
	})
}

func TestRootNames(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		dir, _ := cage(t)
		r := open(dir)
		for name, want := range map[string]error{
			"": syscall.ENOENT, "a\x00b": syscall.EINVAL, strings.Repeat("x", 256): syscall.ENAMETOOLONG,
			strings.Repeat("./", 2100): syscall.ENAMETOOLONG, "etc/passwd/": syscall.ENOTDIR, "etc/passwd/x": syscall.ENOTDIR,
			"etc/passwd/.": syscall.ENOTDIR, "etc/passwd/..": syscall.ENOTDIR, "etc/no": syscall.ENOENT, "no/../etc": syscall.ENOENT,
		} {
			_, err := r.Stat(name)
			require.ErrorIs(t, err, want, "%.20q", name)
			var e *chroot.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, name, e.Path)
			require.NotContains(t, err.Error(), "\n")
		}
		for _, name := range []string{"/", ".", "..", "etc/..", "etc/."} {
			require.ErrorIs(t, r.Mkdir(name, 0o700), syscall.EINVAL, name)
			require.ErrorIs(t, r.Remove(name), syscall.EINVAL, name)
			require.ErrorIs(t, r.RemoveAll(name), syscall.EINVAL, name)
		}
		for _, name := range []string{"a b", "a,b", "a:b", "a\nb", "a\\b", "-", "日本", "\xff"} {
			require.NoError(t, r.WriteFile(name, []byte("x"), 0o600))
			b, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, "x", string(b))
		}
	})
	_, err := chroot.Open("/no/such")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = chroot.Open("/etc/passwd")
	require.ErrorIs(t, err, syscall.ENOTDIR)
}

// Links of /proc lead to what processes have open, of the host too.
func TestRootMagicLinks(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		r := open("/")
		for _, name := range []string{"/proc/self/root/etc", "/proc/self/cwd", "/proc/self/exe", "/proc/self/fd/0", "/proc/self/ns/mnt"} {
			_, err := r.Stat(name)
			require.ErrorIs(t, err, syscall.ELOOP, name)
		}
		st, err := r.Stat("/proc/self/status")
		require.NoError(t, err)
		require.True(t, st.Mode().IsRegular())
		_, err = r.Lstat("/proc/self/exe")
		require.NoError(t, err)
	})
}

// TestCVE_2024_28185 and CVE-2018-15664: an output that is not what it seems is refused by type, its target not touched, and nothing waits.
func TestCVE_2024_28185(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		dir, outside := cage(t)
		r := open(dir)
		at := func(name string) string { return filepath.Join(dir, name) }
		require.NoError(t, os.WriteFile(at("good"), []byte("good"), 0o600))
		require.NoError(t, os.Symlink("good", at("symlink")))
		require.NoError(t, os.Symlink(outside, at("away")))
		require.NoError(t, unix.Mkfifo(at("fifo"), 0o666))
		require.NoError(t, os.Link(at("etc/passwd"), at("hardlink")))
		require.NoError(t, os.Mkdir(at("dir"), 0o755))
		socket(t, at("socket"))
		require.NoError(t, os.WriteFile(at("large"), bytes.Repeat([]byte("x"), 101), 0o600))
		sparse, err := os.Create(at("sparse"))
		require.NoError(t, err)
		require.NoError(t, sparse.Truncate(1<<40))
		sparse.Close()
		cases := map[string]chroot.Refusal{"symlink": chroot.IsSymlink, "away/secret": chroot.IsSymlink, "fifo": chroot.IsFIFO,
			"hardlink": chroot.IsHardLink, "dir": chroot.IsDirectory, "socket": chroot.IsSocket, "large": chroot.IsTooLarge, "sparse": chroot.IsTooLarge}
		// Opening /dev/watchdog or a tape has effects; this one would say so by ENXIO.
		if err := unix.Mknod(at("device"), unix.S_IFCHR|0o666, int(unix.Mkdev(240, 99))); err == nil {
			cases["device"] = chroot.IsDevice
			require.NoError(t, unix.Mknod(at("block"), unix.S_IFBLK|0o666, int(unix.Mkdev(240, 99))))
			cases["block"] = chroot.IsDevice
		} else {
			require.NotZero(t, os.Geteuid(), "root may make devices: %v", err)
		}
		began := time.Now()
		for name, want := range cases {
			var b bytes.Buffer
			_, err := r.CopyOut(name, &b, 100)
			var refused *chroot.RefusedError
			require.ErrorAs(t, err, &refused, name)
			require.Equal(t, want, refused.Why, name)
			require.Empty(t, b.String())
			if want == chroot.IsTooLarge {
				continue
			}
			_, err = r.CopyIn(name, strings.NewReader("new"), 0o600, 100)
			require.ErrorAs(t, err, &refused, name)
			require.Equal(t, want, refused.Why, name)
		}
		require.Less(t, time.Since(began), 5*time.Second)
		unchanged(t, outside)

		var b bytes.Buffer
		n, err := r.CopyOut("good", &b, 4)
		require.NoError(t, err)
		require.EqualValues(t, 4, n)
		require.Equal(t, "good", b.String())
		n, err = r.CopyIn("dir/in", strings.NewReader("in"), 0o604, chroot.NoLimit)
		require.NoError(t, err)
		require.EqualValues(t, 2, n)
		st, err := os.Stat(at("dir/in"))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o604), st.Mode())
		_, err = r.CopyIn("dir/in", strings.NewReader("12345"), 0o600, 4)
		require.ErrorIs(t, err, syscall.EFBIG)
		names, err := r.ReadDirNames("dir")
		require.NoError(t, err)
		require.Equal(t, []string{"in"}, names, "a temporary file is left")
		b.Reset()
		_, err = r.CopyOut("dir/in", &b, 100)
		require.NoError(t, err)
		require.Equal(t, "in", b.String())
	})
}

func socket(t *testing.T, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	dir, err := os.Open(filepath.Dir(name)) // the path may be too long for a socket
	require.NoError(t, err)
	defer dir.Close()
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(name))}))
}

// A lease makes whoever opens the file wait for its holder, for up to 45 seconds.
func TestCopyOutUnderLease(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		dir, _ := cage(t)
		f, err := os.OpenFile(filepath.Join(dir, "leased"), os.O_CREATE|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		defer f.Close()
		fd := f.Fd()
		_, err = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_WRLCK)
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EAGAIN) {
			t.Skipf("no leases on %s: %v", dir, err)
		}
		require.NoError(t, err)
		// The kernel tells the holder by SIGIO, which the Go runtime ignores.
		began := time.Now()
		_, err = open(dir).CopyOut("leased", &bytes.Buffer{}, 100)
		require.Less(t, time.Since(began), 5*time.Second)
		var refused *chroot.RefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, chroot.IsBusy, refused.Why)
	})
}

func TestRefusal_String(t *testing.T) {
	for why := chroot.IsSymlink; why <= chroot.IsReplaced; why++ {
		e := &chroot.RefusedError{Why: why}
		require.NotEqual(t, "refused: refused", e.Error())
		require.NotZero(t, e.Unwrap())
	}
	require.ErrorIs(t, &chroot.RefusedError{Why: 99}, syscall.EPERM)
}

// TestRootRefusal: what the caller may not do stays so.
func TestRootRefusal(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user; the user lane runs it")
	}
	r, err := chroot.Open("/")
	require.NoError(t, err)
	defer r.Close()
	require.ErrorIs(t, r.WriteFile("/etc/passwd", nil, 0), fs.ErrPermission)
	require.ErrorIs(t, r.Mknod(t.TempDir()+"/null", fs.ModeDevice|fs.ModeCharDevice|0o666, unix.Mkdev(1, 3)), fs.ErrPermission)
	_, err = chroot.Open("/root/x")
	require.Error(t, err)
}

// TestCopyOutOfKernelFiles: a file of the kernel's that has been mounted over the output is not read with the host's rights.
func TestCopyOutOfKernelFiles(t *testing.T) {
	r, err := chroot.Open("/")
	require.NoError(t, err)
	defer r.Close()
	for _, name := range []string{"proc/version", "sys/kernel/notes"} {
		if _, err := os.Stat("/" + name); err != nil {
			continue
		}
		_, err = r.CopyOut(name, io.Discard, 1<<20)
		var refused *chroot.RefusedError
		require.ErrorAs(t, err, &refused, name)
		require.Equal(t, chroot.IsKernels, refused.Why)
	}
}
