package notify_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

func init() {
	targets["mkdirs"] = mkdirs
	targets["mkdirs in"] = func(args []string) error {
		if err := unix.Chroot(args[0]); err != nil {
			return err
		}
		return mkdirs(args[1:])
	}
	targets["text"] = texts
	targets["open"] = func(args []string) error {
		for _, name := range args {
			fd, err := unix.Openat(-100, name, 0, 0)
			if err != nil {
				return err
			}
			b := make([]byte, 100)
			n, err := unix.Read(fd, b)
			flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			fmt.Printf("%d %q %v %v\n", fd, b[:max(n, 0)], flags, err)
		}
		return nil
	}
	targets["open late"] = func(args []string) error { // says only whether it can
		fd, err := unix.Openat(-100, args[0], 0, 0)
		if err == nil {
			unix.Close(fd)
		}
		fmt.Println(err)
		return nil
	}
	targets["connect"] = func(args []string) error {
		c, err := net.Dial(args[0], args[1])
		if err != nil {
			fmt.Println(err)
			return nil
		}
		defer c.Close()
		b := make([]byte, 5)
		_, err = c.Read(b)
		fmt.Printf("%s\n", b)
		return err
	}
	targets["own files"] = func([]string) error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			err := unix.Unshare(unix.CLONE_FILES)
			if err == nil {
				// Nothing of package os: the runtime would open its poller here, where no other thread has it.
				err = unix.Dup3(must(unix.Open("/dev/zero", unix.O_RDONLY, 0)), 0, 0)
			}
			r, _, _ := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
			fmt.Println(int(r))
			done <- err
		}()
		return <-done
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// mkdirs makes a directory for each argument: PATH, or DIR:PATH relative to an open directory.
func mkdirs(args []string) error {
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	for _, a := range args[1:] {
		fd := unix.AT_FDCWD
		if dir, name, ok := strings.Cut(a, ":"); ok {
			f := must(os.Open(dir))
			defer f.Close()
			fd, a = int(f.Fd()), name
		}
		fmt.Println(unix.Mkdirat(fd, a, 0o700))
	}
	return nil
}

// makeDirs is a supervisor that makes directories itself.
func makeDirs(_ context.Context, r *notify.Request) notify.Response {
	p, err := r.Path(r.Args[0], r.Args[1])
	if err != nil {
		return notify.Result(0, err)
	}
	defer p.Close()
	dir, name, err := p.Parent()
	if err != nil {
		return notify.Result(0, err)
	}
	defer dir.Close()
	return notify.Result(0, unix.Mkdirat(int(dir.Fd()), name, uint32(r.Args[2])))
}

func TestPath(t *testing.T) {
	if asUser(t) {
		t.Log("as an ordinary user: passed")
	}
	unchanged(t)
	dir := must(filepath.EvalSymlinks(t.TempDir()))
	for _, d := range []string{"a", "b"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	require.NoError(t, os.Symlink("../b", filepath.Join(dir, "a", "link")))
	require.NoError(t, os.Symlink("/proc/self/root", filepath.Join(dir, "magic")))
	out, _ := run(t, notify.Filter{Program: when(asks, unix.SYS_MKDIRAT), Handler: makeDirs}, "mkdirs", dir, "one", dir+"/two", "a:three", "a:../four", "a/link/five",
		"a/", "one", "none/six", "magic/seven", "..", "six/", "", strings.Repeat("x", 4096))
	require.Equal(t, strings.Join([]string{"<nil>", "<nil>", "<nil>", "<nil>", "<nil>", "file exists", "file exists", "no such file or directory",
		"too many levels of symbolic links", "invalid argument", "<nil>", "no such file or directory", "file name too long", ""}, "\n"), out)
	for _, want := range []string{"one", "two", "a/three", "four", "b/five", "six"} {
		require.DirExists(t, filepath.Join(dir, want))
	}
	st := must(os.Stat(filepath.Join(dir, "one")))
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())
}

