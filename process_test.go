package caisson_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/plan"
)

// waiting starts a command that runs until its input ends, and gives its input.
func waiting(t *testing.T, s caisson.Sandbox) (*caisson.Cmd, io.Closer) {
	t.Helper()
	c := s.Command("sh", "-c", "echo ready; exec cat")
	in, err := c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	require.Equal(t, "ready", firstLine(t, out))
	t.Cleanup(func() {
		if c.ProcessState == nil {
			c.Process.Kill()
			c.Wait()
		}
	})
	return c, in
}

// TestKill: a pipe that everything inside holds tells when the last of them has ended.
func TestKill(t *testing.T) {
	const script = "for i in 1 2 3 4 5; do sleep 3600 & done; setsid sleep 3600 & echo $!; wait"
	start := func(t *testing.T, s caisson.Sandbox) (c *caisson.Cmd, held *os.File) {
		held, w, err := os.Pipe()
		require.NoError(t, err)
		t.Cleanup(func() { held.Close() })
		c = s.Command("sh", "-c", script)
		c.ExtraFiles = []*os.File{w}
		out, err := c.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start())
		w.Close()
		firstLine(t, out)
		require.NoError(t, c.Process.Kill())
		var exit *exec.ExitError
		require.ErrorAs(t, c.Wait(), &exit)
		require.Equal(t, plan.Killed, c.Result().Reason)
		return c, held
	}
	t.Run("with a pid namespace", func(t *testing.T) {
		_, held := start(t, box(t))
		require.NoError(t, held.SetReadDeadline(time.Now().Add(patience)))
		_, err := io.ReadAll(held)
		require.NoError(t, err)
	})
	t.Run("without", func(t *testing.T) {
		c, held := start(t, caisson.New(caisson.Session{}))
		require.NoError(t, held.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		_, err := io.ReadAll(held)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "somebody still holds the pipe")
		require.NoError(t, syscall.Kill(-c.Process.Pid, syscall.SIGKILL), "the group is still there")
		killSessions(t, held)
	})
}

// killSessions ends who holds the other end of the pipe and has left the group: it is found by its descriptor.
func killSessions(t *testing.T, held *os.File) {
	t.Helper()
	want, err := os.Readlink(fmt.Sprint("/proc/self/fd/", held.Fd()))
	require.NoError(t, err)
	dirs, err := filepath.Glob("/proc/[0-9]*/fd/3")
	require.NoError(t, err)
	for _, dir := range dirs {
		var pid int
		if link, err := os.Readlink(dir); err != nil || link != want {
			continue
		}
		fmt.Sscanf(dir, "/proc/%d/", &pid)
		if pid != os.Getpid() {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	require.NoError(t, held.SetReadDeadline(time.Now().Add(patience)))
	_, err = io.ReadAll(held)
	require.NoError(t, err)
}

func TestWaitOften(t *testing.T) {
	c, in := waiting(t, caisson.New())
	var wg sync.WaitGroup
	states := make([]*os.ProcessState, 10)
	for i := range states {
		wg.Go(func() {
			var err error
			states[i], err = c.Process.Wait()
			if err != nil {
				t.Error(err)
			}
		})
	}
	require.NoError(t, in.Close())
	wg.Wait()
	for _, s := range states {
		require.True(t, s.Success())
		require.Same(t, states[0], s)
	}
	require.ErrorIs(t, c.Process.Signal(syscall.SIGTERM), os.ErrProcessDone)
	require.ErrorIs(t, c.Process.Kill(), os.ErrProcessDone)
	require.ErrorIs(t, c.Process.WithHandle(func(uintptr) { t.Error("called") }), os.ErrProcessDone)
	require.NoError(t, c.Wait(), "also the command can be waited for")
	require.Equal(t, plan.Exited, c.Result().Reason)
}

func TestWithHandle(t *testing.T) {
	c, in := waiting(t, caisson.New())
	err := c.Process.WithHandle(func(fd uintptr) {
		b, err := os.ReadFile(fmt.Sprint("/proc/self/fdinfo/", fd))
		require.NoError(t, err)
		require.Contains(t, string(b), fmt.Sprintf("Pid:\t%d\n", c.Process.Pid))
		flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.FD_CLOEXEC)
	})
	require.NoError(t, err)
	require.NoError(t, in.Close())
	require.NoError(t, c.Wait())
}

// TestUndoFails: what could not be undone is told, and what became of the command as well.
func TestUndoFails(t *testing.T) {
	s := caisson.New(plan.Func(func(p *plan.Plan) error {
		p.Before(plan.Action{Name: "do", Do: func(*plan.Run) error { return nil }, Undo: func(*plan.Run) error { return errTest }})
		return nil
	}))
	require.ErrorIs(t, s.Command("/bin/true").Run(), errTest)
	err := s.Command("sh", "-c", "exit 3").Run()
	require.ErrorIs(t, err, errTest)
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 3, exit.ExitCode())
}

