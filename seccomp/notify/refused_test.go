package notify_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

// named is a path as a target in our own root would have given it.
func named(t testing.TB, name string) *notify.Path {
	t.Helper()
	root, err := os.Open("/")
	require.NoError(t, err)
	p := &notify.Path{Name: name, Root: root}
	t.Cleanup(func() { p.Close() })
	return p
}

func requireRefused(t testing.TB, err error, name string) {
	t.Helper()
	var typed *notify.Error
	require.ErrorAs(t, err, &typed, name)
	require.ErrorIs(t, err, notify.ErrRefused, name)
	require.ErrorIs(t, err, syscall.EACCES, name)
	require.Equal(t, "EACCES", notify.Result(0, err).String(), name)
}

// openWith answers open as the documentation advises.
func openWith(_ context.Context, r *notify.Request) notify.Response {
	p, err := r.Path(r.Args[0], r.Args[1])
	if err != nil {
		return notify.Result(0, err)
	}
	defer p.Close()
	if !strings.HasPrefix(p.Name, "/proc/") && !filepath.IsAbs(p.Name) {
		return notify.Continue()
	}
	f, err := p.Open(int(r.Args[2]), uint32(r.Args[3]))
	if err != nil {
		return notify.Result(0, err)
	}
	return notify.Descriptor(f, false)
}

// TestOpenProcSelfIsSupervisor: /proc/self is walked by the supervisor, and is not the target's.
func TestOpenProcSelfIsSupervisor(t *testing.T) {
	if asUser(t) {
		t.Log("as an ordinary user: passed")
	}
	unchanged(t)
	t.Setenv("CAISSON_SECRET", "of the supervisor")
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink("/proc/self/environ", link))
	for _, name := range []string{"/proc/self/environ", "/proc/thread-self/environ", "/proc/self/mem", "/proc/mounts", link, fmt.Sprintf("/proc/%d/environ", os.Getpid())} {
		for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_CREAT, unix.O_PATH} {
			f, err := named(t, name).Open(flags, 0o600)
			require.Nil(t, f, name)
			requireRefused(t, err, name)
		}
	}
	for _, name := range []string{"/proc/self/x", "/proc/self/task/x", "/proc/x", link + "/../environ"} {
		f, _, err := named(t, name).Parent()
		require.Nil(t, f, name)
		if name[1] == 'p' {
			requireRefused(t, err, name)
		}
	}
	out, _ := run(t, notify.Filter{Program: when(asks, unix.SYS_OPENAT), Handler: openWith}, "open late", "/proc/self/environ")
	require.Equal(t, "permission denied\n", out)
}

// TestOpenPseudoTerminal: a supervisor that leads a session without a terminal would get the sandbox's as its own.
func TestOpenPseudoTerminal(t *testing.T) {
	unchanged(t)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	for _, name := range []string{"/dev/pts/" + strconv.Itoa(n), "/dev/ptmx", "/dev/tty"} {
		for _, flags := range []int{unix.O_RDWR, unix.O_RDWR | unix.O_CREAT} {
			f, err := named(t, name).Open(flags, 0)
			require.Nil(t, f)
			requireRefused(t, err, name)
		}
	}
}

// TestOpenFifoBlocks: who opens one waits for its other end, and holds up a handler for good.
func TestOpenFifoBlocks(t *testing.T) {
	unchanged(t)
	dir := t.TempDir()
	fifo, socket := filepath.Join(dir, "fifo"), filepath.Join(dir, "socket")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close()
	for _, name := range []string{fifo, socket} {
		for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_WRONLY | unix.O_CREAT, unix.O_RDWR} {
			done := make(chan error, 1)
			go func() {
				_, err := named(t, name).Open(flags, 0o600)
				done <- err
			}()
			select {
			case err := <-done:
				requireRefused(t, err, name)
			case <-time.After(5 * time.Second):
				other, _ := os.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK, 0) // lets it end
				defer other.Close()
				t.Fatal(name, " is waited for")
			}
		}
		f, err := named(t, name).Open(unix.O_PATH, 0)
		require.NoError(t, err)
		f.Close()
	}
}

