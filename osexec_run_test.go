package caisson_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func misuse() []behavior {
	return []behavior{
		{"not started", func(t *testing.T, w world, n *notes) { n.err("wait", w.command("true").Wait()) }},
		{"started twice", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			n.err("start", c.Start())
			n.err("start", c.Start())
			n.err("run", c.Run())
			_, err := c.Output()
			n.err("output", err)
			n.err("wait", c.Wait())
			n.err("start", c.Start())
		}},
		{"waited twice", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "exit 3")
			n.err("run", c.Run())
			n.err("wait", c.Wait())
		}},
		{"Cancel without a context", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			*c.Cancel = func() error { return nil }
			n.err("start", c.Start())
		}},
		{"a nil context", func(t *testing.T, w world, n *notes) {
			var ctx context.Context
			defer func() { n.add("panic", recover()) }()
			w.commandContext(ctx, "true")
		}},
		{"many at once", func(t *testing.T, w world, n *notes) {
			var wg sync.WaitGroup
			outs := make([]string, 30)
			for i := range outs {
				wg.Go(func() {
					out, err := w.command("echo", strconv.Itoa(i)).Output()
					outs[i] = fmt.Sprint(strings.TrimSpace(string(out)), err)
				})
			}
			wg.Wait()
			n.add("outs", outs)
		}},
		{"started and waited for in different goroutines and threads", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "read x; exit 8")
			in, err := c.StdinPipe()
			n.err("pipe", err)
			n.err("start", startOnThread(c.Start))
			done := make(chan error)
			go func() { done <- c.Wait() }()
			n.err("close", in.Close())
			n.err("wait", <-done)
		}},
	}
}

// startOnThread calls start on a thread of its own, which has ended when it returns.
func startOnThread(start func() error) (err error) {
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()              // and never unlocked: the runtime ends the thread
		if unix.Gettid() == unix.Getpid() { // but not the first thread
			err = startOnThread(start)
			runtime.UnlockOSThread()
			tid <- 0
			return
		}
		err = start()
		tid <- unix.Gettid()
	}()
	name := "/proc/self/task/" + strconv.Itoa(<-tid)
	for {
		if _, e := os.Stat(name); e != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

func ends() []behavior {
	return []behavior{
		{"exit codes", func(t *testing.T, w world, n *notes) {
			for _, code := range []int{0, 1, 2, 125, 126, 127, 128, 137, 255} {
				c := w.command("sh", "-c", "exit "+strconv.Itoa(code))
				n.err("run", c.Run())
				noteState(t, n, c)
				n.add("code", c.state().ExitCode())
			}
		}},
		{"ended by a signal", func(t *testing.T, w world, n *notes) {
			for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGHUP, syscall.SIGUSR1, 40} {
				if w.pid1 && sig != syscall.SIGKILL {
					n.add("signal", sig) // pid_namespaces(7): it would not arrive
					continue
				}
				n.add("signal", endedBy(t, w, func(c *cmd) error { return c.process().Signal(sig) }))
			}
		}},
		{"killed", func(t *testing.T, w world, n *notes) {
			n.add("signal", endedBy(t, w, func(c *cmd) error { return c.process().Kill() }))
		}},
		{"a signal that is handled", func(t *testing.T, w world, n *notes) {
			c := w.command(self(), "9")
			*c.Env = helperEnviron("terminate")
			out, err := c.StdoutPipe()
			n.err("pipe", err)
			n.err("start", c.Start())
			n.add("line", firstLine(t, out))
			n.err("signal", c.process().Signal(syscall.SIGTERM))
			n.err("wait", c.Wait())
		}},
		{"signals afterwards", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			n.err("start", c.Start())
			n.err("wait", c.Wait())
			n.err("signal", c.process().Signal(syscall.SIGTERM))
			n.err("kill", c.process().Kill())
			n.err("handle", c.process().WithHandle(func(uintptr) { t.Error("called") }))
		}},
		{"an odd signal", func(t *testing.T, w world, n *notes) {
			c := w.command("cat")
			in, err := c.StdinPipe()
			n.err("pipe", err)
			n.err("start", c.Start())
			n.err("signal 0", c.process().Signal(syscall.Signal(0)))
			n.err("signal 99", c.process().Signal(syscall.Signal(99)))
			n.err("no number", c.process().Signal(oddSignal{}))
			n.err("close", in.Close())
			n.err("wait", c.Wait())
		}},
		{"process state", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "exit 3")
			n.err("start", c.Start())
			n.add("before", c.state() == nil)
			n.err("wait", c.Wait())
			s := c.state()
			n.add("pid", s.Pid() == c.pid())
			n.add("state", fmt.Sprint(s, s.Exited(), s.Success(), s.ExitCode()))
			n.add("types", fmt.Sprintf("%T %T", s.Sys(), s.SysUsage()))
			n.add("usage", s.SysUsage().(*syscall.Rusage).Maxrss > 0)
			n.add("times", s.UserTime() >= 0 && s.SystemTime() >= 0 && s.UserTime()+s.SystemTime() < time.Minute)
		}},
		{"waited for behind its back", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "exit 3")
			n.err("start", c.Start())
			state, err := c.process().Wait()
			n.err("process", err)
			n.add("state", state)
			n.err("signal", c.process().Signal(syscall.SIGTERM))
		}},
	}
}

