package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

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
