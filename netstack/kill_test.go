package netstack_test

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
		other.Process.Signal(syscall.SIGSTOP) // or its own devices come and go
		time.Sleep(time.Millisecond)
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
