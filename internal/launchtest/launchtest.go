//go:build linux

// Package launchtest starts shells in sandboxes, for the tests of the packages that make their parts.
package launchtest

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// Isolated gives pid and ipc namespaces, and a user namespace where the test has no privilege.
var Isolated plan.Primitive = plan.Func(func(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWPID | unix.CLONE_NEWIPC)
	if os.Geteuid() == 0 {
		return nil
	}
	return WithUser(p)
})

// WithUser maps root inside to the caller.
func WithUser(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWUSER)
	p.While(plan.Action{Name: "write id maps", Do: func(r *plan.Run) error {
		dir := "/proc/" + plan.Int(r.PID).String() + "/"
		for _, f := range [][2]string{{"setgroups", "deny"}, {"gid_map", "0 " + plan.Int(os.Getegid()).String() + " 1"},
			{"uid_map", "0 " + plan.Int(os.Geteuid()).String() + " 1"}} {
			if err := os.WriteFile(dir+f[0], []byte(f[1]), 0); err != nil {
				return err
			}
		}
		return nil
	}})
	return nil
}

// Start runs a shell with the parts, isolated, to its end, and gives what it has printed. The error is that of the start.
func Start(t testing.TB, script string, parts ...plan.Primitive) (string, error) {
	t.Helper()
	return StartPlan(t, script, plan.Build(append([]plan.Primitive{Isolated}, parts...)...))
}

// StartPlan is Start with nothing but the plan.
func StartPlan(t testing.TB, script string, built *plan.Plan) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	p, err := launch.Start(context.Background(), built, shell(script, nil, w), launch.Options{})
	w.Close()
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	end(t, p)
	return string(out), nil
}

// Run is Start where the start has to succeed.
func Run(t testing.TB, script string, parts ...plan.Primitive) string {
	t.Helper()
	out, err := Start(t, script, parts...)
	require.NoError(t, err)
	return out
}

func shell(script string, in, out *os.File) *plan.Command {
	return &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Env: os.Environ(), Files: []*os.File{in, out, out}}
}

func end(t testing.TB, p *launch.Process) {
	t.Helper()
	var ws unix.WaitStatus
	_, err := unix.Wait4(p.PID, &ws, 0, nil)
	require.NoError(t, err)
	require.NoError(t, p.Release())
}

// Pipe has two ends.
type Pipe struct{ R, W *os.File }

// Pipes gives the standard input and output of a sandbox.
func Pipes(t testing.TB) (in, out Pipe) {
	t.Helper()
	for _, p := range []*Pipe{&in, &out} {
		var err error
		p.R, p.W, err = os.Pipe()
		require.NoError(t, err)
		t.Cleanup(func() { p.R.Close(); p.W.Close() })
	}
	return in, out
}

// StartWaiting starts a shell and gives what waits for its end.
func StartWaiting(t testing.TB, in, out Pipe, script string, parts ...plan.Primitive) (wait func()) {
	t.Helper()
	p, err := launch.Start(context.Background(), plan.Build(append([]plan.Primitive{Isolated}, parts...)...), shell(script, in.R, out.W), launch.Options{})
	out.W.Close()
	require.NoError(t, err)
	return func() { end(t, p) }
}

// FirstBytes reads so many bytes of the output.
func FirstBytes(t testing.TB, out Pipe, n int) string {
	t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(out.R, b)
	require.NoError(t, err)
	return string(b)
}

// KernelAtLeast reports whether the running kernel is of this release or a later one.
func KernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	require.NoError(t, unix.Uname(&u))
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	require.NoError(t, err)
	return a > major || a == major && b >= minor
}
