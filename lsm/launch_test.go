package lsm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
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

// TestLabelCost: what a module that is enabled does itself for a label takes less than a millisecond, also in an emulated machine, which is ten times slower than a real one or more; the
// calls that ask for it BenchmarkChange measures on any kernel. What is executed is of no known format: the module decides before the kernel finds that out. bench/lsm says more.
func TestLabelCost(t *testing.T) {
	label := [2]string{}
	switch m, err := Active(); {
	case os.Geteuid() != 0:
		t.Skip("needs root to choose a label")
	case err == nil && m.Has("selinux") && CheckContext(container) == nil:
		label = [2]string{"attr/exec", container.String()}
	case err == nil && m.Has("apparmor"):
		p := Profile{Name: "caisson-cost", Files: []FileRule{{}}, Signals: []SignalRule{{}}}
		if err := p.Load(t.Context()); errors.Is(err, errors.ErrUnsupported) {
			t.Skip("needs apparmor_parser: ", err)
		} else {
			require.NoError(t, err)
		}
		defer RemoveProfile(p.Name)
		label = [2]string{"attr/apparmor/exec", "exec " + p.Name}
	default:
		t.Skip("needs AppArmor, or SELinux and a policy with container_t")
	}
	none := filepath.Join(t.TempDir(), "none")
	require.NoError(t, os.WriteFile(none, []byte("no program\n"), 0o755))
	var times [2][]time.Duration
	done := make(chan error)
	go func() { // on a thread that is thrown away, with the label that it has asked for
		runtime.LockOSThread()
		var err error
		for i := 0; i < 20 && err == nil; i++ {
			begin := time.Now()
			for k := 0; k < 100 && err == nil; k++ {
				err = askAndExecute([2][2]string{{"comm", "label"}, label}[i%2], none)
			}
			times[i%2] = append(times[i%2], time.Since(begin)/100)
		}
		done <- err
	}()
	require.NoError(t, <-done)
	calls, with := slices.Min(times[0]), slices.Min(times[1]) // what else the machine does touches these least
	t.Logf("the calls and an execve take %v, and with a label %v", calls, with)
	require.Less(t, with-calls, time.Millisecond)
}

func askAndExecute(ask [2]string, none string) error {
	f, err := os.OpenFile("/proc/thread-self/"+ask[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeAll(f, []byte(ask[1])); err != nil {
		return err
	}
	if err := unix.Exec(none, []string{none}, nil); err != unix.ENOEXEC {
		return err
	}
	return nil
}