type oddSignal struct{}

func (oddSignal) String() string { return "odd" }
func (oddSignal) Signal()        {}

// endedBy starts a command that waits, ends it, and says by which signal it has ended.
func endedBy(t *testing.T, w world, end func(*cmd) error) syscall.Signal {
	t.Helper()
	c := w.command("sh", "-c", "ulimit -c 0; echo ready; exec cat")
	in, err := c.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	require.Equal(t, "ready", firstLine(t, out))
	require.NoError(t, end(c))
	require.Error(t, c.Wait())
	status := c.state().Sys().(syscall.WaitStatus)
	if !w.init || status.Signaled() {
		require.True(t, status.Signaled())
		require.Equal(t, -1, c.state().ExitCode())
		return status.Signal()
	}
	// What ended by the signal is not the process that we have waited for, but its child. The result knows.
	sig := c.ours.Result().Signal
	require.Equal(t, 128+int(sig), c.state().ExitCode())
	return sig
}

func noteState(t *testing.T, n *notes, c *cmd) {
	t.Helper()
	s := c.state()
	require.NotNil(t, s)
	n.add("state", fmt.Sprint(s.Exited(), s.Success(), s))
}

func contexts() []behavior {
	return []behavior{
		{"a context that has ended", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			c := w.commandContext(ctx, "true")
			n.err("start", c.Start())
			n.add("process", c.process() == nil)
			n.err("wait", c.Wait())
		}},
		{"a context that has ended, and no program", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			c := w.commandContext(ctx, "true")
			*c.Err = errTest
			n.err("start", c.Start())
		}},
		{"a deadline that has passed", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
			defer cancel()
			n.err("run", w.commandContext(ctx, "true").Run())
		}},
		{"a context that ends in time", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			n.err("run", w.commandContext(ctx, "true").Run())
			cancel()
		}},
		{"cancelled", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			canceled(t, w.commandContext(ctx, "cat"), n, cancel, nil)
		}},
		{"deadline", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
			defer cancel()
			c := w.commandContext(ctx, "cat")
			_, err := c.StdinPipe()
			n.err("pipe", err)
			if err := c.Start(); err != nil { // a slow machine
				require.ErrorIs(t, err, context.DeadlineExceeded)
				n.add("wait", "[ExitError signal: killed]")
				return
			}
			n.err("wait", c.Wait())
		}},
		{"Cancel ends it gracefully", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c := w.commandContext(ctx, "cat")
			canceled(t, c, n, cancel, func(in io.Closer) error { return in.Close() })
		}},
		{"Cancel fails", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			canceled(t, w.commandContext(ctx, "cat"), n, cancel, func(in io.Closer) error { return errors.Join(in.Close(), errTest) })
		}},
		{"Cancel says that it is over", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			canceled(t, w.commandContext(ctx, "cat"), n, cancel, func(in io.Closer) error {
				return fmt.Errorf("too late: %w", errors.Join(in.Close(), os.ErrProcessDone))
			})
		}},
		{"Cancel fails, and so does the command", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			canceled(t, w.commandContext(ctx, "sh", "-c", "cat; exit 4"), n, cancel, func(in io.Closer) error { return errors.Join(in.Close(), errTest) })
		}},
		{"no Cancel", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			c := w.commandContext(ctx, "cat")
			*c.Cancel = nil
			in, err := c.StdinPipe()
			n.err("pipe", err)
			n.err("start", c.Start())
			cancel()
			n.err("alive", c.process().Signal(syscall.Signal(0)))
			n.err("close", in.Close())
			n.err("wait", c.Wait())
		}},
	}
}

// canceled cancels a command that waits for the end of its input, with a Cancel of its own or the default one.
func canceled(t *testing.T, c *cmd, n *notes, cancel func(), f func(in io.Closer) error) {
	t.Helper()
	in, err := c.StdinPipe()
	n.err("pipe", err)
	calls := 0
	if f != nil {
		*c.Cancel = func() error {
			calls++
			return f(in)
		}
	}
	n.err("start", c.Start())
	cancel()
	n.err("wait", c.Wait())
	n.add("calls of Cancel", calls)
}

