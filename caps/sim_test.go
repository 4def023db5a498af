package caps

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// sim is the kernel as far as capabilities(7) goes: what the calls of a plan do to a process, and execve at the end. It is
// written after security/commoncap.c, and not after this package.
type sim struct {
	State
	uid  int
	last int
}

func (k *sim) call(c sys.Call) syscall.Errno {
	switch c.Trap {
	case unix.SYS_PRCTL:
		return k.prctl(c.Args)
	case unix.SYS_CAPSET:
		return k.capset(*(**capsets)(unsafe.Pointer(&c.Args[1])))
	case sys.Setresuid:
		k.setresuid(int(c.Args[0]))
	}
	return 0
}

func (k *sim) prctl(a [6]uintptr) syscall.Errno {
	bit := Set(1) << (a[1] & 63)
	switch a[0] {
	case unix.PR_CAPBSET_DROP:
		if int(a[1]) > k.last {
			return syscall.EINVAL
		}
		if !k.Effective.Has(Setpcap) {
			return syscall.EPERM
		}
		k.Bounding &^= bit
	case unix.PR_SET_KEEPCAPS:
		if k.Securebits.Has(LockKeepCaps) {
			return syscall.EPERM
		}
		k.Securebits |= KeepCaps
	case unix.PR_SET_SECUREBITS:
		bits := Securebits(a[1])
		locked := k.Securebits & locks
		if !k.Effective.Has(Setpcap) || (k.Securebits^bits)&(locked>>1) != 0 || locked&^bits != 0 {
			return syscall.EPERM
		}
		k.Securebits = bits
	case unix.PR_CAP_AMBIENT:
		if a[1] == unix.PR_CAP_AMBIENT_CLEAR_ALL {
			k.Ambient = 0
			return 0
		}
		bit = 1 << a[2]
		if !k.Permitted.Has(bit) || !k.Inheritable.Has(bit) || k.Securebits.Has(NoAmbientRaise) {
			return syscall.EPERM
		}
		k.Ambient |= bit
	case unix.PR_SET_NO_NEW_PRIVS:
		k.NoNewPrivs = true
	}
	return 0
}

func (k *sim) capset(d *capsets) syscall.Errno {
	e, p, i := halves(d[0].Effective, d[1].Effective), halves(d[0].Permitted, d[1].Permitted), halves(d[0].Inheritable, d[1].Inheritable)
	capped := !k.Effective.Has(Setpcap)
	if capped && !(k.Inheritable|k.Permitted).Has(i) || !(k.Inheritable | k.Bounding).Has(i) || !k.Permitted.Has(p) || !p.Has(e) {
		return syscall.EPERM
	}
	k.Effective, k.Permitted, k.Inheritable = e, p, i
	k.Ambient &= p & i
	return 0
}

func (k *sim) setresuid(uid int) {
	if !k.Securebits.Has(NoSetuidFixup) {
		if k.uid == 0 && uid != 0 {
			if !k.Securebits.Has(KeepCaps) {
				k.Permitted = 0
			}
			k.Effective, k.Ambient = 0, 0
		}
		if k.uid != 0 && uid == 0 {
			k.Effective = k.Permitted
		}
	}
	k.uid = uid
}

func (k *sim) execve() {
	before := k.Permitted
	k.Permitted = k.Ambient
	if k.uid == 0 && !k.Securebits.Has(NoRoot) {
		k.Permitted |= k.Inheritable | k.Bounding
		if k.NoNewPrivs {
			k.Permitted &= before
		}
	}
	k.Effective = k.Permitted
	k.Securebits &^= KeepCaps
}

// start goes through the plan, from the state that the child has in phase Bounds.
func (k *sim) start(p *plan.Plan) (plan.Step, syscall.Errno) {
	var mem sys.Memory
	defer mem.Free()
	for _, s := range p.Steps(nil) {
		if s.Kind != plan.StepCall || s.Phase < plan.Bounds {
			continue
		}
		if e := k.call(s.Op.Lower(&mem, &plan.Run{})); e != 0 {
			return s, e
		}
	}
	k.execve()
	return plan.Step{}, 0
}

// trial is a caller, what it asks for, and where.
type trial struct {
	caller caller
	bound  Bound
	uid    int // of the command; -1: the caller's
	inside bool
	admin  bool
	nnp    bool
}

func some(r *rand.Rand, of Set) Set {
	switch r.IntN(4) {
	case 0:
		return 0
	case 1:
		return of
	}
	return of & Set(r.Uint64())
}

