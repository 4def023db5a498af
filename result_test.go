package caisson_test

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/internal/initprog"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
)

func TestResult(t *testing.T) {
	for _, w := range worlds()[1:] {
		t.Run(w.name, func(t *testing.T) {
			w.need(t)
			testResult(t, w)
		})
	}
}

// ended runs the command, which runs until its input ends or something ends it, and gives the result without the usage.
func ended(t *testing.T, w world, ctx context.Context, end func(*caisson.Cmd)) plan.Result {
	t.Helper()
	c := w.commandContext(ctx, "sh", "-c", "ulimit -c 0; echo ready; exec cat").ours
	return endedCmd(t, c, end)
}

func endedCmd(t *testing.T, c *caisson.Cmd, end func(*caisson.Cmd)) plan.Result {
	t.Helper()
	in, err := c.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	require.Equal(t, plan.NotEnded, c.Result().Reason)
	require.Equal(t, "ready", firstLine(t, out))
	end(c)
	c.Wait()
	r := c.Result()
	require.Positive(t, r.Elapsed)
	require.Less(t, r.Elapsed, patience)
	r.Elapsed, r.UserTime, r.SystemTime, r.MaxRSS = 0, 0, 0, 0
	return r
}

func testResult(t *testing.T, w world) {
	ctx := context.Background()
	for _, code := range []int{0, 1, 127, 128, 137, 255} {
		c := w.command("sh", "-c", "exit "+strconv.Itoa(code)).ours
		c.Run()
		require.Equal(t, plan.Exited, c.Result().Reason)
		require.Equal(t, code, c.Result().ExitCode)
		require.Zero(t, c.Result().Signal)
		require.Equal(t, fmt.Sprint("exited with ", code), c.Result().String())
	}

	signaled := plan.Result{Reason: plan.Signaled, ExitCode: -1, Signal: syscall.SIGKILL}
	r := ended(t, w, ctx, func(c *caisson.Cmd) { require.NoError(t, c.Process.Signal(syscall.SIGKILL)) })
	require.Equal(t, signaled, r)
	if !w.pid1 {
		signaled.Signal = syscall.SIGTERM
		r = ended(t, w, ctx, func(c *caisson.Cmd) { require.NoError(t, c.Process.Signal(syscall.SIGTERM)) })
		require.Equal(t, signaled, r)
		require.Equal(t, "signaled by signal 15, terminated", r.String())
	}

	killed := plan.Result{Reason: plan.Killed, ExitCode: -1, Signal: syscall.SIGKILL}
	r = ended(t, w, ctx, func(c *caisson.Cmd) { require.NoError(t, c.Process.Kill()) })
	require.Equal(t, killed, r)

	canceled, cancel := context.WithCancel(ctx)
	killed.Reason = plan.Canceled
	require.Equal(t, killed, ended(t, w, canceled, func(*caisson.Cmd) { cancel() }))

	// A deadline that passes once the command runs, however slow the machine is.
	timedOut := &late{Context: ctx, done: make(chan struct{})}
	killed.Reason = plan.TimedOut
	require.Equal(t, killed, ended(t, w, timedOut, func(*caisson.Cmd) { close(timedOut.done) }))
	testResultOfCancel(t, w)
}

// late is a context whose deadline passes when done is closed.
type late struct {
	context.Context
	done chan struct{}
}

func (l *late) Done() <-chan struct{} { return l.done }

func (l *late) Err() error {
	select {
	case <-l.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func testResultOfCancel(t *testing.T, w world) {
	t.Helper()
	// Cancel may choose another signal.
	if !w.pid1 {
		ctx, cancel := context.WithCancel(context.Background())
		c := w.commandContext(ctx, "sh", "-c", "echo ready; exec cat").ours
		c.Cancel = func() error { return c.Process.Signal(syscall.SIGINT) }
		r := endedCmd(t, c, func(*caisson.Cmd) { cancel() })
		require.Equal(t, plan.Result{Reason: plan.Canceled, ExitCode: -1, Signal: syscall.SIGINT}, r)
	}
	// Cancel may end the command gracefully, and so nothing has ended it.
	ctx, cancel := context.WithCancel(context.Background())
	c := w.commandContext(ctx, self(), "6").ours
	c.Env = helperEnviron("terminate")
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	r := endedCmd(t, c, func(*caisson.Cmd) { cancel() })
	require.Equal(t, plan.Result{Reason: plan.Exited, ExitCode: 6}, r)
	// WaitDelay kills for the context, too.
	ctx, cancel = context.WithCancel(context.Background())
	c = w.commandContext(ctx, "sh", "-c", "echo ready; exec cat").ours
	c.Cancel, c.WaitDelay = nil, time.Millisecond
	r = endedCmd(t, c, func(*caisson.Cmd) { cancel() })
	require.Equal(t, plan.Result{Reason: plan.Canceled, ExitCode: -1, Signal: syscall.SIGKILL}, r)
}

func TestResultOfAFailedStart(t *testing.T) {
	c := caisson.New().Command("/caisson/none")
	require.Error(t, c.Run())
	require.Equal(t, plan.NotEnded, c.Result().Reason)
	require.Equal(t, "not ended", c.Result().String())
}

func TestUsage(t *testing.T) {
	for _, w := range worlds()[1:] {
		t.Run(w.name, func(t *testing.T) {
			w.need(t)
			c := w.command(self()).ours
			c.Env = helperEnviron("usage")
			require.NoError(t, c.Run())
			r := c.Result()
			require.GreaterOrEqual(t, r.UserTime, 45*time.Millisecond)
			require.GreaterOrEqual(t, r.MaxRSS, int64(64<<20))
			require.Less(t, r.MaxRSS, int64(64<<30))
			require.Less(t, r.UserTime+r.SystemTime, 20*time.Minute)
		})
	}
}

// TestFiltered: a filter that ends the command is told from somebody who sends SIGSYS, and only where there is a filter.
func TestFiltered(t *testing.T) {
	filter := seccomp.New(seccomp.Policy{Default: seccomp.Allow, Rules: []seccomp.Rule{{Names: []string{"uname"}, Action: seccomp.KillProcess}}})
	for name, part := range map[string][]plan.Primitive{"bare": nil, "below an init process": {namespaces.User | namespaces.PID, caisson.Init{}}} {
		t.Run(name, func(t *testing.T) {
			if part != nil {
				needUserNamespace(t)
				if !initprog.Supported() {
					t.Skip("no init program for this architecture")
				}
			}
			c := caisson.New(append(part, filter)...).Command("sh", "-c", "ulimit -c 0; uname -s")
			require.Error(t, c.Run())
			require.Equal(t, 128+int(syscall.SIGSYS), c.Result().ExitCode, "the shell tells of its child")
			c = caisson.New(append(part, filter)...).Command("uname")
			require.Error(t, c.Run())
			r := c.Result()
			require.Equal(t, []any{plan.Filtered, syscall.SIGSYS}, []any{r.Reason, r.Signal})
			require.Contains(t, r.String(), "killed by the system call filter")
		})
	}
	c := caisson.New().Command("sh", "-c", "ulimit -c 0; kill -SYS $$")
	require.Error(t, c.Run())
	require.Equal(t, plan.Signaled, c.Result().Reason)
}
