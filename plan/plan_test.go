package plan_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

var update = flag.Bool("update", false, "write the golden files")

func does(ph plan.Phase, ops ...plan.Op) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		p.Child(ph, ops...)
		return nil
	})
}

// taking makes a call in Names, and one in the phase whose descriptor the parent takes.
func taking(ph plan.Phase, first, taken plan.Op) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Names, first)
		p.TakeAt(ph, taken, func(*plan.Run, *os.File) error { return nil })
		return nil
	})
}

// The types below are primitives with names of their own, as is hostname.
type root struct{ dir string }

func (r *root) Apply(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWNS)
	dir := p.Open(fmt.Sprintf("%q as root", r.dir), func(*plan.Run) (*os.File, error) { return os.Open(r.dir) })
	tree := p.Slot()
	p.Child(plan.Root, plan.Call("pivot_root", unix.SYS_PIVOT_ROOT, plan.Saved(tree), plan.Str(".")))
	p.Child(plan.Sources, plan.Call("open_tree", unix.SYS_OPEN_TREE, plan.FD(dir), plan.Str(""), plan.Int(0)).Save(tree))
	return p.Claim(plan.RootDir)
}

type group struct{}

func (group) Apply(p *plan.Plan) error {
	p.IntoCgroup(p.Open("make the group as cgroup", func(*plan.Run) (*os.File, error) { return os.Open("/") }))
	p.Before(plan.Action{Name: "write limits", Do: func(*plan.Run) error { return nil }})
	p.Child(plan.Limits, plan.Call("prlimit64", unix.SYS_PRLIMIT64, plan.Int(0), plan.Number(6, "RLIMIT_NPROC"), plan.Bytes("{1, 2}", make([]byte, 16)), plan.Null()))
	return p.Claim("rlimit NOFILE") // keeps the machine's own limits out of the golden files
}

type maps struct{}

func (maps) Apply(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWUSER)
	p.While(plan.Action{Name: `write uid_map "0 1000 1"`, Do: func(*plan.Run) error { return nil }})
	p.While(plan.Action{Name: `write gid_map "0 1000 1"`, Do: func(*plan.Run) error { return nil }})
	p.Child(plan.Users, plan.Call("setgroups", unix.SYS_SETGROUPS, plan.Int(0), plan.Null()).Tolerate(syscall.EPERM).Skip(1),
		plan.Call("nothing", unix.SYS_GETPID))
	return nil
}

type filter struct{}

func (filter) Apply(p *plan.Plan) error {
	code := p.Open("rules as rules", func(*plan.Run) (*os.File, error) { return os.Open("/") })
	p.Child(plan.Seccomp, plan.Call("seccomp", unix.SYS_SECCOMP, plan.Number(1, "SECCOMP_SET_MODE_FILTER"),
		plan.Flags(3, []plan.Flag{{Bits: 1, Name: "TSYNC"}, {Bits: 4, Name: "SPEC_ALLOW"}}),
		plan.Struct("{3 instructions}", make([]byte, 16), plan.Field{Offset: 8, Arg: plan.Bytes("", []byte{1})}, plan.Field{Size: 4, Arg: plan.FD(code)})))
	return nil
}

type dying struct{}

func (dying) Apply(p *plan.Plan) error {
	p.DieWithParent()
	return nil
}

type joining struct{}

func (joining) Apply(p *plan.Plan) error {
	pidfd := p.Open("pidfd of 17 as target", func(*plan.Run) (*os.File, error) { return os.Open("/") })
	p.Join(unix.CLONE_NEWPID|unix.CLONE_NEWNET, plan.Call("setns", unix.SYS_SETNS, plan.FD(pidfd), plan.Namespaces(unix.CLONE_NEWPID|unix.CLONE_NEWNET)))
	return nil
}

func everything() []plan.Primitive {
	return []plan.Primitive{filter{}, dying{}, hostname("box"), &root{"/srv"}, maps{}, group{}}
}

