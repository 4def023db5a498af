package launch

import (
	"context"
	"errors"
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// TestAfter: in each way to start, the parent sees the executed command, and what the child has read for it.
func TestAfter(t *testing.T) {
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			var exe, answer string
			p := plan.Build(part(func(p *plan.Plan) {
				a, f := p.Answer(64), p.Slot()
				p.Child(plan.Labels, plan.Call("open", unix.SYS_OPENAT, plan.Int(0), plan.Str("/proc/sys/kernel/ostype"), plan.Int(unix.O_RDONLY|unix.O_CLOEXEC)).Save(f),
					plan.Call("read", unix.SYS_READ, plan.Saved(f), plan.Into(a), plan.Int(63)))
				p.After(plan.Action{Name: "look", Do: func(r *plan.Run) (err error) {
					exe, err = os.Readlink("/proc/" + strconv.Itoa(r.PID) + "/exe")
					answer = unix.ByteSliceToString(r.Answer(a))
					return err
				}})
			}))
			cmd := &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "100"}, Files: []*os.File{nil, nil, nil}}
			proc, err := Start(context.Background(), p, cmd, opt)
			require.NoError(t, err)
			require.NoError(t, unix.Kill(proc.PID, unix.SIGKILL))
			_, err = unix.Wait4(proc.PID, nil, 0, nil)
			require.NoError(t, err)
			require.NoError(t, proc.Release())
			own, err := os.ReadFile("/proc/sys/kernel/ostype")
			require.NoError(t, err)
			require.Equal(t, string(own), answer)
			require.NotEqual(t, "/proc/self/exe", exe)
			self, err := os.Executable()
			require.NoError(t, err)
			require.NotEqual(t, self, exe)
		})
	}
}

// TestAfterRefuses: the command is killed and waited for, all is undone, and the error names the step.
func TestAfterRefuses(t *testing.T) {
	unchanged(t)
	wrong := errors.New("wrong label")
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			pid, undone := 0, 0
			p := plan.Build(part(func(p *plan.Plan) {
				p.Before(plan.Action{Name: "begin", Do: func(*plan.Run) error { return nil }, Undo: func(*plan.Run) error { undone++; return nil }})
				p.After(plan.Action{Name: "first", Do: func(r *plan.Run) error { pid = r.PID; return nil }, Undo: func(*plan.Run) error { undone++; return nil }})
				p.After(plan.Action{Name: "second", Do: func(*plan.Run) error { return wrong }})
			}))
			cmd := &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "100"}, Files: []*os.File{nil, nil, nil}}
			_, err := Start(context.Background(), p, cmd, opt)
			require.ErrorIs(t, err, wrong)
			var e *plan.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, []any{"second", e.Steps}, []any{e.Call, e.Step})
			require.Equal(t, len(p.Steps(cmd))+2, e.Steps)
			require.Equal(t, 2, undone)
			require.NotZero(t, pid)
			require.Equal(t, syscall.ESRCH, unix.Kill(pid, 0), "the command lives")
			opt.Fault = len(p.Steps(cmd)) + 1
			_, err = Start(context.Background(), p, cmd, opt)
			require.ErrorIs(t, err, errInjected)
		})
	}
}