// view is a script that prints what a command sees of the sandbox in which it runs.
func view() string {
	return "for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; cat /tmp/mark; umask; nice; " +
		"ulimit -Sn; ulimit -Hn; ulimit -Sc; " + statusOf("Uid", "Gid", "Groups", "Cpus_allowed", "CapInh", "NoNewPrivs")
}

// sandboxes are those into which a further command is executed.
func sandboxes(t *testing.T) map[string]caisson.Sandbox {
	t.Helper()
	parts := []plan.Primitive{caisson.Umask(0o137), caisson.Nice(5), caisson.Affinity{0},
		caisson.Rlimit{Resource: caisson.RlimitNofile, Soft: 50, Hard: 60}}
	all := map[string]caisson.Sandbox{"plain": box(t, parts...), "die": box(t, caisson.DieWithParent{})}
	if os.Geteuid() == 0 {
		all["user"] = box(t, append(parts, caisson.User{UID: 70000, GID: 70001, Groups: []uint32{5}})...)
		all["user namespace"] = box(t, append(parts, userNamespace())...)
		s := box(t, clone(unix.CLONE_NEWTIME))
		if err := s.Command("/bin/true").Run(); err == nil {
			all["time"] = s
		} else {
			require.ErrorIs(t, err, errors.ErrUnsupported, "Linux 6.2")
		}
	}
	if runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" {
		all["init"] = box(t, caisson.Init{})
	}
	return all
}

func TestExec(t *testing.T) {
	for name, s := range sandboxes(t) {
		t.Run(name, func(t *testing.T) {
			testExec(t, s)
		})
	}
}

func testExec(t *testing.T, s caisson.Sandbox) {
	t.Helper()
	first := s.Command("sh", "-c", "echo of the sandbox > /tmp/mark; "+view()+"; echo end; exec cat >/dev/null")
	in, err := first.StdinPipe()
	require.NoError(t, err)
	out, err := first.StdoutPipe()
	require.NoError(t, err)
	first.Stderr = os.Stderr
	require.NoError(t, first.Start())
	defer first.Wait()
	defer in.Close()
	var want strings.Builder
	for want.Len() == 0 || !strings.HasSuffix(want.String(), "\nend\n") {
		b := make([]byte, 4096)
		n, err := out.Read(b)
		require.NoError(t, err, want.String())
		want.Write(b[:n])
	}
	for range 2 {
		further := first.Process.Exec("sh", "-c", view()+"; echo end")
		further.Stderr = os.Stderr
		got, err := further.Output()
		require.NoError(t, err)
		require.Equal(t, want.String(), string(got))
		require.Contains(t, string(got), "of the sandbox\n")
		require.Contains(t, string(got), "CapInh: 0000000000000000\n")
	}
	var host strings.Builder
	for _, ns := range []string{"mnt", "pid", "ipc", "uts"} {
		link, err := os.Readlink("/proc/self/ns/" + ns)
		require.NoError(t, err)
		host.WriteString(link)
		require.NotContains(t, want.String(), link)
	}
}

