package plan_test

import (
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// drop takes a capability out of the bounding set.
func drop(capability int) plan.Op {
	return plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"), plan.Int(capability))
}

// inherit is a capset(2) with the numbers of the inheritable set.
func inherit(low, high uint32) plan.Op {
	b := make([]byte, 24)
	binary.NativeEndian.PutUint32(b[8:], low)
	binary.NativeEndian.PutUint32(b[20:], high)
	return plan.Call("capset", unix.SYS_CAPSET, plan.Bytes("header", make([]byte, 8)), plan.Bytes("sets", b))
}

// TestLacks: what is not certain does not count.
func TestLacks(t *testing.T) {
	const admin, later = unix.CAP_SYS_ADMIN, unix.CAP_BPF
	calls := func(ph plan.Phase, ops ...plan.Op) plan.Primitive {
		return plan.Func(func(p *plan.Plan) error { p.Child(ph, ops...); return nil })
	}
	none := inherit(0, 0)
	for name, c := range map[string]struct {
		capability int
		want       bool
		parts      []plan.Primitive
	}{
		"nothing":                {admin, false, nil},
		"bounding set alone":     {admin, false, []plan.Primitive{calls(plan.Bounds, drop(admin))}},
		"inheritable set alone":  {admin, false, []plan.Primitive{calls(plan.Capabilities, none)}},
		"both":                   {admin, true, []plan.Primitive{calls(plan.Capabilities, none), calls(plan.Bounds, drop(admin))}},
		"another one":            {admin, false, []plan.Primitive{calls(plan.Bounds, drop(later)), calls(plan.Capabilities, none)}},
		"above 31":               {later, true, []plan.Primitive{calls(plan.Bounds, drop(later)), calls(plan.Capabilities, inherit(1<<admin, 0))}},
		"inherited":              {admin, false, []plan.Primitive{calls(plan.Bounds, drop(admin)), calls(plan.Capabilities, inherit(1<<admin, 0))}},
		"inherited above 31":     {later, false, []plan.Primitive{calls(plan.Bounds, drop(later)), calls(plan.Capabilities, inherit(0, 1<<(later-32)))}},
		"inherited at last":      {admin, false, []plan.Primitive{calls(plan.Bounds, drop(admin)), calls(plan.Capabilities, none), calls(plan.Last, inherit(1<<admin, 0))}},
		"given up at last":       {admin, true, []plan.Primitive{calls(plan.Bounds, drop(admin), inherit(1<<admin, 0)), calls(plan.Last, none)}},
		"a failure is tolerated": {admin, false, []plan.Primitive{calls(plan.Bounds, drop(admin).Tolerate(syscall.EPERM)), calls(plan.Capabilities, none)}},
		"may be skipped": {admin, false, []plan.Primitive{calls(plan.Bounds, plan.Call("getpid", unix.SYS_GETPID).Tolerate(syscall.EPERM).Skip(2), drop(later), drop(admin)),
			calls(plan.Capabilities, none)}},
		"is not skipped": {admin, true, []plan.Primitive{calls(plan.Bounds, plan.Call("getpid", unix.SYS_GETPID).Tolerate(syscall.EPERM).Skip(1), drop(later), drop(admin)),
			calls(plan.Capabilities, none)}},
		"a saved number": {admin, false, []plan.Primitive{plan.Func(func(p *plan.Plan) error {
			s := p.Slot()
			for range admin { // slot 21
				s = p.Slot()
			}
			p.Child(plan.Bounds, plan.Call("getpid", unix.SYS_GETPID).Save(s),
				plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"), plan.Saved(s)))
			return nil
		}), calls(plan.Capabilities, none)}},
		"capset is tolerated": {admin, false, []plan.Primitive{calls(plan.Bounds, drop(admin)), calls(plan.Capabilities, none.Tolerate(syscall.EPERM))}},
		"of an older version": {later, false, []plan.Primitive{calls(plan.Bounds, drop(later)),
			calls(plan.Capabilities, plan.Call("capset", unix.SYS_CAPSET, plan.Bytes("header", make([]byte, 8)), plan.Bytes("sets", make([]byte, 12))))}},
	} {
		p := plan.Build(c.parts...)
		require.NoError(t, p.Err(), name)
		require.Equal(t, c.want, p.Lacks(c.capability), name)
	}
}
