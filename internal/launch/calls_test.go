package launch

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// TestCalls: a step of several calls is made anew for each start, and fails as a step; one of none can be made to fail, too.
func TestCalls(t *testing.T) {
	dir := t.TempDir()
	next := []string{dir, "/", "/no/such"}
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Directory, plan.Calls("go where it says", func(*plan.Run) (ops []plan.Op, err error) {
			if len(next) == 0 {
				return nil, nil
			}
			ops = append(ops, plan.Call("chdir", unix.SYS_CHDIR, plan.Str("/")), plan.Call("chdir", unix.SYS_CHDIR, plan.Str(next[0])))
			next = next[1:]
			return ops, nil
		}))
		return nil
	}))
	begin := func(opt Options) error {
		proc, err := Start(context.Background(), p, &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}, opt)
		if err != nil {
			return err
		}
		var ws unix.WaitStatus
		_, err = unix.Wait4(proc.PID, &ws, 0, nil)
		require.NoError(t, err)
		return proc.Release()
	}
	require.NoError(t, begin(Options{}))
	require.NoError(t, begin(Options{NoVfork: true}))
	err := begin(Options{})
	require.ErrorIs(t, err, syscall.ENOENT)
	require.ErrorContains(t, err, "go where it says")
	require.NoError(t, begin(Options{}))
	fault := 0
	for i, s := range p.Steps(nil) {
		if s.Kind == plan.StepCall && s.Op.Expands() {
			fault = i + 1
		}
	}
	require.ErrorIs(t, begin(Options{Fault: fault}), syscall.EBADF)
}
