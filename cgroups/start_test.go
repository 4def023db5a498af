package cgroups_test

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/cgroups"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// started is a shell script that runs in a sandbox of the parts.
type started struct {
	t *testing.T
	p *launch.Process
	q *plan.Plan
	r *os.File

	ended bool
}

// begin starts a script.
func begin(t *testing.T, script string, parts ...plan.Primitive) (*started, error) {
	t.Helper()
	return beginPlan(t, plan.Build(parts...), launch.Options{}, script)
}

func beginPlan(t *testing.T, q *plan.Plan, opt launch.Options, script string) (*started, error) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd := &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Env: os.Environ(), Files: []*os.File{nil, w, w}}
	p, err := launch.Start(context.Background(), q, cmd, opt)
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	s := &started{t: t, p: p, q: q, r: r}
	t.Cleanup(func() { // after a failure
		if !s.ended {
			unix.Kill(p.PID, unix.SIGKILL)
			s.wait()
		}
	})
	return s, nil
}

// end waits, and gives what was printed and the result.
func (s *started) end() (string, plan.Result) {
	s.t.Helper()
	var out bytes.Buffer
	_, err := out.ReadFrom(s.r)
	require.NoError(s.t, err)
	s.r.Close()
	return out.String(), s.wait()
}

func (s *started) wait() (r plan.Result) {
	s.t.Helper()
	s.ended = true
	var ws unix.WaitStatus
	_, err := unix.Wait4(s.p.PID, &ws, 0, nil)
	require.NoError(s.t, err)
	if ws.Exited() {
		r.Reason, r.ExitCode = plan.Exited, ws.ExitStatus()
	} else {
		r.Reason, r.Signal = plan.Signaled, ws.Signal()
	}
	s.q.Observed(s.p.Run, &r)
	require.NoError(s.t, s.p.Release())
	return r
}

// group opens the group of what runs.
func (s *started) group() *cgroups.Group {
	s.t.Helper()
	g, err := cgroups.Of(s.p.PID)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { g.Close() })
	return g
}

func run(t *testing.T, script string, parts ...plan.Primitive) (string, plan.Result) {
	t.Helper()
	s, err := begin(t, script, parts...)
	require.NoError(t, err)
	return s.end()
}

// root skips tests that make groups where the caller may not.
func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the caller's group has not been delegated to an ordinary user")
	}
}

// make makes a group that is removed after the test.
func create(t *testing.T, l cgroups.Limits) *cgroups.Group {
	t.Helper()
	root(t)
	own, err := cgroups.Own()
	require.NoError(t, err)
	defer own.Close()
	g, err := own.Create("caisson-test-"+t.Name(), l)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Delete()) })
	return g
}

func TestStart(t *testing.T) {
	root(t)
	out, r := run(t, "cat /proc/self/cgroup; head -c 4000000 /dev/zero | tail -c 3000000 >/dev/null", cgroups.Limits{Memory: 64 * cgroups.MiB, PIDs: 10, CPUs: 1})
	require.Equal(t, plan.Exited, r.Reason)
	require.Contains(t, out, "caisson-")
	require.Greater(t, r.MemoryPeak, int64(1<<20))
	require.Greater(t, r.CPUTime, time.Duration(0))
	require.EqualValues(t, 3, r.PIDsPeak)
}
