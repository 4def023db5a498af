package caps

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
)

// installer is the program of testdata/install, without cgo.
func installer(t *testing.T) string {
	t.Helper()
	if os.Getenv("VMRUN") == "1" {
		t.Skip("the compiler is slow here; TestInstallThread makes the same calls")
	}
	hasCommand(t, "go", "the Go distribution")
	dir, err := os.MkdirTemp("", "caps")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	name := filepath.Join(dir, "install")
	c := exec.Command("go", "build", "-o", name, "./testdata/install")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	return name
}

// TestInstall: all threads have what was asked for, at one moment.
func TestInstall(t *testing.T) {
	asRoot(t, Setpcap|Kill|Chown)
	name := installer(t)
	install := func(what string, c *exec.Cmd) (State, string) {
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s: %s", what, out)
		require.Equal(t, 1, strings.Count(string(out), "threads 8 or more true\n"), "%s: threads differ: %s", what, out)
		s, err := parseStatus(string(out))
		require.NoError(t, err)
		s.Securebits = 0
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return s, lines[len(lines)-1]
	}
	s, bits := install("none", exec.Command(name, "none"))
	require.Equal(t, State{NoNewPrivs: true}, s)
	require.Equal(t, "0", bits)
	s, bits = install("ambient", exec.Command(name, "ambient"))
	require.Equal(t, State{Permitted: Kill | Chown, Effective: Kill, Inheritable: Kill, Ambient: Kill, Bounding: Kill}, s)
	require.Equal(t, "SECBIT_NOROOT|SECBIT_NOROOT_LOCKED|SECBIT_NO_SETUID_FIXUP", bits)

	out, err := exec.Command(name, "differ").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "has others: =")
	out, err = exec.Command(name, "more").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "the kernel does not know all of 60 true")

	ordinary := func(what string) *exec.Cmd {
		c := exec.Command(name, what)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return c
	}
	defer unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) // os/exec leaves us undumpable
	have, err := Current()
	require.NoError(t, err)
	s, _ = install("same", ordinary("same"))
	require.Equal(t, State{Bounding: have.Bounding}, s)
	out, err = ordinary("none").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "needs CAP_SETPCAP")
}

// A program with cgo is told so, and has lost nothing.
func TestInstallCgo(t *testing.T) {
	before, err := Current()
	require.NoError(t, err)
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); e != syscall.ENOTSUP {
		t.Skip("this test is built without cgo; TestInstall tests that")
	}
	same := before
	same.Securebits = NotShown
	err = same.Install()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "CGO_ENABLED=0")
	after, err := Current()
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// TestInstallSelf: the test itself, where it is built without cgo, gives up everything on all its threads.
func TestInstallSelf(t *testing.T) {
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); e == syscall.ENOTSUP {
		t.Skip("this test is built with cgo; TestInstall tests a program that is not")
	}
	asRoot(t, Setpcap|Kill)
	if os.Getenv("CAPS_INSTALL") == "" {
		again(t, func(c *exec.Cmd) { c.Env = append(c.Env, "CAPS_INSTALL=1") })
		return
	}
	one := State{Permitted: Kill, Effective: Kill, Bounding: Kill, NoNewPrivs: true}
	require.NoError(t, one.Install())
	require.NoError(t, sameOnAll(one))
	require.Equal(t, one, status(t), "and in what it starts")
	require.ErrorIs(t, State{}.Install(), syscall.EPERM, "without CAP_SETPCAP the bounding set stays")
	require.NoError(t, State{Bounding: Kill}.Install())
	require.NoError(t, sameOnAll(State{Bounding: Kill, NoNewPrivs: true}))
	require.ErrorIs(t, one.Install(), syscall.EPERM)
}

func TestInstallRefused(t *testing.T) {
	for _, s := range []State{{Permitted: 1 << 62}, {Effective: Kill}, {Securebits: 1 << 20}} {
		require.Error(t, s.Install())
	}
	err := State{Bounding: 1 << 62}.Install()
	require.ErrorIs(t, err, syscall.EPERM)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	if asOrdinary(t) {
		require.ErrorIs(t, State{}.Install(), syscall.EPERM)
		require.ErrorIs(t, State{Permitted: NetRaw, Bounding: NetRaw}.Install(), syscall.EPERM)
	}
}

// onThread calls f on a thread that ends with it: not the first one, which would stay.
func onThread(f func()) {
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

func rawCall(c sys.Call) syscall.Errno {
	_, _, e := unix.RawSyscall6(c.Trap, c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5])
	return e
}

