package notify_test

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

func init() {
	targets["thread"] = func([]string) error {
		go func() {
			runtime.LockOSThread()
			unix.Syscall(unix.SYS_GETPPID, 1, 2, 3)
			os.Stdout.WriteString("it runs on\n")
		}()
		time.Sleep(10 * time.Second)
		return nil
	}
	targets["child"] = func([]string) error {
		exe := must(os.Executable())
		p := must(os.StartProcess(exe, []string{"target", "getppid"}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stdout}}))
		state := must(p.Wait())
		os.Stdout.WriteString(state.String() + "\n")
		return nil
	}
}

func TestPlan(t *testing.T) {
	f := notify.Filter{Program: onGetppid, Handler: always(notify.Continue())}
	for _, f := range []notify.Filter{f, {Program: onGetppid, Handler: f.Handler, AllowNewPrivileges: true}, {Program: onGetppid, Handler: f.Handler, Interruptible: true},
		{Program: when(kills, 1), ReportKills: true}, {}} {
		plantest.Check(t, f)
	}
	text := plan.Build(f).String()
	require.Contains(t, text, "seccomp(SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER|SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, {4 instructions})")
	require.Contains(t, text, "PR_SET_NO_NEW_PRIVS")
	f.AllowNewPrivileges, f.Interruptible = true, true
	text = plan.Build(f).String()
	require.NotContains(t, text, "PR_SET_NO_NEW_PRIVS")
	require.NotContains(t, text, "WAIT_KILLABLE")
}

func TestInvalid(t *testing.T) {
	h := always(notify.Continue())
	for want, f := range map[string]notify.Filter{
		"there is no program":          {Handler: h},
		"an empty program":             {Program: notify.Raw{}, Handler: h},
		"4097 instructions":            {Program: make(notify.Raw, 4097), Handler: h},
		"there is no handler":          {Program: onGetppid},
		"the program notifies of noth": {Program: when(refuses, 1)},
		"no place to be killed in":     {Program: onGetppid, Handler: h, ReportKills: true, Interruptible: true},
		"computes its answers":         {Program: notify.Raw{{Code: unix.BPF_RET | unix.BPF_A}}, ReportKills: true},
	} {
		err := plan.Build(f).Err()
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	f := notify.Filter{Program: onGetppid, Handler: h}
	require.ErrorContains(t, plan.Build(f, f).Err(), "seccomp listener is given twice")
}

// TestCompiled is a filter as package seccomp compiles it.
func TestCompiled(t *testing.T) {
	program, err := seccomp.Policy{Default: seccomp.Allow, Rules: []seccomp.Rule{{Names: []string{"getppid"}, Action: seccomp.Notify}}}.Compile()
	require.NoError(t, err)
	out, _ := run(t, notify.Filter{Program: program, Handler: always(notify.Return(4))}, "getppid")
	require.Equal(t, "4 0\n", out)
}

// TestTake: the parent gets the listener whoever it is, whatever the filter denies, and by each way to start.
func TestTake(t *testing.T) {
	if asUser(t) {
		t.Log("as an ordinary user: passed")
	}
	unchanged(t)
	setuid := plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Credentials, plan.Call("setresgid", unix.SYS_SETRESGID, plan.Int(0), plan.Int(0), plan.Int(0)),
			plan.Call("setresuid", unix.SYS_SETRESUID, plan.Int(0), plan.Int(0), plan.Int(0)))
		return nil
	})
	nobody := plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Credentials, plan.Call("setresgid", unix.SYS_SETRESGID, plan.Int(65534), plan.Int(65534), plan.Int(65534)),
			plan.Call("setresuid", unix.SYS_SETRESUID, plan.Int(65534), plan.Int(65534), plan.Int(65534)))
		return nil
	})
	parts := map[string][]plan.Primitive{"plain": nil, "user namespace": {user, setuid}}
	if os.Geteuid() == 0 {
		parts["another user"] = []plan.Primitive{nobody}
	}
	f := notify.Filter{Program: onGetppid, Handler: always(notify.Return(6))}
	for name, with := range parts {
		for _, opt := range []launch.Options{{}, {NoClone3: true}, {NoVfork: true}} {
			r, w, err := os.Pipe()
			require.NoError(t, err)
			cmd := &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", "echo $PPID"}, Files: []*os.File{nil, w, w}}
			built := plan.Build(append([]plan.Primitive{f}, with...)...)
			p, err := launch.Start(context.Background(), built, cmd, opt)
			w.Close()
			require.NoError(t, err, "%s %+v", name, opt)
			require.Equal(t, "6\n", string(must(io.ReadAll(r))), "%s %+v", name, opt)
			r.Close()
			require.Zero(t, ended(t, started{p, built}))
			require.Equal(t, 1, must(unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)), "the host stays undumpable: %s %+v", name, opt)
		}
	}
	require.Equal(t, 1, must(unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)), "the host stays undumpable")
}