var run = &plan.Command{Candidates: []string{"/usr/bin/nginx", "/bin/nginx"}, Args: []string{"nginx", "-g", "a \"b\"\n"}, Dir: "/srv",
	Files: make([]*os.File, 4)}

// TestGolden: a plan is printed the same way each time. The order of the parts changes nothing but the order within a phase.
func TestGolden(t *testing.T) {
	again := plan.Build(everything()...).Again(joining{})
	withInit := *run
	withInit.Init = true
	for name, text := range map[string]string{
		"empty":         plan.Build(group{}).String(),
		"everything":    plan.Build(everything()...).Text(run),
		"placeholder":   plan.Build(everything()...).String(),
		"again":         again.Text(run),
		"init":          plan.Build(group{}).Text(&withInit),
		"join-and-make": plan.Build(joining{}, hostname("x"), maps{}, group{}, dying{}).String(),
		"join":          plan.Build(plan.Func(joinNet), group{}).String(),
		"time":          plan.Build(plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWTIME); return nil }), group{}).String(),
		"error":         plan.Build(hostname("a"), &root{"/"}, hostname("b")).String(),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", name+".golden")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), text)
		})
	}
}

func joinNet(p *plan.Plan) error {
	f := p.Open("net as net", func(*plan.Run) (*os.File, error) { return os.Open("/") })
	p.Join(unix.CLONE_NEWNET, plan.Call("setns", unix.SYS_SETNS, plan.FD(f), plan.Int(0)))
	return nil
}

func TestConformance(t *testing.T) {
	for _, part := range everything() {
		plantest.Check(t, part)
	}
	plantest.Check(t, joining{}, group{})
}

// TestPhases: the order of the parts does not matter across phases, and does within one.
func TestPhases(t *testing.T) {
	call := func(name string) plan.Op { return plan.Call(name, unix.SYS_GETPID) }
	var parts []plan.Primitive
	for ph := plan.Last; ; ph-- {
		parts = append(parts, does(ph, call(ph.String()+" 1")), does(ph, call(ph.String()+" 2")))
		if ph == plan.Cgroup {
			break
		}
	}
	var got []string
	last := plan.Cgroup
	for _, s := range plan.Build(parts...).Steps(nil) {
		if s.Kind == plan.StepCall && s.Primitive != "launch" {
			require.GreaterOrEqual(t, s.Phase, last)
			last = s.Phase
			got = append(got, s.String())
		}
	}
	require.Len(t, got, 36)
	for i := 0; i < len(got); i += 2 {
		require.Contains(t, got[i], " 1(")
		require.Contains(t, got[i+1], " 2(")
	}
	require.Equal(t, "phase(99)", plan.Phase(99).String())
	require.ErrorContains(t, plan.Build(does(99)).Err(), "phase(99)")
}

// TestOnceAgain: what concerns the process is done for a further command too, what concerns the sandbox is not.
func TestOnceAgain(t *testing.T) {
	p := plan.Build(everything()...)
	q := p.Again(joining{})
	require.NoError(t, q.Err())
	kinds := map[string]bool{}
	for _, s := range q.Steps(nil) {
		kinds[s.String()] = true
		if s.Kind == plan.StepCall {
			require.NotContains(t, []plan.Phase{plan.Sources, plan.Root, plan.Mounts, plan.Names, plan.Seal}, s.Phase, s.String())
		}
		require.NotContains(t, []plan.StepKind{plan.StepWhile, plan.StepAction}, s.Kind, s.String())
	}
	require.True(t, kinds["open make the group as cgroup"], "the control group is not entered")
	require.True(t, kinds["open rules as rules"], "the filter's file is not opened")
	require.False(t, kinds[`open "/srv" as root`], "a file that nobody uses is opened")
	require.True(t, q.Dies())
	require.True(t, q.Has(plan.RootDir) && q.Has(plan.Hostname))
	require.Zero(t, q.Cloned())
	require.Equal(t, uint64(unix.CLONE_NEWPID|unix.CLONE_NEWNET), q.Joined())
	require.Equal(t, p.String(), plan.Build(everything()...).String(), "Again has changed the plan")
	// What a later phase needs of an earlier one that is left out is an error, and not the number 0.
	late := plan.Build(plan.Func(func(p *plan.Plan) error {
		s := p.Slot()
		p.Child(plan.Sources, plan.Call("open", unix.SYS_GETPID).Save(s))
		p.Child(plan.Labels, plan.Call("write", unix.SYS_GETPID, plan.Saved(s)))
		return nil
	}))
	require.NoError(t, late.Err())
	require.ErrorContains(t, late.Again().Err(), "has not been saved before")
	bad := plan.Build(hostname("a"), hostname("b"))
	require.Equal(t, bad.Err(), bad.Again().Err())
}