// delays: WaitDelay is short where it shall pass, and longer than any test where it shall not.
func delays() []behavior {
	const short, long = 20 * time.Millisecond, time.Hour
	return []behavior{
		{"WaitDelay that is not needed", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			for _, c := range []*cmd{w.command("echo", "text"), w.commandContext(ctx, "echo", "text")} {
				*c.WaitDelay = long
				out, err := c.Output()
				n.err("run", err)
				n.add("out", string(out))
			}
		}},
		{"a pipe that stays open", func(t *testing.T, w world, n *notes) {
			var out bytes.Buffer
			c := w.command("sh", "-c", "sleep 3600 & echo $!")
			*c.WaitDelay, *c.Stdout = short, &out
			err := c.Run()
			if w.pidns { // whoever holds the pipe has ended with the sandbox
				require.NoError(t, err)
				n.add("run", "[ErrWaitDelay]")
				return
			}
			n.err("run", err)
			killPrinted(t, out.String())
		}},
		{"a pipe that stays open after a failure", func(t *testing.T, w world, n *notes) {
			var out bytes.Buffer
			c := w.command("sh", "-c", "sleep 3600 & echo $!; exit 3")
			*c.WaitDelay, *c.Stdout = short, &out
			n.err("run", c.Run())
			if !w.pidns {
				killPrinted(t, out.String())
			}
		}},
		{"WaitDelay after the context", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c := w.commandContext(ctx, "cat")
			*c.WaitDelay = short
			canceled(t, c, n, cancel, func(io.Closer) error { return nil })
		}},
		{"WaitDelay after a Cancel that fails", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c := w.commandContext(ctx, "cat")
			*c.WaitDelay = short
			canceled(t, c, n, cancel, func(io.Closer) error { return errTest })
		}},
		{"WaitDelay and no Cancel", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			c := w.commandContext(ctx, "cat")
			*c.WaitDelay, *c.Cancel = short, nil
			_, err := c.StdinPipe()
			n.err("pipe", err)
			n.err("start", c.Start())
			cancel()
			n.err("wait", c.Wait())
		}},
		{"WaitDelay, a context and a pipe that stays open", func(t *testing.T, w world, n *notes) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r, out, err := os.Pipe()
			require.NoError(t, err)
			defer r.Close()
			c := w.commandContext(ctx, "sh", "-c", "sleep 3600 & echo $! >&3; wait")
			*c.WaitDelay, *c.Stdout, *c.ExtraFiles = short, new(bytes.Buffer), []*os.File{out}
			n.err("start", c.Start())
			out.Close()
			pid := firstLine(t, r)
			cancel()
			n.err("wait", c.Wait())
			if !w.pidns {
				killPrinted(t, pid)
			}
		}},
	}
}

func killPrinted(t *testing.T, out string) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

// statusOf is a script that prints fields of the shell's own /proc/self/status, with nothing but the shell.
func statusOf(fields ...string) string {
	return "while read -r k v; do case $k in " + strings.Join(fields, ":|") + `:) echo "$k $v";; esac; done < /proc/self/status`
}

// inherited is what a command gets from its caller without having asked for it.
func inherited() []behavior {
	return []behavior{
		{"signals", func(t *testing.T, w world, n *notes) {
			signal.Ignore(syscall.SIGUSR1, syscall.SIGQUIT)
			caught := make(chan os.Signal, 1)
			signal.Notify(caught, syscall.SIGUSR2)
			defer func() { // Reset alone leaves ignored what was ignored
				signal.Notify(caught, syscall.SIGUSR1, syscall.SIGQUIT)
				signal.Reset(syscall.SIGUSR1, syscall.SIGQUIT, syscall.SIGUSR2)
			}()
			out, err := w.command("sh", "-c", statusOf("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")).Output()
			n.err("run", err)
			n.add("signals", string(out))
			require.Contains(t, string(out), "SigBlk:")
		}},
		{"group and session", func(t *testing.T, w world, n *notes) {
			c := w.command("cat")
			in, err := c.StdinPipe()
			n.err("pipe", err)
			n.err("start", c.Start())
			group, err := unix.Getpgid(c.pid())
			n.err("group", err)
			n.add("our group", group == unix.Getpgrp())
			session, err := unix.Getsid(c.pid())
			n.err("session", err)
			own, err := unix.Getsid(0)
			n.err("session", err)
			n.add("our session", session == own)
			parent, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid()))
			n.err("stat", err)
			_, rest, _ := strings.Cut(string(parent), ") ")
			n.add("our child", strings.Fields(rest)[1] == strconv.Itoa(os.Getpid()))
			n.err("close", in.Close())
			n.err("wait", c.Wait())
		}},
		{"user, groups, limits, umask, priority", func(t *testing.T, w world, n *notes) {
			old := unix.Umask(0o27)
			defer unix.Umask(old)
			c := w.command("sh", "-c", statusOf("Uid", "Gid", "Groups", "NoNewPrivs", "Cpus_allowed", "Umask")+"; umask; nice; ulimit -a")
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
			require.Contains(t, string(out), "Uid:")
		}},
		{"nothing of Cmd is changed by a start", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", ":")
			args, env := *c.Args, *c.Env
			n.err("run", c.Run())
			n.add("args", reflect.DeepEqual(args, *c.Args))
			n.add("env", reflect.DeepEqual(env, *c.Env))
			n.add("rest", fmt.Sprint(*c.Dir == "", *c.Stdin == nil, *c.Stdout == nil, *c.Stderr == nil))
		}},
	}
}
