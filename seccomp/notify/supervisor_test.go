package notify_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

func init() {
	targets["getppid"] = func([]string) error {
		r, _, e := unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		fmt.Println(int(r), int(e))
		return nil
	}
}

// always gives the same answer.
func always(r notify.Response) notify.Handler {
	return func(context.Context, *notify.Request) notify.Response { return r }
}

func TestAnswers(t *testing.T) {
	unchanged(t)
	for want, a := range map[string]notify.Response{
		"-1 38": {},
		"-1 1":  notify.Errno(syscall.EPERM),
		"77 0":  notify.Return(77),
		"0 0":   notify.Return(0),
	} {
		var seen notify.Request
		out, _ := run(t, notify.Filter{Program: when(asks, unix.SYS_GETPPID), Handler: func(_ context.Context, r *notify.Request) notify.Response {
			seen = *r
			return a
		}}, "getppid")
		require.Equal(t, want+"\n", out, "%v", a)
		require.Equal(t, seccomp.Native(), seen.Arch)
		require.Equal(t, "getppid", seen.Name())
		require.NotZero(t, seen.PID)
	}
}

func TestMany(t *testing.T) {
	unchanged(t)
	s := supervisor(t, notify.Handlers{})
	var n atomic.Int32
	for range 10 {
		out, _ := run(t, notify.Filter{Program: when(asks, unix.SYS_GETPPID), Supervisor: s, Handler: func(context.Context, *notify.Request) notify.Response {
			return notify.Return(int64(n.Add(1)))
		}}, "getppid")
		require.Equal(t, fmt.Sprintln(n.Load(), 0), out)
	}
	require.EqualValues(t, 10, n.Load())
}