func TestClaims(t *testing.T) {
	err := plan.Build(hostname("a"), hostname("b")).Err()
	var conflict *plan.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, plan.ConflictError{What: "hostname", First: "plan_test.hostname", Second: "plan_test.hostname"}, *conflict)
	require.ErrorIs(t, err, syscall.EINVAL)
	require.NotErrorIs(t, err, syscall.EPERM)
	require.EqualError(t, err, "caisson: plan_test.hostname: the hostname is given twice by plan_test.hostname")
	other := plan.Func(func(p *plan.Plan) error { return p.Claim(plan.Hostname) })
	require.EqualError(t, plan.Build(other, hostname("b")).Err(), "caisson: plan_test.hostname: the hostname is given by plan.Func and by plan_test.hostname")
	// Has sees what comes before; Late sees all.
	plan.Build(plan.Func(func(p *plan.Plan) error {
		require.False(t, p.Has(plan.Hostname))
		p.Late(func() error {
			require.True(t, p.Has(plan.Hostname))
			require.Equal(t, uint64(unix.CLONE_NEWUTS), p.Cloned())
			return nil
		})
		return nil
	}), hostname("a"))
}

// TestLate: decisions that follow others, and their errors.
func TestLate(t *testing.T) {
	var order []string
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Late(func() error {
			order = append(order, "first")
			p.Late(func() error { order = append(order, "third"); return nil })
			return nil
		})
		p.Late(func() error { order = append(order, "second"); return nil })
		return nil
	}))
	require.NoError(t, p.Err())
	require.Equal(t, []string{"first", "second", "third"}, order)
	err := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Late(func() error { return syscall.ENODEV })
		p.Late(func() error { t.Error("called after an error"); return nil })
		return nil
	})).Err()
	require.ErrorIs(t, err, syscall.ENODEV)
	require.EqualError(t, err, "caisson: plan.Func: no such device")
}

func TestInclude(t *testing.T) {
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Include(hostname("inner"))
		p.Child(plan.Names, plan.Call("after", unix.SYS_GETPID))
		return nil
	}))
	require.Contains(t, p.String(), `sethostname("inner", 5)`)
	owners := map[string]string{}
	for _, s := range p.Steps(nil) {
		owners[strings.SplitN(s.String(), "(", 2)[0]] = s.Primitive
	}
	require.Equal(t, "plan_test.hostname", owners["sethostname"])
	require.Equal(t, "plan.Func", owners["after"])
	require.ErrorContains(t, plan.Build(nil).Err(), "nil is not a primitive")
	require.ErrorContains(t, plan.Build(hostname("a"), nil).Err(), "nil")
}