// TestOpenLeased: nor is it held up by the lease of a file.
func TestOpenLeased(t *testing.T) {
	unchanged(t)
	name := filepath.Join(t.TempDir(), "file")
	held := must(os.Create(name))
	defer held.Close()
	c := must(held.SyscallConn())
	c.Control(func(fd uintptr) {
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_WRLCK)
		require.NoError(t, err)
	})
	begin := time.Now()
	_, err := named(t, name).Open(unix.O_RDONLY, 0)
	require.ErrorIs(t, err, syscall.EAGAIN)
	require.Less(t, time.Since(begin), 5*time.Second)
}

// TestOpenDevice: a driver obeys the supervisor's rights. What everybody may open is known by its number.
func TestOpenDevice(t *testing.T) {
	unchanged(t)
	for _, name := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"} {
		f, err := named(t, name).Open(unix.O_RDONLY, 0)
		require.NoError(t, err, name)
		f.Close()
	}
	if os.Geteuid() != 0 {
		t.Skipf("uid %d may not make devices", os.Geteuid())
	}
	dir := t.TempDir()
	for kind, number := range map[uint32]uint64{unix.S_IFCHR: unix.Mkdev(1, 1), unix.S_IFBLK: unix.Mkdev(7, 200)} {
		name := filepath.Join(dir, strconv.Itoa(int(kind)))
		if err := unix.Mknod(name, kind|0o600, int(number)); err != nil {
			t.Skipf("no devices here: %v", err)
		}
		_, err := named(t, name).Open(unix.O_RDONLY, 0)
		requireRefused(t, err, name)
	}
}

// TestOpenKinds: what is opened is what open(2) would give.
func TestOpenKinds(t *testing.T) {
	unchanged(t)
	dir := must(filepath.EvalSymlinks(t.TempDir()))
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("file"), []byte("contents"), 0o600))
	require.NoError(t, os.Symlink("file", at("link")))
	require.NoError(t, os.Symlink("none", at("dangling")))
	for _, c := range []struct {
		name  string
		flags int
		mode  uint32
		want  error
	}{
		{"file", unix.O_RDWR, 0, nil}, {"link", unix.O_RDONLY, 0, nil}, {"link", unix.O_RDONLY | unix.O_CREAT, 0, nil}, {"", unix.O_RDONLY, 0, nil},
		{"link", unix.O_NOFOLLOW, 0, syscall.ELOOP}, {"link", unix.O_NOFOLLOW | unix.O_PATH, 0, nil}, {"file", unix.O_DIRECTORY, 0, syscall.ENOTDIR},
		{"file/", unix.O_RDONLY, 0, syscall.ENOTDIR}, {"", unix.O_RDONLY | unix.O_CREAT, 0, syscall.EISDIR}, {"", unix.O_WRONLY, 0, syscall.EISDIR},
		{"none", unix.O_RDONLY, 0, syscall.ENOENT}, {"none/x", unix.O_RDWR | unix.O_CREAT, 0o600, syscall.ENOENT},
		{"file", unix.O_RDWR | unix.O_CREAT | unix.O_EXCL, 0, syscall.EEXIST}, {"dangling", unix.O_RDWR | unix.O_CREAT, 0o600, syscall.EEXIST},
		{"new", unix.O_RDWR | unix.O_CREAT, 0o100640, nil}, {"newer", unix.O_RDWR | unix.O_CREAT | unix.O_EXCL, 0o600, nil},
		{"x", unix.O_CREAT | unix.O_DIRECTORY, 0o600, syscall.EINVAL},
		{"", unix.O_TMPFILE | unix.O_RDWR, 0o600, nil},
		{"rights", unix.O_RDWR | unix.O_CREAT, 0o4755, notify.ErrRefused}, {"rights", unix.O_RDWR | unix.O_CREAT | unix.O_EXCL, 0o2755, notify.ErrRefused},
		{"", unix.O_TMPFILE | unix.O_RDWR, 0o4755, notify.ErrRefused},
	} {
		name := at(c.name)
		if strings.HasSuffix(c.name, "/") {
			name += "/"
		}
		f, err := named(t, name).Open(c.flags, c.mode)
		require.ErrorIs(t, err, c.want, "%s %#x", c.name, c.flags)
		if c.want == nil {
			require.Zero(t, must(unix.FcntlInt(f.Fd(), unix.F_GETFL, 0))&unix.O_NONBLOCK)
			require.NotZero(t, must(unix.FcntlInt(f.Fd(), unix.F_GETFD, 0))&unix.FD_CLOEXEC)
			f.Close()
		}
	}
	require.EqualValues(t, 0o640, must(os.Stat(at("new"))).Mode().Perm())
	require.NoFileExists(t, at("rights"))
	require.NoFileExists(t, at("none"))
	f, err := named(t, at("file")).Open(unix.O_RDWR|unix.O_TRUNC|unix.O_APPEND|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	defer f.Close()
	require.Zero(t, must(f.Stat()).Size())
}

