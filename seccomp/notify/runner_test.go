package notify_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

func init() {
	targets["rows"] = func([]string) error {
		var threads, calls int
		for in := bufio.NewReader(os.Stdin); ; {
			if _, err := fmt.Fscanln(in, &threads, &calls); err != nil {
				return nil
			}
			fmt.Println(rows(threads, calls))
		}
	}
}

// rows makes the call so many times in each of the threads, one after the other, and counts which were not answered as they should.
func rows(threads, calls int) int64 {
	var wrong atomic.Int64
	var wg sync.WaitGroup
	for thread := range threads {
		wg.Go(func() {
			for call := range calls {
				if r, _, _ := unix.Syscall(unix.SYS_GETPPID, uintptr(thread), uintptr(call), 0); r != uintptr(thread+call) {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return wrong.Load()
}

// caller is a target whose calls come in rows.
type caller struct {
	started
	in  *os.File
	out *bufio.Reader
	end func() // waits for its end, once
}

func newCaller(t testing.TB, s *notify.Supervisor, h notify.Handler) *caller {
	t.Helper()
	in, w, e1 := os.Pipe()
	r, out, e2 := os.Pipe()
	require.NoError(t, e1)
	require.NoError(t, e2)
	self := must(os.Executable())
	cmd := &plan.Command{Candidates: []string{self}, Args: []string{"target", "rows"}, Env: environ(), Files: []*os.File{in, out, out}}
	c := &caller{started: startCommand(t, cmd, notify.Filter{Program: onGetppid, Handler: h, Supervisor: s}), in: w, out: bufio.NewReader(r)}
	in.Close()
	out.Close()
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	c.end = sync.OnceFunc(func() {
		w.Close()
		ended(t, c.started)
		r.Close()
	})
	t.Cleanup(c.end)
	return c
}

// row has it make calls, and gives how many went wrong.
func (c *caller) row(t testing.TB, threads, calls int) int {
	t.Helper()
	wrong, err := c.try(threads, calls)
	require.NoError(t, err)
	return wrong
}

func (c *caller) try(threads, calls int) (wrong int, err error) {
	fmt.Fprintln(c.in, threads, calls)
	_, err = fmt.Fscanln(c.out, &wrong)
	return wrong, err
}

func sum(_ context.Context, r *notify.Request) notify.Response {
	return notify.Return(int64(r.Args[0] + r.Args[1]))
}

// copies counts the descriptors of listeners: a runner has one more.
func copies(t testing.TB) int {
	return strings.Count(strings.Join(descriptors(t), "\n"), "seccomp notify")
}

// twoProcessors are what a runner needs.
func twoProcessors(t *testing.T) {
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(max(n, 2))
	t.Cleanup(func() { runtime.GOMAXPROCS(n) })
}

// TestRunner: calls that follow each other get a runner, which goes when they stop; all are answered.
func TestRunner(t *testing.T) {
	twoProcessors(t)
	unchanged(t)
	var most atomic.Int32
	c := newCaller(t, nil, func(ctx context.Context, r *notify.Request) notify.Response {
		if r.Args[1]%100 == 99 {
			most.Store(max(most.Load(), int32(copies(t))))
		}
		return sum(ctx, r)
	})
	for range 3 {
		most.Store(0)
		for end := time.Now().Add(10 * time.Second); most.Load() < 2 && time.Now().Before(end); {
			require.Zero(t, c.row(t, 1, 500))
		}
		require.EqualValues(t, 2, most.Load())
		require.Eventually(t, func() bool { return copies(t) == 1 }, 10*time.Second, time.Millisecond)
	}
	require.Zero(t, c.row(t, 3, 300))
}

// TestRunnerClosed: nobody waits for an answer when a listener is closed, or the target killed, while the runner is in the kernel.
func TestRunnerClosed(t *testing.T) {
	twoProcessors(t)
	unchanged(t)
	for n := range 10 {
		s := supervisor(t, notify.Handlers{})
		c := newCaller(t, s, sum)
		require.Zero(t, c.row(t, 1, 100))
		if n%2 == 0 {
			require.NoError(t, s.Close())
			require.Equal(t, 5, c.row(t, 1, 5))
		} else {
			unix.PidfdSendSignal(int(c.PIDFD.Fd()), unix.SIGKILL, nil, 0)
			c.end() // before Linux 6.11 it keeps its filter until it has been waited for
		}
		require.Eventually(t, func() bool { return copies(t) == 0 }, 10*time.Second, time.Millisecond)
	}
}

// TestRunnerFromHandler: the listener is closed by the handler that the runner runs.
func TestRunnerFromHandler(t *testing.T) {
	twoProcessors(t)
	unchanged(t)
	s := supervisor(t, notify.Handlers{})
	c := newCaller(t, s, func(ctx context.Context, r *notify.Request) notify.Response {
		if r.Args[1] == 200 {
			s.Close()
			<-ctx.Done()
		}
		return sum(ctx, r)
	})
	require.Equal(t, 50, c.row(t, 1, 250))
}

// TestRunnerSlow: the calls of other threads are answered while a handler takes its time, also if there is one handler only to spare.
func TestRunnerSlow(t *testing.T) {
	twoProcessors(t)
	unchanged(t)
	for _, h := range []notify.Handlers{{}, {All: 3}, {All: 2}} {
		others := make(chan struct{})
		var count atomic.Int32
		c := newCaller(t, supervisor(t, h), func(ctx context.Context, r *notify.Request) notify.Response {
			switch {
			case r.Args[0] > 0 && count.Add(1) == 50:
				close(others)
			case r.Args[0] == 0 && r.Args[1] == 100:
				select {
				case <-others:
				case <-time.After(10 * time.Second):
					return notify.Return(-1)
				}
			}
			return sum(ctx, r)
		})
		require.Zero(t, c.row(t, 2, 200), h)
	}
}

// TestRunnerOthers: who has a runner takes nothing from others, however few handlers there are.
func TestRunnerOthers(t *testing.T) {
	twoProcessors(t)
	unchanged(t)
	for _, h := range []notify.Handlers{{}, {All: 1}, {All: 2}, {Each: 1}} {
		s := supervisor(t, h)
		busy, other := newCaller(t, s, sum), newCaller(t, s, func(ctx context.Context, r *notify.Request) notify.Response {
			time.Sleep(3 * time.Millisecond)
			return sum(ctx, r)
		})
		var stop atomic.Bool
		done := make(chan error)
		go func() {
			for !stop.Load() {
				if wrong, err := busy.try(1, 300); wrong > 0 || err != nil {
					done <- fmt.Errorf("%d wrong, %w", wrong, err)
					return
				}
			}
			done <- nil
		}()
		wrong, err := other.try(2, 5)
		stop.Store(true)
		require.NoError(t, <-done, h)
		require.NoError(t, err, h)
		require.Zero(t, wrong, h)
	}
}

// TestRunnerGoexit: a handler that does not return ends the runner, and nothing else.
func TestRunnerGoexit(t *testing.T) {
	twoProcessors(t)
	unchanged(t)
	c := newCaller(t, nil, func(ctx context.Context, r *notify.Request) notify.Response {
		if r.Args[1] == 100 {
			runtime.Goexit()
		}
		return sum(ctx, r)
	})
	require.Equal(t, 1, c.row(t, 1, 200))
	require.Zero(t, c.row(t, 1, 50))
	c.in.Close()
	_, err := c.out.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}