// TestImpossible: what could not be lowered is an error of the plan, and names the primitive and its call.
func TestImpossible(t *testing.T) {
	get := func(args ...plan.Arg) plan.Op { return plan.Call("get", unix.SYS_GETPID, args...) }
	var foreign plan.Slot
	var file plan.File
	plan.Build(plan.Func(func(p *plan.Plan) error {
		for range 5 {
			foreign = p.Slot()
			file = p.Open("f", nil)
		}
		return nil
	}))
	field := func(f plan.Field) plan.Arg { return plan.Struct("s", make([]byte, 16), f) }
	const most = int(^uint(0) >> 1)
	for name, c := range map[string]struct {
		part plan.Primitive
		want string
	}{
		"seven arguments":     {does(plan.Names, get(make([]plan.Arg, 7)...)), "six arguments"},
		"NUL":                 {does(plan.Names, get(plan.Str("a\x00b"))), "NUL byte"},
		"NUL in a list":       {does(plan.Names, get(plan.Strs("a", "\x00"))), "NUL byte"},
		"NUL in a field":      {does(plan.Names, get(field(plan.Field{Arg: plan.Str("\x00")}))), "NUL byte"},
		"slot of another":     {does(plan.Names, get(plan.Saved(foreign))), "has not been saved"},
		"saved elsewhere":     {does(plan.Names, get().Save(foreign)), "another plan's slot"},
		"file of another":     {does(plan.Names, get(plan.FD(file))), "a file of another plan"},
		"skips too many":      {does(plan.Names, get().Skip(1)), "not the primitive's own"},
		"skips a take":        {taking(plan.Names, get().Tolerate(1).Skip(1), get()), "always made"},
		"take of an error":    {taking(plan.Names, get(), get().Tolerate(1)), "always made"},
		"take too early":      {taking(plan.Join, get(), get()), "phase join"},
		"take too late":       {taking(plan.Seccomp, get(), get()), "phase seccomp"},
		"skips backwards":     {does(plan.Names, get().Skip(-1)), "not the primitive's own"},
		"field behind":        {does(plan.Names, get(field(plan.Field{Offset: 9, Size: 8}))), "outside"},
		"field before":        {does(plan.Names, get(field(plan.Field{Offset: -1, Size: 4}))), "outside"},
		"field far out":       {does(plan.Names, get(field(plan.Field{Offset: most, Size: 8}))), "outside"},
		"field far before":    {does(plan.Names, get(field(plan.Field{Offset: -most - 1, Size: 8}))), "outside"},
		"field of three":      {does(plan.Names, get(field(plan.Field{Size: 3}))), "outside"},
		"field of minus four": {does(plan.Names, get(field(plan.Field{Size: -4}))), "outside"},
		"field in nothing":    {does(plan.Names, get(plan.Struct("s", nil, plan.Field{Size: 4}))), "outside"},
		"clone flags": {plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_VM | unix.CLONE_NEWNS); return nil }),
			"clone flags 0x100 are the launcher's own"},
		"made and joined": {plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWNET); return joinNet(p) }), "CLONE_NEWNET: made anew and joined"},
		"used before": {plan.Func(func(p *plan.Plan) error {
			s := p.Slot()
			p.Child(plan.Sources, get(plan.Saved(s)))
			p.Child(plan.Root, get().Save(s))
			return nil
		}), "$0 has not been saved before"},
		"saved in a structure": {plan.Func(func(p *plan.Plan) error {
			s := p.Slot()
			p.Child(plan.Sources, get().Save(s), get(field(plan.Field{Size: 8, Arg: plan.Saved(s)})))
			return nil
		}), "has not been saved"},
		"skips another's in between": {plan.Func(func(p *plan.Plan) error {
			p.Child(plan.Names, get().Tolerate(syscall.EPERM).Skip(2))
			p.Include(hostname("x"))
			p.Child(plan.Names, get())
			return nil
		}), "not the primitive's own"},
		"too many slots": {plan.Func(func(p *plan.Plan) error {
			for range 1 << 16 {
				p.Slot()
			}
			return nil
		}), "results are saved"},
	} {
		t.Run(name, func(t *testing.T) {
			err := plan.Build(c.part).Err()
			require.ErrorContains(t, err, c.want)
			var e *plan.Error
			require.ErrorAs(t, err, &e)
			require.NotEmpty(t, e.Primitive)
			require.Zero(t, e.Step)
			if strings.HasPrefix(c.want, "NUL") {
				require.ErrorIs(t, err, syscall.EINVAL)
			}
		})
	}
	ok := plan.Build(does(plan.Names, get(field(plan.Field{Offset: 8, Size: 8})), get(field(plan.Field{Offset: 12, Size: 4})), get().Skip(1), get()))
	require.NoError(t, ok.Err())
}

