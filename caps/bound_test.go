package caps

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

// as makes the plan that a caller with these rights would make.
func (c caller) as(part plan.Primitive) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		switch part := part.(type) {
		case Bound:
			return c.apply(p, part.state)
		case State:
			return c.apply(p, part.state)
		}
		return part.Apply(p)
	})
}

const allKnown = known

var (
	fullRoot     = caller{State: State{Permitted: allKnown, Effective: allKnown, Bounding: allKnown}, last: 40, root: true}
	ordinaryUser = caller{State: State{Bounding: allKnown}, last: 40}
)

func without(c caller, s Set) caller {
	c.Permitted, c.Effective, c.Bounding = c.Permitted&^s, c.Effective&^s, c.Bounding&^s
	return c
}

func TestGolden(t *testing.T) {
	ns := plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWUSER); return nil })
	for name, parts := range map[string][]plan.Primitive{
		"none":       {fullRoot.as(Drop(All))},
		"one":        {fullRoot.as(Drop(All).Add(NetBindService))},
		"docker":     {fullRoot.as(Docker(0, 0))},
		"privileged": {fullRoot.as(Keep(All))},
		"cut":        {without(fullRoot, SysResource|Bpf).as(Keep(All))},
		"user":       {fullRoot.as(Keep(DockerDefault)), user(1000)},
		"ambient":    {fullRoot.as(Drop(All).Raise(NetBindService | NetRaw)), user(1000)},
		"securebits": {fullRoot.as(Bound{Keep: NetRaw, Securebits: NoRoot.Locked() | NoSetuidFixup.Locked()})},
		"admin":      {fullRoot.as(Drop(All).Add(Kill)), admin},
		"admin-user": {fullRoot.as(Drop(All).Raise(Kill)), admin, user(1000)},
		"admin-nnp":  {fullRoot.as(Drop(All)), admin, NoNewPrivs{}},
		"userns":     {ordinaryUser.as(Drop(All).Add(NetAdmin)), ns},
		"ordinary":   {ordinaryUser.as(Drop(All))},
		"unchanged":  {ordinaryUser.as(Keep(All))},
		"newer":      {caller{State: State{Permitted: upTo(42), Effective: upTo(42), Bounding: upTo(42)}, last: 42, root: true}.as(Drop(SysAdmin | 1<<42))},
		"state": {fullRoot.as(State{Permitted: NetRaw | Kill, Effective: NetRaw, Inheritable: NetRaw, Ambient: NetRaw,
			Bounding: NetRaw | Kill | Chown}), user(1000)},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, parts...) })
	}
}

func TestContract(t *testing.T) {
	for _, part := range []plan.Primitive{Bound{}, Drop(All), Keep(DockerDefault), Docker(All, SysAdmin), Drop(All).Add(NetBindService),
		Drop(All).Raise(Kill), Bound{Securebits: 1 << 20}, State{}, State{Bounding: All}, State{Effective: Kill}, NoNewPrivs{},
		Bound{Need: 1 << 63}} {
		plantest.Check(t, part)
		plantest.Check(t, part, user(0))
		plantest.Check(t, part, user(nobody), admin)
	}
}

func TestArithmetic(t *testing.T) {
	require.Equal(t, Bound{}, Drop(All))
	require.Equal(t, Bound{Keep: All}, Drop(0))
	require.Equal(t, Bound{Keep: All &^ SysAdmin}, Docker(All, SysAdmin))
	require.Equal(t, Bound{Keep: All}, Docker(All, All))
	require.Equal(t, Bound{Need: Kill}, Docker(Kill, All))
	require.Equal(t, Bound{Keep: DockerDefault &^ NetRaw, Need: SysTime}, Docker(SysTime, NetRaw))
	require.Equal(t, Bound{Keep: DockerDefault &^ NetRaw, Need: NetRaw}, Docker(NetRaw, NetRaw)) // it drops first, and then adds
	base := Drop(All).Add(Kill)
	require.Equal(t, Bound{Need: Kill | Chown}, base.Add(Chown))
	require.Equal(t, Bound{Need: Kill}, base, "values do not change")
	require.Equal(t, Bound{}, base.Raise(NetRaw).Drop(All))
	require.Equal(t, Bound{Keep: All, Need: Kill}, base.Add(All))
}