// TestPathInRoot: names are the target's, in its root directory, and no link leads out of it.
func TestPathInRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skipf("uid %d may not change the root", os.Geteuid())
	}
	unchanged(t)
	root := must(filepath.EvalSymlinks(t.TempDir()))
	require.NoError(t, os.Mkdir(filepath.Join(root, "tmp"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	require.NoError(t, os.Symlink("/etc", filepath.Join(root, "tmp", "link")))
	require.NoError(t, os.Symlink("../../../../../../etc", filepath.Join(root, "tmp", "up")))
	cmd, output := command(t, "mkdirs in", root, "/tmp", "caisson-1", "link/caisson-2", "up/caisson-3", "/caisson-4", "../../caisson-5")
	p := startCommand(t, cmd, notify.Filter{Program: when(asks, unix.SYS_MKDIRAT), Handler: makeDirs})
	require.Zero(t, ended(t, p))
	require.Equal(t, strings.Repeat("<nil>\n", 5), output())
	for _, want := range []string{"tmp/caisson-1", "etc/caisson-2", "etc/caisson-3", "caisson-4", "caisson-5"} {
		require.DirExists(t, filepath.Join(root, want))
		require.NoDirExists(t, "/"+want)
	}
}

// TestRemovedDirectory: who is in a directory that is no more has no path.
func TestRemovedDirectory(t *testing.T) {
	dir := t.TempDir()
	out, _ := run(t, notify.Filter{Program: when(asks, unix.SYS_MKDIRAT), Handler: func(ctx context.Context, r *notify.Request) notify.Response {
		os.Remove(dir)
		return makeDirs(ctx, r)
	}}, "mkdirs", dir, "one")
	require.Equal(t, "no such file or directory\n", out)
}

// texts calls getppid with addresses of strings: at the end of memory, without an end, nowhere.
func texts([]string) error {
	page := os.Getpagesize()
	m := must(unix.Mmap(-1, 0, 4*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS))
	for i := range m {
		m[i] = 'x'
	}
	m[3*page-1] = 0
	base := uintptr(unsafe.Pointer(&m[0]))
	if err := unix.Mprotect(m[3*page:], unix.PROT_NONE); err != nil {
		return err
	}
	for _, at := range []uintptr{base + uintptr(3*page) - 4, base + uintptr(3*page) - 1, base, base + uintptr(3*page), 8, ^uintptr(0) - 3} {
		unix.Syscall(unix.SYS_GETPPID, at, 0, 0)
	}
	m[3*page-1] = 'x'
	unix.Syscall(unix.SYS_GETPPID, base+uintptr(3*page)-4, 0, 0)
	return nil
}

func TestText(t *testing.T) {
	unchanged(t)
	var got []string
	run(t, notify.Filter{Program: onGetppid, Handler: func(_ context.Context, r *notify.Request) notify.Response {
		s, err := r.Text(r.Args[0], 4095)
		got = append(got, fmt.Sprint(s, " ", syscall.Errno(errno(err))))
		if len(got) == 1 {
			two := make([]byte, 4)
			got = append(got, fmt.Sprint(r.Read(two, r.Args[0]), string(two[:3]), r.Read(nil, r.Args[0])))
			got = append(got, fmt.Sprint(syscall.Errno(errno(r.Read(make([]byte, 5), r.Args[0])))))
		}
		return notify.Return(0)
	}}, "text")
	require.Equal(t, []string{"xxx errno 0", "<nil>xxx<nil>", "bad address", " errno 0", " file name too long", " bad address", " bad address", " bad address",
		" bad address"}, got)
}

func errno(err error) uintptr { return uintptr(plan.Errno(err)) }

func TestDescriptor(t *testing.T) {
	unchanged(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("of the host"), 0o600))
	out, _ := run(t, notify.Filter{Program: when(asks, unix.SYS_OPENAT), Handler: func(_ context.Context, r *notify.Request) notify.Response {
		name, _ := r.Text(r.Args[1], 4095)
		f, err := os.Open(file)
		if err != nil {
			return notify.Result(0, err)
		}
		switch name {
		case "/atomic":
			return notify.Descriptor(f, false)
		case "/inherit":
			return notify.Descriptor(f, true)
		case "/twice":
			defer f.Close()
			fd, err := r.Give(f, false)
			return notify.Result(fd, err)
		case "/at":
			defer f.Close()
			if err := r.GiveAt(f, -1, false); err == nil {
				return notify.Errno(syscall.ENOTRECOVERABLE)
			}
			return notify.Result(77, r.GiveAt(f, 77, true))
		}
		f.Close()
		return notify.Continue()
	}}, "open", "/atomic", "/inherit", "/twice", "/at")
	lines := strings.Split(out, "\n")
	for i, want := range []string{`"of the host" 1 <nil>`, `"of the host" 0 <nil>`, `"of the host" 1 <nil>`, `77 "of the host" 0 <nil>`} {
		require.Contains(t, lines[i], want)
	}
	require.True(t, strings.HasPrefix(lines[3], "77 "))
}

// TestNoRoomForDescriptor: the target has as many descriptors as it may. The file that could not be delivered is closed all the same.
func TestNoRoomForDescriptor(t *testing.T) {
	unchanged(t)
	limit := plan.Func(func(p *plan.Plan) error {
		p.While(plan.Action{Name: "prlimit", Do: func(r *plan.Run) error { return nil }})
		return nil
	})
	asked := 0
	h := func(_ context.Context, r *notify.Request) notify.Response {
		asked++
		unix.Prlimit(r.PID, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 3}, nil)
		return notify.Descriptor(must(os.Open("/dev/null")), false)
	}
	cmd, output := command(t, "getppid")
	p := startCommand(t, cmd, limit, notify.Filter{Program: onGetppid, Handler: h})
	ended(t, p)
	require.Equal(t, "-1 24\n", output())
	require.Equal(t, 1, asked)
}