func TestArgText(t *testing.T) {
	table := []plan.Flag{{Bits: 1, Name: "A"}, {Bits: 2, Name: "B"}, {Bits: 3, Name: "AB"}, {Bits: 0, Name: "NONE"}, {Bits: 1 << 63, Name: "TOP"}}
	for want, arg := range map[string]plan.Arg{
		"-1":                             plan.Int(-1),
		"0":                              {},
		"NULL":                           plan.Null(),
		"AT_FDCWD":                       plan.Number(^uint64(99), "AT_FDCWD"),
		"17":                             plan.Number(17, ""),
		"0755":                           plan.Octal(0o755),
		"00":                             plan.Octal(0),
		`"a\"b\n\x01"`:                   plan.Str("a\"b\n\x01"),
		`""`:                             plan.Str(""),
		`["a", ""]`:                      plan.Strs("a", ""),
		"[]":                             plan.Strs(),
		"[32 bytes]":                     plan.Buffer(32),
		"{x}":                            plan.Bytes("{x}", nil),
		"A|B":                            plan.Flags(3, table),
		"A|0x10":                         plan.Flags(0x11, table),
		"0x40":                           plan.Flags(0x40, table),
		"TOP":                            plan.Flags(1<<63, table),
		"CLONE_NEWUSER|CLONE_NEWNET|0x1": plan.Namespaces(unix.CLONE_NEWNET | unix.CLONE_NEWUSER | 1),
	} {
		require.Equal(t, want, arg.String())
	}
	require.Equal(t, "0", plan.FlagText(0, table))
	op := plan.Call("f", 0, plan.Int(1), plan.Str("x")).Tolerate(syscall.EEXIST).Skip(2)
	require.Equal(t, `f(1, "x") or EEXIST, then skip 2`, op.String())
	require.Equal(t, "f() or errno 4000", plan.Call("f", 0).Tolerate(4000).String())
	require.Equal(t, "f()", plan.Call("f", 0).String())
}

// TestOpIsValue: the methods of an Op change copies only.
func TestOpIsValue(t *testing.T) {
	op := plan.Call("f", 0).Hint(syscall.EPERM, "one")
	a, b := op.Hint(syscall.ENOENT, "a"), op.Hint(syscall.ENOENT, "b")
	for want, o := range map[string]plan.Op{"": op, "a": a, "b": b} {
		require.Equal(t, want, plan.Step{Op: &o}.HintFor(syscall.ENOENT))
		require.Equal(t, "one", plan.Step{Op: &o}.HintFor(fmt.Errorf("x: %w", syscall.EPERM)))
	}
	require.NotEqual(t, op.Skip(1).String(), op.String())
}

func TestErrorText(t *testing.T) {
	e := &plan.Error{Primitive: "chroot.Proc", Call: "fsopen()", Step: 3, Steps: 20, Err: syscall.EPERM, Hint: "do this"}
	require.EqualError(t, e, "caisson: step 3 of 20, chroot.Proc: fsopen(): operation not permitted (do this)")
	require.EqualError(t, &plan.Error{Primitive: "x", Err: syscall.ENOSYS}, "caisson: x: function not implemented")
	require.ErrorIs(t, e, fs.ErrPermission)
	require.ErrorIs(t, e, syscall.EPERM)
	require.ErrorIs(t, &plan.Error{Err: syscall.ENOENT}, fs.ErrNotExist)
	require.ErrorIs(t, &plan.Error{Err: syscall.ENOSYS}, errors.ErrUnsupported)
	require.Equal(t, syscall.EPERM, plan.Errno(fmt.Errorf("x: %w", e)))
	require.Zero(t, plan.Errno(errors.New("x")))
	require.Zero(t, plan.Errno(nil))
	require.EqualError(t, &plan.ConflictError{What: "user", First: "a.A", Second: "b.B"}, "the user is given by a.A and by b.B")
}

