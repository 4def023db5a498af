package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// output starts the plan with a shell command and gives what it printed.
func output(t *testing.T, opt Options, p *plan.Plan, script string) string {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd := &plan.Command{Candidates: []string{"/nonexistent/sh", "/bin/sh"}, Args: []string{"sh", "-c", script}, Env: os.Environ(),
		Files: []*os.File{nil, w, os.Stderr}}
	proc, err := Start(context.Background(), p, cmd, opt)
	w.Close()
	require.NoError(t, err)
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	var ws unix.WaitStatus
	_, err = unix.Wait4(proc.PID, &ws, 0, nil)
	require.NoError(t, err)
	require.NoError(t, proc.Release())
	return string(out)
}

var ways = map[string]Options{
	"vfork":          {},
	"vfork by clone": {NoClone3: true},
	"fork":           {NoVfork: true},
	"fork by clone":  {NoVfork: true, NoClone3: true},
}

func TestStart(t *testing.T) {
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "42\n", output(t, opt, plan.Build(), "echo $((6*7))"))
		})
	}
}

func TestServed(t *testing.T) {
	var ns uint64 = unix.CLONE_NEWPID | unix.CLONE_NEWUSER
	skipWithoutUserNamespaces(t, errors.New("asked first"))
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			p := plan.Build(clone(ns), dies(), served(mapRoot))
			out := strings.Fields(output(t, opt, p, "echo $$; cat /proc/self/uid_map"))
			require.Equal(t, []string{"1", "0", strconv.Itoa(os.Geteuid()), "1"}, out)
		})
	}
}

func TestJoin(t *testing.T) {
	needRoot(t)
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			p := plan.Build(joinOwn("pid"), clone(unix.CLONE_NEWUTS), dies(), served(func(r *plan.Run) error {
				require.NotZero(t, r.PID)
				return syscall.Kill(r.PID, 0)
			}))
			require.Equal(t, "hi\n", output(t, opt, p, "echo hi"))
		})
	}
}

// TestEveryStepFails: each step, made to fail, is the one that the error names, and nothing is left behind.
func TestEveryStepFails(t *testing.T) {
	needRoot(t)
	for _, twice := range []bool{false, true} {
		parts := []plan.Primitive{clone(unix.CLONE_NEWUTS | unix.CLONE_NEWNS), dies(), nobody(), takes(plan.Mounts, "/", func(_ *plan.Run, f *os.File) error { return f.Close() }), part(func(p *plan.Plan) {
			f := p.Open(`"/" as root`, func(*plan.Run) (*os.File, error) { return os.Open("/") })
			s := p.Slot()
			p.Child(plan.Sources, plan.Call("dup", unix.SYS_DUP, plan.FD(f)).Save(s), plan.Call("close", unix.SYS_CLOSE, plan.Saved(s)))
		})}
		if twice {
			parts = append(parts, joinOwn("pid"))
		}
		for name, opt := range ways {
			t.Run(fmt.Sprintf("%s, two children %t", name, twice), func(t *testing.T) { everyStepFails(t, opt, parts) })
		}
	}
}

func everyStepFails(t *testing.T, opt Options, parts []plan.Primitive) {
	unchanged(t)
	begun, undone := 0, 0
	count := plan.Action{Name: "count", Do: func(*plan.Run) error { begun++; return nil }, Undo: func(*plan.Run) error { undone++; return nil }}
	p := plan.Build(append(parts, part(func(p *plan.Plan) {
		p.Before(count)
		p.While(count)
		p.While(count)
	}))...)
	cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{os.Stdin, nil, os.Stdout}, Dir: "/"}
	steps := p.Steps(cmd)
	for k, st := range steps {
		if st.Kind == plan.StepClone {
			continue
		}
		opt.Fault = k + 1
		_, err := Start(context.Background(), p, cmd, opt)
		var e *plan.Error
		require.ErrorAs(t, err, &e, "%d %v", k+1, st)
		require.Equal(t, k+1, e.Step, err)
		require.Equal(t, len(steps), e.Steps)
		require.Equal(t, st.Primitive, e.Primitive)
		require.Equal(t, st.String(), e.Call)
		require.ErrorIs(t, err, syscall.EBADF)
		require.Equal(t, begun, undone, "%v", err)
	}
	require.NotZero(t, undone)
}
