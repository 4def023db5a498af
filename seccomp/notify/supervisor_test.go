package notify_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

func init() {
	targets["getppid"] = func([]string) error {
		r, _, e := unix.Syscall(unix.SYS_GETPPID, 0, 0, 0) // the runtime sends signals to a thread that is in a RawSyscall
		fmt.Println(int(r), int(e))
		return nil
	}
	targets["threads"] = threads
	targets["wait"] = func([]string) error {
		time.Sleep(time.Minute)
		return nil
	}
}

// threads makes the call in so many threads at a time.
func threads(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { unix.Syscall(unix.SYS_GETPPID, 0, 0, 0) })
	}
	wg.Wait()
	return nil
}

// always gives the same answer.
func always(r notify.Response) notify.Handler {
	return func(context.Context, *notify.Request) notify.Response { return r }
}

var onGetppid = when(asks, unix.SYS_GETPPID)

func TestAnswers(t *testing.T) {
	unchanged(t)
	for want, a := range map[string]notify.Response{
		"-1 38":                          {},
		"-1 1":                           notify.Errno(syscall.EPERM),
		"77 0":                           notify.Return(77),
		"0 0":                            notify.Return(0),
		strconv.Itoa(os.Getpid()) + " 0": notify.Continue(),
		"-1 17":                          notify.Result(-1, fmt.Errorf("x: %w", syscall.EEXIST)),
		"-1 9":                           notify.Descriptor(nil, false),
	} {
		var seen notify.Request
		out, _ := run(t, notify.Filter{Program: onGetppid, Handler: func(_ context.Context, r *notify.Request) notify.Response {
			seen = *r
			return a
		}}, "getppid")
		require.Equal(t, want+"\n", out, "%v", a)
		require.Equal(t, seccomp.Native(), seen.Arch)
		require.Equal(t, "getppid", seen.Name())
		require.NotZero(t, seen.PID)
		require.NotZero(t, seen.IP)
		require.ErrorIs(t, seen.Valid(), notify.ErrGone)
		require.Contains(t, seen.String(), seccomp.Native().String()+" getppid(0x")
	}
}

func TestResponseText(t *testing.T) {
	for want, r := range map[string]notify.Response{"ENOSYS": {}, "EPERM": notify.Errno(1), "return -3": notify.Return(-3), "continue": notify.Continue(),
		"kill": notify.Kill(), "descriptor": notify.Descriptor(nil, false), "errno 4000": notify.Errno(4000), "return 5": notify.Result(5, nil)} {
		require.Equal(t, want, r.String())
	}
	for _, r := range []notify.Response{notify.Errno(0), notify.Errno(4096)} {
		require.Equal(t, "ENOSYS", r.String())
	}
	require.Equal(t, "EPERM", notify.Result(0, errors.New("no errno")).String())
}

// TestGoexit: a handler that does not return refuses the call, and the supervisor goes on.
func TestGoexit(t *testing.T) {
	unchanged(t)
	s := supervisor(t, notify.Handlers{})
	for range 3 {
		out, _ := run(t, notify.Filter{Program: onGetppid, Supervisor: s, Handler: func(context.Context, *notify.Request) notify.Response {
			runtime.Goexit()
			return notify.Return(1)
		}}, "getppid")
		require.Equal(t, "-1 38\n", out)
	}
	out, _ := run(t, notify.Filter{Program: onGetppid, Supervisor: s, Handler: always(notify.Return(5))}, "getppid")
	require.Equal(t, "5 0\n", out)
}

// begun is a target that runs.
func begun(t *testing.T, f plan.Primitive, args ...string) *launch.Process {
	t.Helper()
	cmd, output := command(t, args...)
	p, err := launch.Start(context.Background(), plan.Build(f), cmd, launch.Options{})
	require.NoError(t, err)
	t.Cleanup(func() {
		unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0)
		var ws unix.WaitStatus
		unix.Wait4(p.PID, &ws, 0, nil)
		p.Release()
		output()
	})
	return p
}

