//go:build linux

package plan_test

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// several is a plan with one step of several calls.
func several(f func(p *plan.Plan) ([]plan.Op, error)) *plan.Plan {
	return plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Limits, plan.Calls("what there is to do", func(*plan.Run) ([]plan.Op, error) { return f(p) }))
		return nil
	}))
}

func expanded(p *plan.Plan) ([]plan.Op, error) {
	for _, s := range p.Steps(nil) {
		if s.Kind == plan.StepCall && s.Op.Expands() {
			return s.Expand(p.NewRun(context.Background(), nil))
		}
	}
	return nil, errors.New("no such step")
}

func TestCalls(t *testing.T) {
	p := several(func(*plan.Plan) ([]plan.Op, error) {
		return []plan.Op{plan.Call("sync", unix.SYS_SYNC), plan.Call("chdir", unix.SYS_CHDIR, plan.Str("/"))}, nil
	})
	require.NoError(t, p.Err())
	require.Contains(t, p.String(), "child   what there is to do   ")
	ops, err := expanded(p)
	require.NoError(t, err)
	require.Len(t, ops, 2)
	require.Equal(t, `chdir("/")`, ops[1].String())
}

func TestCallsAreChecked(t *testing.T) {
	call := func(args ...plan.Arg) plan.Op { return plan.Call("close", unix.SYS_CLOSE, args...) }
	for name, f := range map[string]func(p *plan.Plan) []plan.Op{
		"a slot of another plan": func(*plan.Plan) []plan.Op { return []plan.Op{call(plan.Saved(plan.Build().Slot()))} },
		"a NUL byte":             func(*plan.Plan) []plan.Op { return []plan.Op{call(plan.Str("a\x00b"))} },
		"skips too many":         func(*plan.Plan) []plan.Op { return []plan.Op{call().Tolerate(syscall.EBADF).Skip(1)} },
		"a file": func(*plan.Plan) []plan.Op {
			return []plan.Op{call(plan.FD(plan.Build().Open("x as y", nil)))}
		},
		"calls in calls": func(*plan.Plan) []plan.Op {
			return []plan.Op{plan.Calls("more", func(*plan.Run) ([]plan.Op, error) { return nil, nil })}
		},
	} {
		_, err := expanded(several(func(p *plan.Plan) ([]plan.Op, error) { return f(p), nil }))
		require.Error(t, err, name)
	}
	none := func(*plan.Run) ([]plan.Op, error) { return nil, nil }
	_, err := expanded(several(func(*plan.Plan) ([]plan.Op, error) { return nil, syscall.EIO }))
	require.ErrorIs(t, err, syscall.EIO)
	for _, op := range []plan.Op{plan.Calls("x", none).Tolerate(syscall.EIO), plan.Calls("x", none).Save(plan.Slot{})} {
		require.ErrorContains(t, plan.Build(plan.Func(func(p *plan.Plan) error { p.Slot(); p.Child(plan.Names, op); return nil })).Err(), "no result")
	}
}
