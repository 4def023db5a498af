package launch

import (
	"context"
	"io"
	"os"
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
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			p := plan.Build(plan.Func(func(p *plan.Plan) error {
				p.Clone(ns)
				p.DieWithParent()
				p.While(plan.Action{Name: "write uid_map", Do: func(r *plan.Run) error {
					return os.WriteFile("/proc/"+plan.Int(r.PID).String()+"/uid_map", []byte("0 0 1"), 0)
				}})
				return nil
			}))
			out := strings.Fields(output(t, opt, p, "echo $$; cat /proc/self/uid_map"))
			require.Equal(t, []string{"1", "0", "0", "1"}, out)
		})
	}
}

func TestJoin(t *testing.T) {
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			p := plan.Build(plan.Func(func(p *plan.Plan) error {
				ns := p.Open(`"/proc/self/ns/pid" as pidns`, func(*plan.Run) (*os.File, error) { return os.Open("/proc/self/ns/pid") })
				p.Join(unix.CLONE_NEWPID, plan.Call("setns", unix.SYS_SETNS, plan.FD(ns), plan.Int(unix.CLONE_NEWPID)))
				p.Clone(unix.CLONE_NEWUTS)
				p.DieWithParent()
				p.While(plan.Action{Name: "look", Do: func(r *plan.Run) error {
					require.NotZero(t, r.PID)
					return syscall.Kill(r.PID, 0)
				}})
				return nil
			}))
			require.Equal(t, "hi\n", output(t, opt, p, "echo hi"))
		})
	}
}

func TestEveryStepFails(t *testing.T) {
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Clone(unix.CLONE_NEWUTS | unix.CLONE_NEWNS)
		p.DieWithParent()
		f := p.Open(`"/" as root`, func(*plan.Run) (*os.File, error) { return os.Open("/") })
		p.While(plan.Action{Name: "nothing", Do: func(r *plan.Run) error { return nil }})
		s := p.Slot()
		p.Child(plan.Sources, plan.Call("dup", unix.SYS_DUP, plan.FD(f)).Save(s), plan.Call("close", unix.SYS_CLOSE, plan.Saved(s)))
		return nil
	}))
	cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Dir: "/"}
	n := len(p.Steps(cmd))
	t.Log("\n" + p.Text(cmd))
	for name, opt := range ways {
		for k := 1; k <= n; k++ {
			opt.Fault = k
			_, err := Start(context.Background(), p, cmd, opt)
			if p.Steps(cmd)[k-1].Kind == plan.StepClone {
				continue
			}
			var e *plan.Error
			require.ErrorAs(t, err, &e, "%s %d", name, k)
			require.Equal(t, k, e.Step, err)
			require.ErrorIs(t, err, syscall.EBADF)
		}
	}
}