// The lesson "all capabilities": they are cut to the bounding set, and the plan says so. One that is named is an error.
func TestAllCapabilities(t *testing.T) {
	c := without(fullRoot, SysResource)
	p := plan.Build(c.as(Keep(All)))
	require.NoError(t, p.Err())
	require.Contains(t, p.String(), "the command goes without cap_sys_resource, which they lack")
	require.NotContains(t, plan.Build(fullRoot.as(Keep(All))).String(), "goes without")
	for _, b := range []Bound{Drop(All).Add(SysResource), Drop(All).Raise(SysResource), {Inheritable: SysResource}} {
		err := plan.Build(c.as(b)).Err()
		var e *LackError
		require.ErrorAs(t, err, &e)
		require.Equal(t, LackError{Lacked: SysResource}, *e)
		require.ErrorIs(t, err, syscall.EPERM)
		require.ErrorIs(t, err, fs.ErrPermission)
		require.NotErrorIs(t, err, errors.ErrUnsupported)
	}
	err := plan.Build(fullRoot.as(Drop(All).Add(1 << 50))).Err()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorIs(t, err, syscall.EPERM)
	// In a user namespace they are there.
	ns := plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWUSER); return nil })
	require.NoError(t, plan.Build(without(fullRoot, SysResource).as(Drop(All).Add(SysResource)), ns).Err())
	// What the caller has as permitted only, or bounding only, root cannot have for certain.
	half := fullRoot
	half.Permitted &^= SysTime
	require.ErrorIs(t, plan.Build(half.as(Drop(All).Add(SysTime))).Err(), syscall.EPERM)
	require.Contains(t, plan.Build(half.as(Keep(SysTime|Kill))).String(), "without cap_sys_time")
}

// The same on this machine, whatever its root lacks.
func TestAllCapabilitiesHere(t *testing.T) {
	asRoot(t, Setpcap)
	have, err := Current()
	require.NoError(t, err)
	s := status(t, Keep(All))
	require.Equal(t, State{Permitted: have.Bounding, Effective: have.Bounding, Bounding: have.Bounding}, s)
	if lacked := upTo(lastCap()) &^ have.Bounding; lacked != 0 {
		require.Contains(t, plan.Build(Keep(All)).String(), "the command goes without "+lacked.String())
		require.ErrorIs(t, plan.Build(Drop(All).Add(lacked)).Err(), syscall.EPERM)
	}
}

func TestInvalid(t *testing.T) {
	for _, part := range []plan.Primitive{Bound{Securebits: 1 << 12}, Bound{Securebits: NotShown}, State{Effective: Kill},
		State{Permitted: Kill, Bounding: Kill, Ambient: Kill}, State{Inheritable: Kill}, State{Securebits: 1 << 13}} {
		var e *Error
		err := plan.Build(part).Err()
		require.ErrorAs(t, err, &e, "%#v", part)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	var e *plan.ConflictError
	require.ErrorAs(t, plan.Build(Bound{}, State{}).Err(), &e)
}

// Without privilege and without a user namespace nothing can be taken away for good.
func TestRefusal(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	_, err := run(plan.Build(Drop(All)), launch.Options{}, "true")
	var e *plan.Error
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorIs(t, err, syscall.EPERM)
	require.Equal(t, "caps.Bound", e.Primitive)
	require.Contains(t, e.Call, "PR_CAPBSET_DROP")
	require.Contains(t, e.Hint, "namespaces.User")
	require.ErrorIs(t, plan.Build(Drop(All).Raise(NetRaw)).Err(), syscall.EPERM)
	have, err := Current()
	require.NoError(t, err)
	require.Equal(t, State{Bounding: have.Bounding}, status(t, Keep(All)), "nothing is taken away, nothing given")
}

// An ordinary user gives, in a user namespace, what there is.
func TestOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	require.Equal(t, State{}, status(t, userns(0), Drop(All)))
	one := State{Permitted: NetAdmin, Effective: NetAdmin, Bounding: NetAdmin}
	require.Equal(t, one, status(t, userns(0), Drop(All).Add(NetAdmin)))
	all := upTo(lastCap())
	require.Equal(t, State{Permitted: all, Effective: all, Bounding: all}, status(t, Keep(All), userns(0)))
	amb := State{Permitted: SysAdmin, Effective: SysAdmin, Bounding: SysAdmin, Inheritable: SysAdmin, Ambient: SysAdmin}
	require.Equal(t, amb, status(t, userns(7), Drop(All).Raise(SysAdmin)))
	require.Equal(t, State{Bounding: Kill}, status(t, userns(7), Keep(Kill)))
	require.Equal(t, 1, dumpable())
}

func dumpable() int { return prctl(unix.PR_GET_DUMPABLE, 0, 0) }