// TestInstallThread: the calls of Install, on one thread.
func TestInstallThread(t *testing.T) {
	asRoot(t, Setpcap|Kill|NetRaw)
	for _, want := range []State{{}, {NoNewPrivs: true}, {Bounding: Kill}, {Permitted: Kill, Bounding: NetRaw},
		{Permitted: Kill | NetRaw, Effective: NetRaw, Inheritable: Kill, Ambient: Kill, Bounding: Kill | NetRaw, Securebits: NoRoot.Locked() | NoAmbientRaise.Locked()},
		{Permitted: Setpcap, Effective: Setpcap, Bounding: Setpcap, Securebits: KeepCaps}} {
		onThread(func() {
			have, err := Current()
			require.NoError(t, err)
			require.NoError(t, want.installable(have))
			require.NoError(t, want.install(have, rawCall))
			got, err := Current()
			require.NoError(t, err)
			require.Equal(t, want, got)
			s, err := Of(unix.Gettid())
			require.NoError(t, err)
			want.Securebits = NotShown
			require.Equal(t, want, s, "what /proc shows")
		})
	}
}

// TestPlanIsForItsThread: a plan that counts on what the caller lacks is not performed by a thread that has it.
func TestPlanIsForItsThread(t *testing.T) {
	asRoot(t, Setpcap|Kill)
	parts := Keep(All)
	onThread(func() {
		have, err := Current()
		require.NoError(t, err)
		less := have
		less.Bounding, less.Permitted, less.Effective = have.Bounding&^Kill, have.Permitted&^Kill, have.Effective&^Kill
		less.Inheritable, less.Ambient = 0, 0
		require.NoError(t, less.install(have, rawCall))
		p := buildPlan(parts)
		require.Contains(t, p.String(), "goes without cap_kill")
		failed := make(chan error)
		go func() {
			_, err := tryStatus(p)
			failed <- err
		}()
		err = <-failed
		require.ErrorIs(t, err, syscall.EPERM)
		require.ErrorContains(t, err, "this thread has more")
	})
}

// Without CAP_SETPCAP, who has lost everything can start what has nothing, and only that.
func TestNestedWithoutSetpcap(t *testing.T) {
	asRoot(t, Setpcap|Kill)
	onThread(func() {
		have, err := Current()
		require.NoError(t, err)
		require.NoError(t, State{Permitted: Kill, Effective: Kill, Bounding: Kill}.install(have, rawCall))
		p := buildPlan(Drop(All).Add(Kill))
		require.NotContains(t, p.String(), "PR_CAPBSET_DROP")
		s, err := tryStatus(p)
		require.NoError(t, err)
		require.Equal(t, State{Permitted: Kill, Effective: Kill, Bounding: Kill}, s)
		_, err = tryStatus(buildPlan(Drop(All)))
		require.ErrorIs(t, err, syscall.EPERM)
		require.ErrorIs(t, buildPlan(Drop(All).Add(NetRaw)).Err(), syscall.EPERM)
	})
}

func TestOf(t *testing.T) {
	now, err := Current()
	require.NoError(t, err)
	self, err := Of(0)
	require.NoError(t, err)
	require.Equal(t, now, self)
	shown, err := Of(os.Getpid())
	require.NoError(t, err)
	now.Securebits = NotShown
	require.Equal(t, now, shown)
	_, err = Of(1 << 30)
	require.ErrorIs(t, err, os.ErrNotExist)
	var e *Error
	require.ErrorAs(t, err, &e)
	for _, text := range []string{"", "CapInh:\t0\n", strings.Replace(fullStatus, "CapBnd", "CapXxx", 1), strings.Replace(fullStatus, "7\n", "\n", 1)} {
		_, err := parseStatus(text)
		require.ErrorIs(t, err, syscall.EINVAL, text)
	}
	s, err := parseStatus(fullStatus)
	require.NoError(t, err)
	require.Equal(t, State{Inheritable: 1, Permitted: 3, Effective: 5, Bounding: 7, Ambient: 9, NoNewPrivs: true, Securebits: NotShown}, s)
}

const fullStatus = "Name:\tx\nCapInh:\t0000000000000001\nCapPrm:\t0000000000000003\nCapEff:\t0000000000000005\nCapBnd:\t0000000000000007\nCapAmb:\t0000000000000009\nNoNewPrivs:\t1\nSeccomp:\t0\n"