// TestTakeNewPrivs: without no_new_privs the filter needs CAP_SYS_ADMIN; the refusal says so.
func TestTakeNewPrivs(t *testing.T) {
	asUser(t)
	f := notify.Filter{Program: onGetppid, Handler: always(notify.Return(6)), AllowNewPrivileges: true}
	out, _, err := start(t, launch.Options{}, []plan.Primitive{f}, "getppid")
	if os.Geteuid() != 0 {
		require.ErrorIs(t, err, syscall.EACCES)
		require.ErrorContains(t, err, "needs CAP_SYS_ADMIN")
		return
	}
	require.NoError(t, err)
	require.Equal(t, "6 0\n", out)
}

// TestTakeUnderStrictFilter: the filter allows execve alone. The first call of the program's loader is the supervisor's to answer.
func TestTakeUnderStrictFilter(t *testing.T) {
	if asUser(t) {
		t.Log("as an ordinary user: passed")
	}
	unchanged(t)
	for _, others := range []uint32{kills, refuses} {
		// listed calls are allowed, brk is asked about, all others are killed or refused: also write, sendmsg and exit_group.
		p := append(notify.Raw{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_BRK},
			{Code: unix.BPF_RET | unix.BPF_K, K: asks}}, unless(others, unix.SYS_EXECVE)...)
		var asked atomic.Int32
		cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: make([]*os.File, 3)}
		proc := startCommand(t, cmd, notify.Filter{Program: p, Handler: func(context.Context, *notify.Request) notify.Response {
			asked.Add(1)
			return notify.Kill()
		}})
		status := ended(t, proc)
		require.Equal(t, unix.SIGKILL, status.Signal())
		require.EqualValues(t, 1, asked.Load())
	}
}

// TestExecveAsked: the handler decides about the launcher's execve, too.
func TestExecveAsked(t *testing.T) {
	if asUser(t) {
		t.Log("as an ordinary user: passed")
	}
	unchanged(t)
	f := notify.Filter{Program: when(asks, unix.SYS_EXECVE), Handler: func(_ context.Context, r *notify.Request) notify.Response {
		time.Sleep(20 * time.Millisecond)
		return notify.Continue()
	}}
	out, status := run(t, f, "threads", "1")
	require.Zero(t, status, out)
	f.Handler = always(notify.Errno(syscall.EACCES))
	_, _, err := start(t, launch.Options{}, []plan.Primitive{f}, "getppid")
	require.ErrorIs(t, err, syscall.EACCES)
	f.Handler = always(notify.Kill()) // nobody can tell whether it was killed before execve or after
	_, status, err = start(t, launch.Options{}, []plan.Primitive{f}, "getppid")
	require.NoError(t, err)
	require.Equal(t, unix.SIGKILL, status.Signal())
}

// TestFaults: each step that fails ends the start with an error, and nothing is left.
func TestFaults(t *testing.T) {
	unchanged(t)
	f := notify.Filter{Program: onGetppid, Handler: always(notify.Return(6))}
	steps := len(plan.Build(f, user).Steps(nil))
	for _, way := range []launch.Options{{}, {NoVfork: true}} {
		failed := 0
		for i := range steps {
			way.Fault = i + 1
			_, _, err := start(t, way, []plan.Primitive{f, user}, "getppid")
			if err != nil {
				failed++
				require.ErrorIs(t, err, syscall.EBADF)
			}
		}
		require.Greater(t, failed, 5)
	}
}

// TestTakeRefused: an error of who takes the listener ends the start.
func TestTakeRefused(t *testing.T) {
	unchanged(t)
	none := errors.New("I do not want it")
	for _, opt := range []launch.Options{{}, {NoVfork: true}} {
		_, _, err := start(t, opt, []plan.Primitive{plan.Func(func(p *plan.Plan) error {
			p.NoNewPrivs()
			p.Take(install(onGetppid), func(_ *plan.Run, f *os.File) error {
				f.Close()
				return none
			})
			return nil
		})}, "getppid")
		require.ErrorIs(t, err, none)
	}
}

