package lsm

import (
	"context"
	"errors"
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

// likeChange is the same calls as for a label, on a file of /proc that every kernel has.
func likeChange(p *plan.Plan) error {
	change{module: "none", ask: "comm", current: "comm", request: "label", want: "label", same: func(have, want string) bool { return have == want || have == "true" }}.record(p, here())
	return nil
}

// typical starts the plans in turns, and gives the means of the middle halves of the times: some clocks of the kernel lane go in steps of 4 ms.
func typical(t testing.TB, rounds int, plans ...*plan.Plan) []time.Duration {
	t.Helper()
	times := make([][]time.Duration, len(plans))
	for range rounds {
		for i, p := range plans {
			cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}
			begin := time.Now()
			proc, err := launch.Start(context.Background(), p, cmd, launch.Options{})
			times[i] = append(times[i], time.Since(begin))
			require.NoError(t, err)
			unix.Wait4(proc.PID, nil, 0, nil)
			require.NoError(t, proc.Release())
		}
	}
	all := make([]time.Duration, len(plans))
	for i := range times {
		slices.Sort(times[i])
		middle := times[i][rounds/4 : rounds-rounds/4]
		for _, t := range middle {
			all[i] += t / time.Duration(len(middle))
		}
	}
	return all
}

// BenchmarkChange is what a label adds to a start, on a kernel that has none.
func BenchmarkChange(b *testing.B) {
	for b.Loop() {
		m := typical(b, 500, plan.Build(), plan.Build(plan.Func(likeChange)))
		b.ReportMetric(float64(m[0].Microseconds()), "µs-without")
		b.ReportMetric(float64(m[1].Microseconds()), "µs-with")
	}
}

// TestLabelCost: a module that is enabled takes no longer for a label than the calls take that ask for it, which BenchmarkChange measures on any kernel.
func TestLabelCost(t *testing.T) {
	var label plan.Primitive
	switch m, err := Active(); {
	case os.Geteuid() != 0:
		t.Skip("needs root to choose a label")
	case err == nil && m.Has("selinux") && CheckContext(container) == nil:
		label = SELinux{Process: container}
	case err == nil && m.Has("apparmor"):
		p := Profile{Name: "caisson-cost", Files: []FileRule{{}}, Signals: []SignalRule{{}}}
		if err := p.Load(t.Context()); errors.Is(err, errors.ErrUnsupported) {
			t.Skip("needs apparmor_parser: ", err)
		} else {
			require.NoError(t, err)
		}
		defer RemoveProfile(p.Name)
		label = AppArmor(p.Name)
	default:
		t.Skip("needs AppArmor, or SELinux and a policy with container_t")
	}
	m := typical(t, 40, plan.Build(), plan.Build(plan.Func(likeChange)), plan.Build(label))
	t.Logf("a start takes %v, %v with the calls, and %v with the label", m[0], m[1], m[2])
	require.Less(t, m[2]-m[1], m[0]/2)
}