// TestExecProcess: a further command is a process of ours, and has a Process like the first.
func TestExecProcess(t *testing.T) {
	first, in := waiting(t, box(t))
	further := first.Process.Exec("cat")
	input, err := further.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, further.Start())
	out, err := further.Process.Exec("sh", "-c", "exit 5").Output()
	require.Empty(t, out)
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 5, exit.ExitCode())
	require.NoError(t, further.Process.Signal(syscall.SIGTERM))
	require.Error(t, further.Wait(), "it is not PID 1, so the signal ends it")
	require.Equal(t, syscall.SIGTERM, further.Result().Signal)
	input.Close()
	require.NoError(t, in.Close())
	require.NoError(t, first.Wait(), "the sandbox runs on meanwhile")
}

// TestExecEndsWithTheSandbox: the kernel ends what is in the pid namespace.
func TestExecEndsWithTheSandbox(t *testing.T) {
	first, in := waiting(t, box(t))
	further := first.Process.Exec("sleep", "3600")
	require.NoError(t, further.Start())
	require.NoError(t, in.Close())
	require.NoError(t, first.Wait())
	require.Error(t, further.Wait())
	require.Equal(t, syscall.SIGKILL, further.Result().Signal)
	require.Equal(t, plan.Signaled, further.Result().Reason, "not by us")
}

func TestExecTooLate(t *testing.T) {
	for name, s := range map[string]caisson.Sandbox{"namespaces": box(t), "nothing": caisson.New()} {
		t.Run(name, func(t *testing.T) {
			c, in := waiting(t, s)
			require.NoError(t, c.Process.Exec("/bin/true").Run())
			require.NoError(t, in.Close())
			// It has ended, and nobody has waited for it.
			require.NoError(t, unix.Waitid(unix.P_PID, c.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
			err := c.Process.Exec("/bin/true").Run()
			require.Error(t, err)
			if name == "nothing" {
				require.ErrorIs(t, err, os.ErrProcessDone)
			} else {
				require.ErrorContains(t, err, "the sandbox has ended")
			}
			require.NoError(t, c.Wait())
			err = c.Process.Exec("/bin/true").Run()
			require.ErrorIs(t, err, os.ErrProcessDone)
			var e *caisson.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, 1, e.Step)
		})
	}
}

func TestExecContext(t *testing.T) {
	c, in := waiting(t, box(t))
	ctx, cancel := context.WithCancel(context.Background())
	further := c.Process.ExecContext(ctx, "sleep", "3600")
	require.NoError(t, further.Start())
	cancel()
	require.Error(t, further.Wait())
	require.Equal(t, plan.Canceled, further.Result().Reason)
	require.ErrorIs(t, c.Process.ExecContext(ctx, "/bin/true").Run(), context.Canceled)
	require.NoError(t, in.Close())
	require.NoError(t, c.Wait())
}

// TestExecFails: a command that is not there leaves the sandbox as it is.
func TestExecFails(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin") // all of it can be searched by anyone
	c, in := waiting(t, box(t))
	require.ErrorIs(t, c.Process.Exec("caisson-test-no-such-program").Run(), exec.ErrNotFound)
	require.Error(t, c.Process.Exec("/caisson/none").Run())
	require.ErrorIs(t, c.Process.Exec("/bin/true", "\x00").Run(), syscall.EINVAL)
	require.NoError(t, c.Process.Exec("/bin/true").Run())
	require.NoError(t, in.Close())
	require.NoError(t, c.Wait())
}

func TestExecAsNobody(t *testing.T) {
	if !asNobody(t) {
		return
	}
	needUserNamespace(t)
	testExec(t, caisson.New(isolated()...))
}

// TestObserve: a part may look at what is about to be undone, and knows better than we why the command ended.
func TestObserve(t *testing.T) {
	var calls []string
	s := caisson.New(plan.Func(func(p *plan.Plan) error {
		p.Before(plan.Action{Name: "do", Do: func(*plan.Run) error { return nil }, Undo: func(*plan.Run) error {
			calls = append(calls, "undo")
			return nil
		}})
		p.Observe(func(_ *plan.Run, r *plan.Result) {
			calls = append(calls, "observe "+r.String())
			r.Detail = "seen"
		})
		return nil
	}))
	c := s.Command("sh", "-c", "exit 3")
	require.Error(t, c.Run())
	require.Equal(t, []string{"observe exited with 3", "undo"}, calls)
	require.Equal(t, "exited with 3: seen", c.Result().String())
}