// TestKilledWhileOffering: somebody kills the child while it waits for its listener to be taken.
func TestKilledWhileOffering(t *testing.T) {
	unchanged(t)
	for _, opt := range []launch.Options{{}, {NoVfork: true}} {
		_, _, err := start(t, opt, []plan.Primitive{plan.Func(func(p *plan.Plan) error {
			p.NoNewPrivs()
			p.Take(install(onGetppid), func(r *plan.Run, f *os.File) error {
				defer f.Close()
				time.Sleep(10 * time.Millisecond)
				return unix.Kill(r.PID, unix.SIGKILL)
			})
			return nil
		})}, "getppid")
		require.ErrorIs(t, err, syscall.ECANCELED)
	}
}

// TestCanceledWhileOffering: the context ends while the listener is being taken.
func TestCanceledWhileOffering(t *testing.T) {
	unchanged(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd, output := command(t, "getppid")
	_, err := launch.Start(ctx, plan.Build(plan.Func(func(p *plan.Plan) error {
		p.NoNewPrivs()
		p.Take(install(onGetppid), func(r *plan.Run, f *os.File) error {
			cancel()
			time.Sleep(20 * time.Millisecond)
			return f.Close()
		})
		return nil
	})), cmd, launch.Options{})
	require.ErrorIs(t, err, context.Canceled)
	output()
}

// TestTwoListeners: one is the most that the kernel gives a process.
func TestTwoListeners(t *testing.T) {
	unchanged(t)
	f := notify.Filter{Program: onGetppid, Handler: always(notify.Return(6))}
	_, _, err := start(t, launch.Options{}, []plan.Primitive{f, plan.Func(func(p *plan.Plan) error {
		p.Take(install(onGetppid), func(_ *plan.Run, f *os.File) error { return f.Close() })
		return nil
	})}, "getppid")
	require.ErrorIs(t, err, syscall.EBUSY)
}

func result(t *testing.T, f notify.Filter, with []plan.Primitive, args ...string) (string, caisson.Result) {
	t.Helper()
	cmd := caisson.New(append(with, f)...).CommandContext(t.Context(), must(os.Executable()))
	cmd.Args = append([]string{"target"}, args...)
	out, err := cmd.CombinedOutput()
	var e *caisson.Error
	require.False(t, errors.As(err, &e), "%v", err)
	return string(out), cmd.Result()
}

// TestReportKills: the result of the command names the call that ended it.
func TestReportKills(t *testing.T) {
	if asUser(t) {
		t.Log("as an ordinary user: passed")
	}
	unchanged(t)
	name := seccomp.Native().String() + " getppid(0x"
	for _, action := range []uint32{kills, unix.SECCOMP_RET_KILL_THREAD, 0x12340000} {
		out, r := result(t, notify.Filter{Program: when(action, unix.SYS_GETPPID), ReportKills: true}, nil, "getppid")
		require.Empty(t, out)
		require.Equal(t, plan.Filtered, r.Reason)
		require.Equal(t, unix.SIGKILL, r.Signal)
		require.Contains(t, r.Syscall, name)
		require.Equal(t, r.Syscall, r.Detail)
	}
	t.Run("thread", func(t *testing.T) {
		out, r := result(t, notify.Filter{Program: when(kills, unix.SYS_GETPPID), ReportKills: true}, nil, "thread")
		require.Empty(t, out)
		require.Equal(t, plan.Filtered, r.Reason)
		require.Contains(t, r.Syscall, "getppid(0x1, 0x2, 0x3,")
	})
	t.Run("child", func(t *testing.T) {
		out, r := result(t, notify.Filter{Program: when(kills, unix.SYS_GETPPID), ReportKills: true}, nil, "child")
		require.Equal(t, "signal: killed\n", out)
		require.Equal(t, plan.Exited, r.Reason)
		require.Empty(t, r.Syscall)
		require.Contains(t, r.Detail, "was killed for "+name)
	})
	t.Run("init", func(t *testing.T) {
		_, r := result(t, notify.Filter{Program: when(kills, unix.SYS_GETPPID), ReportKills: true}, []plan.Primitive{caisson.Init{}, user,
			plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWPID); return nil })}, "getppid")
		require.Equal(t, plan.Filtered, r.Reason, "%v", r)
		require.Contains(t, r.Syscall, name)
	})
	t.Run("and asks", func(t *testing.T) {
		p := append(notify.Raw{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_MKDIRAT},
			{Code: unix.BPF_RET | unix.BPF_K, K: kills}}, onGetppid...)
		f := notify.Filter{Program: p, ReportKills: true, Handler: always(notify.Return(8))}
		out, r := result(t, f, nil, "getppid")
		require.Equal(t, "8 0\n", out)
		require.Equal(t, plan.Exited, r.Reason)
		_, r = result(t, f, nil, "mkdirs", "/", "x")
		require.Contains(t, r.Syscall, " mkdirat(0xffffffffffffff9c, 0x")
	})
}