func TestResultText(t *testing.T) {
	for want, r := range map[string]plan.Result{
		"not ended":                  {},
		"exited with 3":              {Reason: plan.Exited, ExitCode: 3},
		"killed by signal 9, killed": {Reason: plan.Killed, Signal: syscall.SIGKILL},
		"timed out by signal 9, killed: out of memory": {Reason: plan.TimedOut, Signal: syscall.SIGKILL, Detail: "out of memory"},
		"reason 77": {Reason: 77},
	} {
		require.Equal(t, want, r.String())
	}
}

// TestRun: the state of one start.
func TestRun(t *testing.T) {
	p := plan.Build(&root{"/"})
	r := p.NewRun(context.Background(), nil)
	steps := p.Steps(nil)
	require.Equal(t, plan.StepOpen, steps[0].Kind)
	require.NoError(t, p.OpenFile(r, steps[0]))
	fds := r.Descriptors()
	require.Len(t, fds, 1)
	require.NoError(t, r.Raise(500))
	require.GreaterOrEqual(t, r.Descriptors()[0], uintptr(500))
	flags, err := unix.FcntlInt(r.Descriptors()[0], unix.F_GETFD, 0)
	require.NoError(t, err)
	require.Equal(t, unix.FD_CLOEXEC, flags)
	r.Set("key", 1)
	next := p.NewRun(context.Background(), r)
	require.Equal(t, 1, next.Value("key"))
	next.Set("key", 2)
	require.Equal(t, 1, r.Value("key"), "a start changes another's values")
	require.Empty(t, next.Descriptors())
	fd := r.Descriptors()[0]
	r.CloseFiles()
	r.CloseFiles()
	require.Empty(t, r.Descriptors())
	_, err = unix.FcntlInt(fd, unix.F_GETFD, 0)
	require.ErrorIs(t, err, syscall.EBADF)
	require.Nil(t, plan.Build().NewRun(context.Background(), nil).Value("x"))
	missing := plan.Build(&root{"/nonexistent"})
	require.ErrorIs(t, missing.OpenFile(missing.NewRun(context.Background(), nil), missing.Steps(nil)[0]), fs.ErrNotExist)
	nothing := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Open("nothing", func(*plan.Run) (*os.File, error) { return nil, nil })
		return nil
	}))
	require.ErrorIs(t, nothing.OpenFile(nothing.NewRun(context.Background(), nil), nothing.Steps(nil)[0]), os.ErrInvalid)
}

// TestFileWithoutCloseOnExec: what a primitive opens is not open in the command, whatever it forgets.
func TestFileWithoutCloseOnExec(t *testing.T) {
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Open("x", func(*plan.Run) (*os.File, error) {
			fd, err := unix.Open("/", unix.O_RDONLY, 0)
			return os.NewFile(uintptr(fd), "x"), err
		})
		return nil
	}))
	r := p.NewRun(context.Background(), nil)
	defer r.CloseFiles()
	require.NoError(t, p.OpenFile(r, p.Steps(nil)[0]))
	flags, err := unix.FcntlInt(r.Descriptors()[0], unix.F_GETFD, 0)
	require.NoError(t, err)
	require.Equal(t, unix.FD_CLOEXEC, flags)
}

func TestFirstClone(t *testing.T) {
	check := func(first, second uint64, twice bool, parts ...plan.Primitive) {
		t.Helper()
		f, s, two := plan.Build(parts...).FirstClone()
		require.Equal(t, []any{first, second, twice}, []any{f, s, two})
	}
	time := plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWTIME); return nil })
	check(0, 0, false)
	check(0, 0, false, time)
	check(unix.CLONE_NEWUTS, 0, false, hostname("x"), time)
	check(0, 0, false, plan.Func(joinNet))
	check(0, 0, true, joining{})
	check(0, unix.CLONE_NEWUTS, true, plan.Func(joinNet), hostname("x"))
}

