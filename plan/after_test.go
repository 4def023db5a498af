package plan_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// TestAfter: the actions follow the command, and only those for Each process are there again.
func TestAfter(t *testing.T) {
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.After(plan.Action{Name: "once", Do: func(*plan.Run) error { return nil }})
		p.After(plan.Action{Name: "each", Each: true, Do: func(*plan.Run) error { return nil }})
		return nil
	}))
	require.NoError(t, p.Err())
	names := func(p *plan.Plan) (names []string) {
		for _, s := range p.AfterSteps() {
			require.Equal(t, plan.StepAfter, s.Kind)
			require.Equal(t, "plan.Func", s.Primitive)
			names = append(names, s.String())
		}
		return names
	}
	require.Equal(t, []string{"once", "each"}, names(p))
	require.Equal(t, []string{"each"}, names(p.Again()))
	require.Regexp(t, `(?s)execve\(<command>\)\n *\d+ after +once .*\n *\d+ after +each `, p.String())
}

// TestAnswers: two calls write to the same memory, a further try begins with zeros, and what another start uses is its own.
func TestAnswers(t *testing.T) {
	var a plan.Answer
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		a = p.Answer(5000)
		for range 2 {
			p.Child(plan.Labels, plan.Call("read", unix.SYS_READ, plan.Int(0), plan.Into(a), plan.Int(5000)))
		}
		return nil
	}))
	require.NoError(t, p.Err())
	r, other := p.NewRun(context.Background(), nil), p.NewRun(context.Background(), nil)
	for _, copied := range []bool{false, true, true, false} {
		var m sys.Memory
		r.Fresh(copied)
		require.Nil(t, r.Answer(a))
		var at []sys.Call
		for _, s := range p.Steps(nil) {
			if s.Kind == plan.StepCall && s.Primitive == "plan.Func" {
				at = append(at, s.Op.Lower(&m, r))
			}
		}
		require.Len(t, at, 2)
		require.Equal(t, at[0], at[1])
		require.Equal(t, make([]byte, 5000), r.Answer(a))
		r.Answer(a)[4999] = 1
		m.Free()
	}
	require.Nil(t, other.Answer(a))
	r.CloseFiles()
	require.Nil(t, r.Answer(a))
}

// TestAnswerOfAnotherPlan: it has no memory here.
func TestAnswerOfAnotherPlan(t *testing.T) {
	var foreign plan.Answer
	plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Answer(1)
		foreign = p.Answer(1)
		return nil
	}))
	require.ErrorContains(t, plan.Build(does(plan.Names, plan.Call("read", unix.SYS_READ, plan.Int(0), plan.Into(foreign), plan.Int(1)))).Err(), "of another plan")
}
