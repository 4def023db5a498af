package netstack_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/plan"
)

// TestNothingLeft: after many starts there are the same descriptors and goroutines, no threads in other networks, and no files but locks that are free.
func TestNothingLeft(t *testing.T) {
	host(t, func(h *world) {
		outside(h, "world")
		q := plan.Build(netstack.Bridge{State: h.state, Masquerade: true}, netstack.Veth{State: h.state}, netstack.Move{Device: "up0"})
		rounds := func(n int) {
			for range n {
				p, err := startTrue(q)
				require.NoError(t, err)
				require.NoError(t, finish(p))
			}
		}
		rounds(2)
		fds, routines := descriptors(t), runtime.NumGoroutine()
		rounds(8)
		require.LessOrEqual(t, descriptors(t), fds)
		begin := time.Now()
		for runtime.NumGoroutine() > routines && time.Since(begin) < 2*time.Second { // one may have done its last work and not be gone
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, runtime.NumGoroutine(), routines)
		for len(threadsElsewhere(t)) > 1 && time.Since(begin) < 2*time.Second { // a thread ends somewhat after its goroutine
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, len(threadsElsewhere(t)), 1, "but for the test's own")
		for _, pattern := range []string{"*/owners/*", "*/pools/*/leases/*"} {
			left, err := filepath.Glob(filepath.Join(h.state, pattern))
			require.NoError(t, err)
			require.Empty(t, left)
		}
		require.ElementsMatch(t, []string{"caisson0", "up0"}, h.devices())
	})
}

func descriptors(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(all)
}

// threadsElsewhere are the networks of threads that are not in the process's.
func threadsElsewhere(t *testing.T) map[string]int {
	home, err := os.Readlink("/proc/self/ns/net")
	require.NoError(t, err)
	others := map[string]int{}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	require.NoError(t, err)
	for _, f := range tasks {
		if n, err := os.Readlink(f); err == nil && n != home {
			others[n]++
		}
	}
	return others
}