// FuzzText: whatever a call is given, it is printed on one line, and a plan of it is never a panic.
func FuzzText(f *testing.F) {
	f.Add("a\nb", "as x", uint64(3), []byte("x"), 1, 4)
	f.Add("\x00", "\xff\"", ^uint64(0), []byte{}, -1, 0)
	f.Fuzz(func(t *testing.T, s, name string, n uint64, data []byte, offset, size int) {
		op := plan.Call("call", unix.SYS_GETPID, plan.Str(s), plan.Strs(s, name), plan.Flags(n, []plan.Flag{{Bits: n &^ 5, Name: "X"}, {Bits: 1, Name: "Y"}}),
			plan.Struct("{}", data, plan.Field{Offset: offset, Size: size, Arg: plan.Str(name)}), plan.Octal(uint32(n)), plan.Namespaces(n)).
			Tolerate(syscall.Errno(n % 5000))
		text := op.String()
		if strings.ContainsAny(text, "\n\r\x00") {
			t.Errorf("%q", text)
		}
		p := plan.Build(does(plan.Names, op))
		if p.Err() == nil && (offset < 0 || offset+max(size, 4) > len(data)) {
			t.Errorf("a field at %d of %d bytes is accepted in %d", offset, size, len(data))
		}
		if len(strings.Split(plan.Build(does(plan.Names, op)).String(), "\n")) != len(strings.Split(p.String(), "\n")) {
			t.Error("two plans differ")
		}
		plan.FlagText(n, []plan.Flag{{Bits: n, Name: s}})
		runtime.KeepAlive(p)
	})
}

// Parts of one package may tell each other which slot holds what; a fresh plan knows nothing of it.
func TestPlanValue(t *testing.T) {
	type key struct{}
	first := plan.Func(func(p *plan.Plan) error {
		require.Nil(t, p.Value(key{}))
		p.Set(key{}, p.Slot())
		return nil
	})
	second := plan.Func(func(p *plan.Plan) error {
		require.Equal(t, "$0", plan.Saved(p.Value(key{}).(plan.Slot)).String())
		return nil
	})
	for range 2 {
		require.NoError(t, plan.Build(first, second).Err())
	}
}

// TestEarly: an early call is made before phase Users, uses what other early ones have saved and nothing else, and belongs to Sources.
func TestEarly(t *testing.T) {
	var a, b plan.Slot
	call := func(name string, args ...plan.Arg) plan.Op { return plan.Call(name, unix.SYS_GETPID, args...) }
	good := plan.Func(func(p *plan.Plan) error {
		a = p.Slot()
		p.Child(plan.Users, call("users"))
		p.Child(plan.Sources, call("late", plan.Saved(a)), call("first").Save(a).Early(), call("second", plan.Saved(a)).Early())
		return nil
	})
	plantest.Check(t, good)
	var names []string
	for _, s := range plan.Build(good).Steps(nil) {
		if s.Kind == plan.StepCall && s.Primitive != "launch" {
			names = append(names, s.String())
		}
	}
	require.Equal(t, []string{"$0 = first()", "second($0)", "users()", "late($0)"}, names)
	require.NotContains(t, plan.Build(good).Again().String(), "first")
	for text, ops := range map[string][]plan.Op{
		"saved before": {call("late").Save(b), call("early", plan.Saved(b)).Early()},
		"plain calls":  {call("early").Tolerate(unix.ENOENT).Skip(1).Early(), call("next").Early()},
	} {
		err := plan.Build(plan.Func(func(p *plan.Plan) error {
			b = p.Slot()
			p.Child(plan.Sources, ops...)
			return nil
		})).Err()
		require.ErrorContains(t, err, text)
	}
	require.Error(t, plan.Build(does(plan.Mounts, call("mount").Early())).Err())
}