// TestBounds: no listener has more handlers at a time than its share, and those of others are not held up by it.
func TestBounds(t *testing.T) {
	unchanged(t)
	s := supervisor(t, notify.Handlers{Each: 3})
	var now, most atomic.Int32
	open := make(chan struct{})
	begun(t, notify.Filter{Program: onGetppid, Supervisor: s, Handler: func(context.Context, *notify.Request) notify.Response {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-open
		now.Add(-1)
		return notify.Continue()
	}}, "threads", "12")
	require.Eventually(t, func() bool { return now.Load() == 3 }, 5*time.Second, time.Millisecond)
	for range 5 {
		begin := time.Now()
		out, _ := run(t, notify.Filter{Program: onGetppid, Supervisor: s, Handler: always(notify.Return(5))}, "getppid")
		require.Equal(t, "5 0\n", out)
		require.Less(t, time.Since(begin), 2*time.Second)
	}
	require.EqualValues(t, 3, most.Load())
	close(open)
	require.Eventually(t, func() bool { return now.Load() == 0 }, 5*time.Second, time.Millisecond)
	require.EqualValues(t, 3, most.Load())
}

// TestAllBound: the bound of all holds, too, and who waits behind it is answered later.
func TestAllBound(t *testing.T) {
	unchanged(t)
	s := supervisor(t, notify.Handlers{All: 2})
	var now, most atomic.Int32
	h := func(context.Context, *notify.Request) notify.Response {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
		return notify.Return(5)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { run(t, notify.Filter{Program: onGetppid, Supervisor: s, Handler: h}, "threads", "8") })
	}
	wg.Wait()
	require.EqualValues(t, 2, most.Load())
}

// TestDeath: when the target is killed, the handler's context ends, and nothing of it is given any more.
func TestDeath(t *testing.T) {
	unchanged(t)
	asked, ended := make(chan *notify.Request), make(chan error, 4)
	p := begun(t, notify.Filter{Program: onGetppid, Handler: func(ctx context.Context, r *notify.Request) notify.Response {
		asked <- r
		<-ctx.Done()
		_, e1 := r.File(0)
		_, e2 := r.Path(notify.Working, r.IP)
		_, e3 := r.Give(os.Stdin, false)
		ended <- ctx.Err()
		ended <- r.Read(make([]byte, 8), r.IP)
		ended <- errors.Join(e1, nil)
		ended <- errors.Join(e2, e3)
		return notify.Return(1)
	}}, "getppid")
	r := <-asked
	require.NoError(t, r.Valid())
	require.NoError(t, unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0))
	require.ErrorIs(t, <-ended, context.Canceled)
	for range 3 {
		require.ErrorIs(t, <-ended, notify.ErrGone)
	}
}

// TestContextWithoutWaiting: who only asks now and then learns it as well.
func TestContextWithoutWaiting(t *testing.T) {
	unchanged(t)
	asked, ended := make(chan error, 1), make(chan error, 1)
	p := begun(t, notify.Filter{Program: onGetppid, Handler: func(ctx context.Context, r *notify.Request) notify.Response {
		asked <- ctx.Err()
		for ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		derived, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		<-derived.Done()
		ended <- derived.Err()
		return notify.Return(1)
	}}, "getppid")
	require.NoError(t, <-asked)
	require.NoError(t, unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0))
	require.ErrorIs(t, <-ended, context.Canceled)
}

// TestClose: what waits fails with ENOSYS, and so does what comes later.
func TestClose(t *testing.T) {
	unchanged(t)
	s, err := notify.NewSupervisor(notify.Handlers{})
	require.NoError(t, err)
	asked := make(chan struct{})
	over := make(chan string)
	go func() {
		out, _ := run(t, notify.Filter{Program: onGetppid, Supervisor: s, Handler: func(ctx context.Context, r *notify.Request) notify.Response {
			close(asked)
			<-ctx.Done()
			return notify.Return(1)
		}}, "getppid")
		over <- out
	}()
	<-asked
	require.NoError(t, s.Close())
	require.Equal(t, "-1 38\n", <-over)
	require.ErrorIs(t, s.Close(), os.ErrClosed)
	_, _, err = start(t, launch.Options{}, []plan.Primitive{notify.Filter{Program: onGetppid, Supervisor: s, Handler: always(notify.Return(1))}}, "getppid")
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestServeRefuses(t *testing.T) {
	unchanged(t)
	s := supervisor(t, notify.Handlers{})
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	_, err = s.Serve(r, always(notify.Continue()))
	require.ErrorIs(t, err, syscall.ENOTTY)
	require.ErrorContains(t, err, "not a listener")
	require.ErrorIs(t, r.Close(), os.ErrClosed, "it was not closed")
	null, err := os.Open("/dev/null")
	require.NoError(t, err)
	_, err = s.Serve(null, nil)
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = notify.NewSupervisor(notify.Handlers{Each: -1})
	require.ErrorIs(t, err, syscall.EINVAL)
}

// TestListenerEnds: its end is known when the last process with the filter has ended, not before.
func TestListenerEnds(t *testing.T) {
	unchanged(t)
	s := supervisor(t, notify.Handlers{})
	var l *notify.Listener
	p := begun(t, plan.Func(func(p *plan.Plan) error {
		p.NoNewPrivs()
		p.Take(install(onGetppid), func(_ *plan.Run, f *os.File) (err error) {
			l, err = s.Serve(f, always(notify.Return(3)))
			return err
		})
		return nil
	}), "wait")
	select {
	case <-l.Done():
		t.Error("closed while the target runs")
	case <-time.After(20 * time.Millisecond):
	}
	unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0)
	unix.Waitid(unix.P_PIDFD, int(p.PIDFD.Fd()), nil, unix.WEXITED, nil)
	select {
	case <-l.Done():
	case <-time.After(5 * time.Second):
		t.Error("open although the target has ended")
	}
	require.NoError(t, l.Close())
}