// TestFile: a copy of the target's descriptor is the same open file, also where a thread has its own.
func TestFile(t *testing.T) {
	if asUser(t) {
		t.Log("as an ordinary user: passed")
	}
	unchanged(t)
	var names []string
	h := func(_ context.Context, r *notify.Request) notify.Response {
		f, err := r.File(0)
		if err != nil {
			names = append(names, err.Error())
			return notify.Result(0, err)
		}
		defer f.Close()
		names = append(names, must(os.Readlink("/proc/self/fd/"+strconv.Itoa(int(f.Fd())))))
		_, err = r.File(12345)
		return notify.Result(0, err)
	}
	for _, target := range []string{"getppid", "own files"} {
		cmd, output := command(t, target)
		cmd.Files[0] = must(os.Open("/dev/full"))
		p := startCommand(t, cmd, notify.Filter{Program: onGetppid, Handler: h})
		cmd.Files[0].Close()
		ended(t, p)
		require.Contains(t, output(), "-1")
	}
	require.Equal(t, "/dev/full", names[0])
	if names[1] != "/dev/zero" { // pidfds of threads are newer
		require.Contains(t, names[1], "needs Linux 6.9")
	}
}

func TestConnect(t *testing.T) {
	if asUser(t) {
		t.Log("as an ordinary user: passed")
	}
	unchanged(t)
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := net.Listen(network, "localhost:0")
		if err != nil && network == "tcp6" {
			t.Logf("no IPv6 here: %v", err)
			continue
		}
		require.NoError(t, err)
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Write([]byte("hello"))
				c.Close()
			}
		}()
		allowed := l.Addr().(*net.TCPAddr).AddrPort()
		var seen []netip.AddrPort
		h := func(ctx context.Context, r *notify.Request) notify.Response {
			a, err := r.SockAddr(r.Args[1], r.Args[2])
			if err != nil {
				return notify.Result(0, err)
			}
			if seen = append(seen, a.AddrPort); a.AddrPort != allowed {
				return notify.Errno(syscall.EACCES)
			}
			s, err := r.File(int(r.Args[0]))
			if err != nil {
				return notify.Result(0, err)
			}
			defer s.Close()
			return notify.Result(0, a.Connect(ctx, s))
		}
		f := notify.Filter{Program: when(asks, unix.SYS_CONNECT), Handler: h}
		out, _ := run(t, f, "connect", network, allowed.String())
		require.Equal(t, "hello\n", out)
		require.Contains(t, seen, allowed)
		out, _ = run(t, f, "connect", network, netip.AddrPortFrom(allowed.Addr(), 1).String())
		require.Contains(t, out, "permission denied")
	}
}

// TestConnectNothing: there is no address.
func TestConnectNothing(t *testing.T) {
	require.ErrorIs(t, notify.SockAddr{}.Connect(t.Context(), os.Stdin), syscall.EINVAL)
}
