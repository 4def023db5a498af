package plan_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// setuid makes the child a user in a phase.
func setuid(ph plan.Phase, id plan.Arg) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		p.Child(ph, plan.Call("setresuid", sys.Setresuid, id, id, id))
		return nil
	})
}

func TestUID(t *testing.T) {
	_, ok := plan.Build().UID()
	require.False(t, ok)
	p := plan.Build(setuid(plan.Credentials, plan.Int(7)), setuid(plan.Users, plan.Int(0)))
	id, ok := p.UID() // the phase counts, not the order of the parts
	require.True(t, ok)
	require.EqualValues(t, 7, id)
	id, ok = plan.Build(setuid(plan.Users, plan.Int(3)), setuid(plan.Credentials, plan.Number(math.MaxUint32, "-1"))).UID()
	require.True(t, ok)
	require.EqualValues(t, 3, id)
	_, ok = plan.Build(plan.Func(func(p *plan.Plan) error {
		s := p.Slot()
		p.Child(plan.Users, plan.Call("getuid", 1).Save(s), plan.Call("setresuid", sys.Setresuid, plan.Saved(s), plan.Saved(s), plan.Saved(s)))
		return nil
	})).UID()
	require.False(t, ok)
}

// TestFinal: it sees what Late records, however deep, and two of them come to an end.
func TestFinal(t *testing.T) {
	seen := 0
	final := plan.Func(func(p *plan.Plan) error {
		p.Final(func() error {
			if id, ok := p.UID(); ok && id == 5 {
				seen++
			}
			return nil
		})
		return nil
	})
	late := plan.Func(func(p *plan.Plan) error {
		p.Late(func() error {
			p.Late(func() error { p.Include(setuid(plan.Users, plan.Int(5))); return nil })
			return nil
		})
		return nil
	})
	require.NoError(t, plan.Build(final, late, final).Err())
	require.Equal(t, 2, seen)
}
