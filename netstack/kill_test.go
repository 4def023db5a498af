package netstack_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack"
)

// TestKilled kills a host process at a random moment, again and again. The next start removes what it has left, and nothing of those who live: another process with sandboxes of its own, and
// the test itself.
func TestKilled(t *testing.T) {
	rounds := 8
	if os.Getenv("CAISSON_SLOW") != "" {
		rounds = 4
	}
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		h.start("serve", []string{":80", "still here"}, b)
		other, ready := begin(t, h)
		require.Equal(t, "ready\n", ready)
		defer end(other)
		for range rounds {
			dead, ready := begin(t, h)
			require.Equal(t, "ready\n", ready)
			time.Sleep(time.Duration(rand.IntN(12000)) * time.Microsecond)
			end(dead)
			require.NoError(t, netstack.Sweep(h.state))
			require.LessOrEqual(t, owners(t, h), 2, "the test's and the other's")
			require.Equal(t, "still here", answers(h))
		}
		stop(t, h, other) // or its own devices come and go
		require.Equal(t, 2, owners(t, h))
		held, err := b.Names()
		require.NoError(t, err)
		leases := map[string]int{}
		for _, l := range held {
			leases[l.Owner]++
		}
		require.LessOrEqual(t, len(leases), 2)
		other.Process.Signal(syscall.SIGCONT)
		end(other)
		require.NoError(t, netstack.Sweep(h.state))
		require.Equal(t, 1, owners(t, h))
		require.Equal(t, "still here", answers(h))
		held, err = b.Names()
		require.NoError(t, err)
		require.Len(t, held, 2)
	})
}

// begin starts a process that starts sandboxes.
func begin(t *testing.T, h *world) (*exec.Cmd, string) {
	t.Helper()
	c := exec.Command(self(), h.state)
	c.Env = append(os.Environ(), "NETSTACK_TEST=victim")
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	c.Stderr = os.Stderr
	require.NoError(t, c.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return c, line
}

func end(c *exec.Cmd) {
	c.Process.Kill()
	c.Wait()
}

// stop stops a process at a moment at which it does not hold the lock of a pool: whoever asks for the pool would wait for it for ever.
func stop(t *testing.T, h *world, c *exec.Cmd) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
		require.NoError(t, c.Process.Signal(syscall.SIGSTOP))
		for !still(t, c.Process.Pid) {
			require.Less(t, time.Since(begin), 10*time.Second, "it does not stop")
			time.Sleep(time.Millisecond)
		}
		if poolsFree(t, h) {
			return
		}
		require.NoError(t, c.Process.Signal(syscall.SIGCONT))
	}
	t.Fatal("it always holds the lock of a pool")
}

// still reports whether no thread of a process that was told to stop will do anything more: one that waits for the child of a vfork(2) will not, whose child waits for another of the threads.
func still(t *testing.T, pid int) bool {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	require.NoError(t, err)
	require.NotEmpty(t, tasks)
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		_, rest, found := strings.Cut(string(b), ") ")
		if err != nil || !found || rest[0] != 'T' && rest[0] != 'D' {
			return false
		}
	}
	return true
}

func poolsFree(t *testing.T, h *world) bool {
	locks, err := filepath.Glob(filepath.Join(h.state, "*/pools/*/lock"))
	require.NoError(t, err)
	require.NotEmpty(t, locks)
	for _, name := range locks {
		f, err := os.Open(name)
		require.NoError(t, err)
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		f.Close()
		if err != nil {
			return false
		}
	}
	return true
}

// owners counts the owners of the host's devices.
func owners(t *testing.T, h *world) int {
	t.Helper()
	seen := map[string]bool{}
	for _, d := range h.devices() {
		if strings.HasPrefix(d, "cs") {
			seen[d[:8]] = true
		}
	}
	return len(seen)
}

func answers(h *world) string {
	c := exec.Command(self(), "10.77.0.2:80")
	c.Env = append(os.Environ(), "NETSTACK_TEST=dial")
	out, _ := c.CombinedOutput()
	text, _, _ := strings.Cut(string(out), " 10.")
	return text
}

// TestNextStartSweeps: what a killed process has left goes with the next start of another process.
func TestNextStartSweeps(t *testing.T) {
	host(t, func(h *world) {
		dead, _ := begin(t, h)
		end(dead)
		require.NotEmpty(t, h.devices())
		h.start("wait", nil, netstack.Bridge{State: h.state})
		require.Equal(t, 1, owners(t, h))
	})
}
