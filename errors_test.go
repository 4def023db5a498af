package caisson_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/plan"
)

func waysToStart() map[string]caisson.LaunchOptions {
	return map[string]caisson.LaunchOptions{
		"vfork clone3": {},
		"vfork clone":  {NoClone3: true},
		"fork clone3":  {NoVfork: true},
		"fork clone":   {NoVfork: true, NoClone3: true},
	}
}

// journal is a part that notes what is done and undone.
type journal struct{ done, undone *[]string }

func newJournal() journal { return journal{new([]string), new([]string)} }

func (j journal) Apply(p *plan.Plan) error {
	for _, name := range []string{"one", "two", "three"} {
		p.Before(j.action("before " + name))
		p.While(j.action("while " + name))
	}
	return nil
}

func (j journal) action(name string) plan.Action {
	return plan.Action{Name: name,
		Do: func(*plan.Run) error {
			*j.done = append(*j.done, name)
			return nil
		},
		Undo: func(*plan.Run) error {
			*j.undone = append(*j.undone, name)
			return nil
		}}
}

// undoneInReverse checks and forgets.
func (j journal) undoneInReverse(t *testing.T) {
	t.Helper()
	slices.Reverse(*j.undone)
	require.Equal(t, *j.done, *j.undone)
	*j.done, *j.undone = nil, nil
}

// full is a sandbox with something of everything.
func full(t *testing.T, j journal) caisson.Sandbox {
	parts := []plan.Primitive{j, caisson.Umask(0o22), caisson.Nice(10), caisson.Affinity{0}, caisson.Session{}, caisson.DieWithParent{},
		caisson.Rlimit{Resource: caisson.RlimitCore}, caisson.Rlimit{Resource: caisson.RlimitNofile, Soft: 50, Hard: 50}}
	if os.Geteuid() == 0 {
		parts = append(parts, caisson.User{UID: 70000, GID: 70001, Groups: []uint32{5}})
	}
	return box(t, parts...)
}

// line is one line of a printed plan.
type line struct{ actor, call, primitive string }

func lines(t *testing.T, printed string) (all []line) {
	t.Helper()
	for text := range strings.Lines(printed) {
		text, primitive, ok := strings.Cut(strings.TrimSuffix(text, "\n"), "  # ")
		if !ok {
			primitive = "launch"
		}
		f := strings.Fields(text)
		require.Equal(t, fmt.Sprint(len(all)+1), f[0])
		_, call, _ := strings.Cut(text, f[1])
		all = append(all, line{f[1], strings.TrimSpace(call), primitive})
	}
	return all
}

// TestEveryStepFails makes each step of a plan fail, one after the other.
func TestEveryStepFails(t *testing.T) {
	for name, opt := range waysToStart() {
		t.Run(name, func(t *testing.T) {
			j := newJournal()
			s := full(t, j)
			everyStepFails(t, opt, j, func() *caisson.Cmd { return s.Command("/bin/true") }, true)
		})
	}
}

func TestEveryStepFailsWithInit(t *testing.T) {
	j := newJournal()
	s := full(t, j).With(caisson.Init{})
	(sandboxed(world{init: true}, s)).need(t)
	j.undoneInReverse(t)
	everyStepFails(t, caisson.LaunchOptions{}, j, func() *caisson.Cmd { return s.Command("/bin/true") }, true)
}

// TestEveryStepOfExecFails does so with a further command: the sandbox runs on.
func TestEveryStepOfExecFails(t *testing.T) {
	j := newJournal()
	first, in := waiting(t, full(t, j))
	*j.done, *j.undone = nil, nil // of the sandbox
	for name, opt := range waysToStart() {
		t.Run(name, func(t *testing.T) {
			everyStepFails(t, opt, j, func() *caisson.Cmd { return first.Process.Exec("/bin/true") }, false)
		})
	}
	require.NoError(t, in.Close())
	require.NoError(t, first.Wait())
}

func everyStepFails(t *testing.T, opt caisson.LaunchOptions, j journal, command func() *caisson.Cmd, childless bool) {
	t.Helper()
	make := func(fault int) *caisson.Cmd {
		c := command()
		c.Dir, c.ExtraFiles, c.Stdout = "/usr", []*os.File{nil, os.Stderr}, new(strings.Builder)
		opt.Fault = fault
		c.SetOptions(opt)
		return c
	}
	require.NoError(t, make(0).Run(), "without a fault")
	j.undoneInReverse(t)
	steps := lines(t, make(0).Plan())
	before := look(t)
	for k, want := range steps {
		err := make(k + 1).Run()
		var e *caisson.Error
		require.ErrorAs(t, err, &e, "%d %v", k+1, want)
		require.ErrorIs(t, err, syscall.EBADF)
		require.Equal(t, k+1, e.Step)
		require.Equal(t, len(steps), e.Steps)
		require.Equal(t, want.call, e.Call)
		require.Equal(t, want.primitive, e.Primitive)
		j.undoneInReverse(t)
		require.Equal(t, before.descriptors, descriptors(t), "%d %v", k+1, want)
		require.Equal(t, childless, noZombie(t))
	}
	before.unchanged(t)
	require.NoError(t, make(0).Run(), "and then without a fault again")
	j.undoneInReverse(t)
}

// TestUndoAfterTheEnd: a sandbox that has run is undone in the reverse order, and not before it has ended.
func TestUndoAfterTheEnd(t *testing.T) {
	j := newJournal()
	c, in := waiting(t, caisson.New(j))
	require.Equal(t, []string{"before one", "before two", "before three", "while one", "while two", "while three"}, *j.done)
	require.Empty(t, *j.undone)
	require.NoError(t, in.Close())
	require.NoError(t, c.Wait())
	require.Len(t, *j.undone, 6)
	j.undoneInReverse(t)
}

// TestErrorText: the error says it all on one line.
func TestErrorText(t *testing.T) {
	c := caisson.New(caisson.Umask(0o22)).Command("/bin/true")
	n := len(lines(t, c.Plan()))
	c.SetOptions(caisson.LaunchOptions{Fault: n})
	require.EqualError(t, c.Run(), fmt.Sprintf(`caisson: step %d of %d, launch: execve("/bin/true", ["/bin/true"]): bad file descriptor`, n, n))
	c = caisson.New(caisson.Umask(0o22)).Command("/bin/true")
	c.SetOptions(caisson.LaunchOptions{Fault: n - 1})
	require.EqualError(t, c.Run(), fmt.Sprintf(`caisson: step %d of %d, caisson.Umask: umask(022): bad file descriptor`, n-1, n))
}