// TestConnectUnixShowsSupervisor: the peer would be shown the supervisor's credentials, and a netlink socket would have its rights.
func TestConnectUnixShowsSupervisor(t *testing.T) {
	unchanged(t)
	name := fmt.Sprintf("\x00caisson-test-%d", os.Getpid())
	l, err := net.Listen("unix", "@"+name[1:])
	require.NoError(t, err)
	defer l.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	s := os.NewFile(uintptr(fd), "socket")
	defer s.Close()
	for family, rest := range map[uint16]string{unix.AF_UNIX: name, unix.AF_NETLINK: strings.Repeat("\x00", 10), unix.AF_VSOCK: strings.Repeat("\x00", 14)} {
		a, err := notify.ParseSockAddr(append(binary.NativeEndian.AppendUint16(nil, family), rest...))
		require.NoError(t, err)
		a.Family = unix.AF_INET // what counts is what the kernel is given
		err = a.Connect(t.Context(), s)
		require.ErrorIs(t, err, notify.ErrRefused)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	a, err := notify.ParseSockAddr(append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), "/run/x\x00"...))
	require.NoError(t, err)
	require.ErrorIs(t, a.Connect(t.Context(), s), notify.ErrRefused)
}

// TestExecveAskedOfItself: the command does not hold its own listener any more when it is asked about: else it would wait for ever if the
// supervisor were killed then.
func TestExecveAskedOfItself(t *testing.T) {
	unchanged(t)
	for _, opt := range []launch.Options{{}, {NoVfork: true}} {
		var held []string
		f := notify.Filter{Program: when(asks, unix.SYS_EXECVE), Handler: func(_ context.Context, r *notify.Request) notify.Response {
			dir := fmt.Sprintf("/proc/%d/fd", r.PID)
			for _, e := range must(os.ReadDir(dir)) {
				held = append(held, must(os.Readlink(filepath.Join(dir, e.Name()))))
			}
			return notify.Continue()
		}}
		_, status, err := start(t, opt, []plan.Primitive{f}, "threads", "1")
		require.NoError(t, err)
		require.Zero(t, status)
		require.NotEmpty(t, held)
		require.NotContains(t, strings.Join(held, " "), "seccomp notify")
	}
	strict := notify.Filter{Program: append(notify.Raw{}, unless(kills, unix.SYS_EXECVE)...), ReportKills: true}
	require.NotContains(t, plan.Build(strict).String(), "close(")
	refusing := notify.Filter{Program: append(notify.Raw{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_CLOSE},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16}, {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: 77},
		{Code: unix.BPF_RET | unix.BPF_K, K: kills}}, onGetppid...), Handler: always(notify.Continue())}
	require.NotContains(t, plan.Build(refusing).String(), "close(", "it depends on the descriptor")
	require.Contains(t, plan.Build(notify.Filter{Program: asking("getppid"), Handler: refusing.Handler}).String(), "close(")
}