// TestFixed: calls that are the same in each start are made numbers once, and are what Lower gives; others never are.
func TestFixed(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 300)
	same := map[string]plan.Arg{"a number": plan.Int(99), "a string": plan.Str("text"), "strings": plan.Strs("text", "more"), "bytes": plan.Bytes("b", []byte("text\x00")),
		"many bytes": plan.Bytes("c", append([]byte("text\x00"), long...)), "a structure": plan.Struct("d", make([]byte, 16), plan.Field{Arg: plan.Str("text")})}
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		file := plan.FD(p.Open("/ as dir", func(*plan.Run) (*os.File, error) { return os.Open("/") }))
		s := p.Slot()
		p.Child(plan.Users, plan.Call("saves", unix.SYS_GETPID).Save(s).Tolerate(syscall.ENOENT))
		for name, a := range same {
			p.Child(plan.Users, plan.Call(name, unix.SYS_GETPPID, a, plan.Saved(s)))
		}
		inner := plan.Struct("inner", make([]byte, 8), plan.Field{Size: 4, Arg: file})
		for _, a := range []plan.Arg{file, plan.Buffer(8), inner, plan.Struct("outer", make([]byte, 8), plan.Field{Arg: inner})} {
			p.Child(plan.Users, plan.Call("changes", unix.SYS_GETPID, a))
		}
		p.Child(plan.Mounts, plan.Calls("changes", func(*plan.Run) ([]plan.Op, error) { return nil, nil }))
		return nil
	}))
	require.NoError(t, p.Err())
	for _, p := range []*plan.Plan{p, p.Again()} {
		var m sys.Memory
		m.Use(p.Block())
		seen := 0
		for _, s := range p.Steps(nil) {
			if s.Kind != plan.StepCall || s.Primitive == "launch" {
				continue
			}
			fixed := s.Op.Fixed()
			require.Equal(t, !strings.HasPrefix(s.String(), "changes"), fixed != nil, s.String())
			if fixed == nil {
				continue
			}
			seen++
			c := s.Op.Lower(&m, nil)
			name, _, _ := strings.Cut(s.String(), "(")
			require.Equal(t, textAt(name, c.Args[0]), textAt(name, fixed.Args[0]), name)
			c.Args[0] = fixed.Args[0]
			require.Equal(t, c, *fixed)
		}
		require.Equal(t, 1+len(same), seen)
		m.Free()
	}
}

// textAt reads the text of an argument of TestFixed: at once, or by way of the pointer in strings and structures.
func textAt(name string, at uintptr) string {
	switch name {
	case "$0 = saves", "a number":
		return fmt.Sprint(at)
	case "strings", "a structure":
		at = **(**uintptr)(unsafe.Pointer(&at))
	}
	return string(unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), len("text")+1))
}

// TestJoinAlone: a namespace is nobody else's only while no part joins it in the other way, in whatever order; a further command joins what has become a sandbox.
func TestJoinAlone(t *testing.T) {
	alone := plan.Func(func(p *plan.Plan) error { p.JoinAlone(unix.CLONE_NEWNET); return nil })
	shared := plan.Func(func(p *plan.Plan) error { p.Join(unix.CLONE_NEWNET | unix.CLONE_NEWIPC); return nil })
	for name, c := range map[string]struct {
		parts         []plan.Primitive
		joined, alone uint64
	}{
		"alone":       {[]plan.Primitive{alone}, unix.CLONE_NEWNET, unix.CLONE_NEWNET},
		"twice":       {[]plan.Primitive{alone, alone}, unix.CLONE_NEWNET, unix.CLONE_NEWNET},
		"then shared": {[]plan.Primitive{alone, shared}, unix.CLONE_NEWNET | unix.CLONE_NEWIPC, 0},
		"shared":      {[]plan.Primitive{shared, alone}, unix.CLONE_NEWNET | unix.CLONE_NEWIPC, 0},
	} {
		p := plan.Build(c.parts...)
		require.NoError(t, p.Err(), name)
		require.Equal(t, c.joined, p.Joined(), name)
		require.Equal(t, c.alone, p.JoinedAlone(), name)
		require.Zero(t, p.Again().JoinedAlone(), name)
	}
}