func randomTrial(r *rand.Rand) (t trial) {
	t.caller = caller{last: 38 + r.IntN(6), root: r.IntN(2) == 0}
	t.caller.Bounding = some(r, upTo(t.caller.last)) | some(r, Setpcap)
	t.caller.Permitted = t.caller.Bounding
	if r.IntN(3) == 0 {
		t.caller.Permitted = some(r, upTo(t.caller.last))
	}
	t.caller.Effective = t.caller.Permitted
	t.caller.Inheritable = some(r, t.caller.Bounding)
	t.caller.Ambient = some(r, t.caller.Inheritable&t.caller.Permitted)
	t.bound = Bound{Keep: some(r, All), Need: some(r, 1<<r.IntN(64)), Ambient: some(r, t.caller.Bounding&Set(r.Uint64())&Set(r.Uint64())),
		Inheritable: some(r, 1<<r.IntN(41))}
	if r.IntN(4) == 0 {
		t.bound.Securebits = Securebits(r.IntN(256))
	}
	t.uid = []int{-1, 0, 1000}[r.IntN(3)]
	t.inside, t.admin, t.nnp = r.IntN(3) == 0, r.IntN(3) == 0, r.IntN(3) == 0
	return t
}

func (t trial) plan() *plan.Plan {
	parts := []plan.Primitive{t.caller.as(t.bound)}
	if t.uid >= 0 {
		parts = append(parts, user(t.uid))
	}
	if t.inside {
		parts = append(parts, plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWUSER); return nil }))
	}
	if t.admin {
		parts = append(parts, admin)
	}
	if t.nnp {
		parts = append(parts, NoNewPrivs{})
	}
	return plan.Build(parts...)
}

// process is the child in phase Bounds.
func (t trial) process() *sim {
	k := &sim{State: t.caller.State, last: t.caller.last, uid: 1000}
	if t.inside {
		all := upTo(t.caller.last)
		k.State = State{Permitted: all, Effective: all, Bounding: all}
	}
	if t.caller.root || t.inside {
		k.uid = 0
	}
	return k
}

// want is what the documentation of Bound promises.
func (t trial) want(have State) State {
	needed := t.bound.Need | t.bound.Ambient | t.bound.Inheritable
	w := State{Bounding: (t.bound.Keep | needed) & have.Bounding, Ambient: t.bound.Ambient, Inheritable: t.bound.Inheritable | t.bound.Ambient,
		Securebits: t.bound.Securebits &^ KeepCaps, NoNewPrivs: t.nnp}
	w.Permitted = w.Ambient
	if t.root() {
		w.Bounding &= have.Permitted
		w.Permitted = w.Bounding
	}
	w.Effective = w.Permitted
	return w
}

func (t trial) root() bool {
	root := t.uid == 0 || t.uid < 0 && (t.caller.root || t.inside)
	return root && !t.bound.Securebits.Has(NoRoot)
}

// TestSimulated: whatever is asked of whatever caller, the command has exactly what Bound says, or the start is refused for a
// reason that the caller can do something about.
func TestSimulated(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	started, refused, lacked := 0, 0, 0
	n := 50_000
	if slow() {
		n = 1_500
	}
	for range n {
		c := randomTrial(r)
		k := c.process()
		have := k.State
		p := c.plan()
		if err := p.Err(); err != nil {
			lacked++
			var e *LackError
			require.ErrorAs(t, err, &e, "%+v", c)
			continue
		}
		step, errno := k.start(p)
		if errno == 0 {
			started++
			require.Equal(t, c.want(have), k.State, "%+v\n%v", c, p)
			continue
		}
		refused++
		needs := c.missing(have)
		require.NotZero(t, needs, "%v: %v\n%+v\n%v", step, errno, c, p)
	}
	t.Logf("%d started, %d refused by the kernel, %d before", started, refused, lacked)
	require.Greater(t, min(started, refused, lacked), n/50)
}

// missing is what the caller would have needed.
func (t trial) missing(have State) (lacked Set) {
	cut := have.Bounding &^ t.want(have).Bounding
	if cut != 0 || t.bound.Securebits != 0 {
		lacked |= Setpcap
	}
	if t.want(have).Inheritable&^(have.Permitted|have.Inheritable) != 0 {
		lacked |= Setpcap
	}
	if t.admin && !t.nnp {
		lacked |= SysAdmin
	}
	return lacked &^ have.Permitted
}

// TestSimulatedIsReal: the kernel agrees with the simulation, for callers like this root.
func TestSimulatedIsReal(t *testing.T) {
	asRoot(t, Setpcap|SysAdmin|Setuid|Setgid)
	me, err := currentCaller()
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(3, 4))
	n, started := 150, 0
	if slow() {
		n = 12
	}
	for range n {
		c := randomTrial(r)
		c.caller = me
		c.bound.Need &= me.Bounding
		c.bound.Inheritable &= me.Bounding
		c.bound.Ambient &= me.Bounding
		if c.bound.Securebits.Has(NoAmbientRaise) {
			c.bound.Securebits = 0
		}
		c.inside = false
		got, err := tryStatus(c.plan())
		k := c.process()
		if _, errno := k.start(c.plan()); errno != 0 {
			require.ErrorIs(t, err, errno, "%+v", c)
			continue
		}
		require.NoError(t, err, "%+v", c)
		started++
		k.Securebits = 0
		require.Equal(t, k.State, got, "%+v\n%v", c, c.plan())
	}
	require.Greater(t, started, n/2)
}
