package notify_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/internal/launchtest"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

// targets are what the test binary does when it is a command under a filter. The name is its first argument.
var targets = map[string]func(args []string) error{}

// TestMain makes the test binary be a target, when it is executed under that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "target" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	if err := targets[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Println("target:", err)
		os.Exit(1)
	}
}

// when makes a filter that gives the action for the calls and allows all others.
func when(action uint32, calls ...uint32) notify.Raw {
	return program(action, unix.SECCOMP_RET_ALLOW, calls...)
}

// unless gives the action for all other calls.
func unless(action uint32, calls ...uint32) notify.Raw {
	return program(unix.SECCOMP_RET_ALLOW, action, calls...)
}

func program(listed, others uint32, calls ...uint32) notify.Raw {
	p := notify.Raw{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}}
	for i, nr := range calls {
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(calls) - i), K: nr})
	}
	return append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: others}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: listed})
}

const (
	asks    = unix.SECCOMP_RET_USER_NOTIF
	refuses = unix.SECCOMP_RET_ERRNO | uint32(syscall.EPERM)
	kills   = unix.SECCOMP_RET_KILL_PROCESS
)

// run starts the target under the filter and gives its output and its wait status.
func run(t testing.TB, f plan.Primitive, args ...string) (string, unix.WaitStatus) {
	t.Helper()
	out, status, err := start(t, launch.Options{}, []plan.Primitive{f}, args...)
	require.NoError(t, err)
	return out, status
}

// environ is that of a target. With the race detector a program waits for a second before it ends, unless it is told not to.
func environ() []string { return append(os.Environ(), "GORACE=atexit_sleep_ms=0") }

func command(t testing.TB, args ...string) (*plan.Command, func() string) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	read := make(chan string, 1)
	go func() {
		var b bytes.Buffer
		b.ReadFrom(r)
		r.Close()
		read <- b.String()
	}()
	cmd := &plan.Command{Candidates: []string{exe}, Args: append([]string{"target"}, args...), Env: environ(), Files: []*os.File{nil, w, w}}
	return cmd, func() string {
		w.Close()
		return <-read
	}
}

func start(t testing.TB, opt launch.Options, parts []plan.Primitive, args ...string) (string, unix.WaitStatus, error) {
	t.Helper()
	cmd, output := command(t, args...)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	built := plan.Build(parts...)
	p, err := launch.Start(ctx, built, cmd, opt)
	if err != nil {
		return output(), 0, err
	}
	stop := context.AfterFunc(ctx, func() { unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0) })
	defer stop()
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(p.PID, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	require.NoError(t, err)
	built.Observed(p.Run, new(plan.Result)) // as Cmd.Wait does
	require.NoError(t, p.Release())
	return output(), ws, nil
}

func supervisor(t testing.TB, h notify.Handlers) *notify.Supervisor {
	t.Helper()
	s, err := notify.NewSupervisor(h)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// descriptors are the open files of this process.
func descriptors(t testing.TB) (all []string) {
	t.Helper()
	dir, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range dir {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasSuffix(target, "/fd") {
			all = append(all, target)
		}
	}
	return all
}

// unchanged checks at the end of the test that as many descriptors are open as before, and as many goroutines live.
func unchanged(t testing.TB) {
	t.Helper()
	r, w, err := os.Pipe() // the runtime opens what it polls with
	require.NoError(t, err)
	r.Close()
	w.Close()
	before, routines := descriptors(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 500 {
			if len(descriptors(t)) <= len(before) && runtime.NumGoroutine() <= routines {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%d goroutines before, %d after; before %v, after %v", routines, runtime.NumGoroutine(), before, descriptors(t))
	})
}

// asUser runs the test again as nobody, where this process is root.
func asUser(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	b, err := os.ReadFile(exe)
	require.NoError(t, err)
	name := filepath.Join(dir, "user.test")
	require.NoError(t, os.WriteFile(name, b, 0o755))
	c := exec.Command(name, "-test.run", "^"+t.Name()+"$", "-test.v")
	c.Dir = "/"
	c.Env = append(environ(), "TMPDIR=/tmp")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) // os/exec leaves it cleared
	require.NoError(t, err, string(out))
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skip(string(out))
	}
	return true
}

// user gives the command a user namespace in which it is root.
var user = plan.Func(launchtest.WithUser)

// started is a process and the plan by which it was started.
type started struct {
	*launch.Process
	plan *plan.Plan
}

func startCommand(t testing.TB, cmd *plan.Command, parts ...plan.Primitive) started {
	t.Helper()
	built := plan.Build(parts...)
	p, err := launch.Start(context.Background(), built, cmd, launch.Options{})
	require.NoError(t, err)
	return started{p, built}
}

// ended waits for the end of a process; one that takes too long is killed.
func ended(t testing.TB, p started) unix.WaitStatus {
	t.Helper()
	stop := time.AfterFunc(20*time.Second, func() { unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0) })
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(p.PID, &ws, 0, nil); err != unix.EINTR {
			require.NoError(t, err)
			break
		}
	}
	stop.Stop()
	p.plan.Observed(p.Run, new(plan.Result)) // as Cmd.Wait does
	require.NoError(t, p.Release())
	return ws
}