// install is the call that makes a listener, as somebody else's primitive would have it.
func install(p notify.Raw) plan.Op {
	b := make([]byte, unsafe.Sizeof(unix.SockFprog{}))
	binary.NativeEndian.PutUint16(b, uint16(len(p)))
	code := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&p[0])), 8*len(p))...)
	return plan.Call("seccomp", unix.SYS_SECCOMP, plan.Int(unix.SECCOMP_SET_MODE_FILTER), plan.Int(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER),
		plan.Struct("{}", b, plan.Field{Offset: int(unsafe.Offsetof(unix.SockFprog{}.Filter)), Arg: plan.Bytes("", code)}))
}

// TestInterrupt: a signal interrupts a call that is being answered only where that was asked for.
func TestInterrupt(t *testing.T) {
	for _, interruptible := range []bool{false, true} {
		asked, ended := make(chan *notify.Request, 2), make(chan struct{}, 2)
		f := notify.Filter{Program: onGetppid, Interruptible: interruptible, Handler: func(ctx context.Context, r *notify.Request) notify.Response {
			asked <- r
			select {
			case <-ctx.Done():
				ended <- struct{}{}
			case <-time.After(100 * time.Millisecond):
			}
			return notify.Return(9)
		}}
		go func() {
			r := <-asked
			unix.Kill(r.PID, unix.SIGURG)
		}()
		out, _ := run(t, f, "getppid")
		require.Equal(t, "9 0\n", out)
		require.Equal(t, interruptible, len(ended) > 0 || len(asked) > 0)
	}
}

// TestManyListeners: one supervisor, no thread and no goroutine for a sandbox that is idle.
func TestManyListeners(t *testing.T) {
	unchanged(t)
	n := 40
	if os.Getenv("CAISSON_SLOW") != "" {
		n = 100
	}
	s := supervisor(t, notify.Handlers{})
	var asked atomic.Int32
	f := notify.Filter{Program: onGetppid, Supervisor: s, Handler: func(context.Context, *notify.Request) notify.Response {
		asked.Add(1)
		return notify.Return(2)
	}}
	self, err := os.Executable()
	require.NoError(t, err)
	var all []*launch.Process
	in, hold, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	before := runtime.NumGoroutine()
	for range n {
		cmd := &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", "read x; :"}, Files: []*os.File{in, nil, nil}, Env: []string{self}}
		p, err := launch.Start(context.Background(), plan.Build(f), cmd, launch.Options{})
		require.NoError(t, err)
		all = append(all, p)
	}
	require.Eventually(t, func() bool { return int(asked.Load()) >= n }, 10*time.Second, 5*time.Millisecond, "the shell asks for its parent")
	for i := 0; runtime.NumGoroutine() > before && i < 200; i++ {
		time.Sleep(5 * time.Millisecond)
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before)
	require.Equal(t, n, strings.Count(strings.Join(descriptors(t), "\n"), "seccomp notify"))
	hold.Close()
	for _, p := range all {
		var ws unix.WaitStatus
		unix.Wait4(p.PID, &ws, 0, nil)
		p.Release()
	}
	require.Eventually(t, func() bool { return !strings.Contains(strings.Join(descriptors(t), "\n"), "seccomp notify") }, 5*time.Second, 5*time.Millisecond)
}
