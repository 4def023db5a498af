package netstack_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

func TestPool(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		p, err := netstack.NewPool(2, b)
		require.NoError(t, err)
		plantest.Check(t, p)
		require.Len(t, h.devices(), 3)
		v := h.look(p)
		require.Equal(t, []string{"10.77.0.2/16", "fd77:ca15:50::2/64"}, v.Addresses["eth0"][:2])
		require.Equal(t, []string{"127.0.0.1/8", "::1/128"}, v.Addresses["lo"])
		h.start("serve", []string{":80", "hello"}, p, namespaces.User|namespaces.PID|namespaces.Mount, caps.Drop(caps.All))
		require.Regexp(t, `^hello 10\.77\.0\.[4-6]$`, withoutPort(h.run("dial", []string{"10.77.0.3:80"}, p)), "the next, or one made for it while that is not ready")
		for range 5 { // faster than they are made
			h.start("wait", nil, p)
		}
		require.NotContains(t, strings.Join(h.devices(), " "), "eth0")
		require.NoError(t, p.Close())
		held, err := b.Names()
		require.NoError(t, err)
		require.Len(t, held, 2*6, "those that run")
		_, err = h.try("wait", nil, p)
		require.ErrorIs(t, err, os.ErrClosed)
		for _, box := range h.running {
			box.stop()
		}
		require.Equal(t, []string{"caisson0"}, h.devices())
	})
}

func TestPoolRefuses(t *testing.T) {
	_, err := netstack.NewPool(1, netstack.Move{Device: "eth0"})
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = netstack.NewPool(1, netstack.Bridge{MTU: 1})
	require.ErrorIs(t, err, syscall.EINVAL)
	host(t, func(h *world) {
		_, err := netstack.NewPool(1, netstack.Macvlan{Parent: "none"})
		require.ErrorIs(t, err, syscall.ENODEV)
		p, err := netstack.NewPool(1, netstack.Bridge{State: h.state})
		require.NoError(t, err)
		defer p.Close()
		require.Error(t, plan.Build(p, netstack.Veth{}).Err())
		require.Error(t, plan.Build(p, namespaces.Net).Err())
	})
}

// TestPoolFills: the stock is filled up in the background, and tells why not.
func TestPoolFills(t *testing.T) {
	host(t, func(h *world) {
		p, err := netstack.NewPool(1, netstack.Bridge{State: h.state})
		require.NoError(t, err)
		defer p.Close()
		h.run("look", nil, p)
		for begin := time.Now(); ; time.Sleep(time.Millisecond) {
			n, err := p.Ready()
			require.NoError(t, err)
			if n == 1 {
				break
			}
			require.Less(t, time.Since(begin), 5*time.Second)
		}
	})
}
