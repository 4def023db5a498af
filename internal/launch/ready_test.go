//go:build linux

package launch

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/plan"
)

// TestReady: what an action of While prepares is there when the child waits, is closed when the start is over, and its error is that of
// the step.
func TestReady(t *testing.T) {
	unchanged(t)
	no := errors.New("no")
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			var f *os.File
			var order []string
			action := plan.Action{Name: "act", Ready: func(r *plan.Run) (err error) {
				order = append(order, "ready")
				require.Zero(t, r.PID)
				f, err = os.Open("/")
				r.Keep(f)
				return err
			}, Do: func(r *plan.Run) error {
				order = append(order, "do")
				require.NotZero(t, r.PID)
				_, err := f.Stat()
				return err
			}}
			require.NoError(t, run(opt, part(func(p *plan.Plan) { p.While(action) })))
			require.Equal(t, []string{"ready", "do"}, order)
			_, err := f.Stat()
			require.ErrorIs(t, err, os.ErrClosed)

			action.Ready = func(*plan.Run) error { return no }
			action.Do = func(*plan.Run) error { t.Error("called"); return nil }
			_, err = Start(context.Background(), plan.Build(part(func(p *plan.Plan) { p.While(action) })), trueCommand(), opt)
			require.ErrorIs(t, err, no)
			var e *plan.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "act", e.Call)
		})
	}
}
