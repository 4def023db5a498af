package netstack_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/plan"
)

// source sends bytes to who connects.
func source(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		c.Write(make([]byte, n))
		c.Close()
	}
}

// drain reads them, and prints how many milliseconds that takes after the first.
func drain(args []string) error {
	c, err := net.DialTimeout("tcp", args[0], dialTime)
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	b, n, begin := make([]byte, 64<<10), 0, time.Now()
	for {
		k, err := c.Read(b)
		if n += k; err != nil {
			break
		}
	}
	fmt.Println(n, time.Since(begin).Milliseconds())
	return nil
}

// took starts a sandbox that reads from another one, and gives the bytes per second.
func took(h *world, parts ...plan.Primitive) float64 {
	h.t.Helper()
	var n, ms int
	text := h.run("drain", []string{"10.77.0.2:80"}, parts...)
	_, err := fmt.Sscan(text, &n, &ms)
	require.NoError(h.t, err, text)
	return float64(n) * 1000 / float64(max(ms, 1))
}

// about compares rates. A slow machine may stay below a limit, but not exceed it.
func about(t testing.TB, want, got float64) {
	t.Helper()
	require.Less(t, got, 1.15*want)
	if os.Getenv("CAISSON_SLOW") == "" {
		require.Greater(t, got, 0.85*want)
	}
}

// TestBandwidth: what a sandbox receives, and what one sends, is as much as was said. Of 1514 bytes of a frame 1448 are the program's.
func TestBandwidth(t *testing.T) {
	const rate = 4_000_000
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		server := h.start("source", []string{":80", "2000000"}, b)
		require.Greater(t, took(h, b), 2.5*rate, "without a limit")
		limited := b
		limited.Bandwidth.Receive.Bytes = rate
		about(t, rate*1448/1514, took(h, limited))

		err := netstack.Bandwidth{Send: netstack.Rate{Bytes: rate}}.Set(server.p.PID)
		if errors.Is(err, errors.ErrUnsupported) {
			require.NotContains(t, strings.Join(h.devices(), " "), "+")
			_, err := h.try("look", nil, netstack.Bridge{State: h.state, Bandwidth: netstack.Bandwidth{Send: netstack.Rate{Bytes: rate}}})
			require.ErrorIs(t, err, errors.ErrUnsupported)
			t.Logf("sending is not limited here: %v", err)
		} else {
			require.NoError(t, err)
			about(t, rate*1448/1514, took(h, b))
			require.NoError(t, netstack.Bandwidth{Send: netstack.Rate{Bytes: netstack.NoLimit}}.Set(server.p.PID))
			require.NotContains(t, strings.Join(h.devices(), " "), "+")
		}
		require.NoError(t, netstack.Bandwidth{Receive: netstack.Rate{Bytes: rate}}.Set(server.p.PID))
		require.NoError(t, netstack.Bandwidth{Receive: netstack.Rate{Bytes: netstack.NoLimit}}.Set(server.p.PID))
		require.Greater(t, took(h, b), 2.5*rate, "again")
		require.ErrorIs(t, netstack.Bandwidth{}.Set(os.Getpid()), syscall.ENODEV)
	})
}

func TestBandwidthValues(t *testing.T) {
	for _, r := range []netstack.Rate{{Bytes: 999}, {Bytes: 1 << 32}, {Bytes: -2}, {Burst: 1999}, {Burst: -1}, {Burst: 1 << 31}} {
		require.ErrorIs(t, netstack.Bandwidth{Receive: r}.Set(1), syscall.EINVAL)
		require.ErrorIs(t, netstack.Bridge{Bandwidth: netstack.Bandwidth{Send: r}}.Create(), syscall.EINVAL)
	}
}
