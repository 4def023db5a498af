package lsm

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// launchSimulated starts a command by a plan of a simulated host, and ends it.
func launchSimulated(t *testing.T, parts ...plan.Primitive) (*launch.Process, error) {
	t.Helper()
	cmd := &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "100"}, Files: []*os.File{nil, nil, nil}}
	p, err := launch.Start(context.Background(), plan.Build(parts...), cmd, launch.Options{})
	if err != nil {
		return nil, err
	}
	require.NoError(t, unix.Kill(p.PID, unix.SIGKILL))
	_, err = unix.Wait4(p.PID, nil, 0, nil)
	require.NoError(t, err)
	return p, p.Release()
}

// BenchmarkChange is what a label adds to a start, on a kernel that has none: the same calls on another file of /proc. Starts with and without it take turns;
// the median of the difference is what counts.
func BenchmarkChange(b *testing.B) {
	c := change{module: "none", ask: "comm", current: "comm", request: "label", want: "label", same: func(have, want string) bool { return have == want || have == "true" }}
	plans := [2]*plan.Plan{plan.Build(), plan.Build(plan.Func(func(p *plan.Plan) error {
		c.record(p, here())
		return nil
	}))}
	var times [2][]time.Duration
	for b.Loop() {
		for i, p := range plans {
			cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}
			begin := time.Now()
			proc, err := launch.Start(context.Background(), p, cmd, launch.Options{})
			times[i] = append(times[i], time.Since(begin))
			require.NoError(b, err)
			unix.Wait4(proc.PID, nil, 0, nil)
			require.NoError(b, proc.Release())
		}
	}
	for i := range times {
		slices.Sort(times[i])
	}
	half := len(times[0]) / 2
	b.ReportMetric(float64(times[0][half].Microseconds()), "µs-without")
	b.ReportMetric(float64(times[1][half].Microseconds()), "µs-with")
}
