package netstack_test

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/plan"
)

// source sends bytes to who connects; who connects to the port after it is told a word.
func source(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	next, err := net.Listen("tcp", fmt.Sprint(":", l.Addr().(*net.TCPAddr).Port+1))
	if err != nil {
		return err
	}
	go serve(next, "here")
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

// about measures until the rate is as wanted. A slow or busy machine may stay below a limit, but never exceed it.
func about(h *world, want float64, parts ...plan.Primitive) {
	h.t.Helper()
	for try := 1; ; try++ {
		got := took(h, parts...)
		require.Less(h.t, got, 1.15*want)
		if got > 0.85*want || os.Getenv("CAISSON_SLOW") != "" {
			return
		}
		require.Less(h.t, try, 5, "%v instead of %v bytes per second", got, want)
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
		about(h, rate*1448/1514, limited)

		err := netstack.Bandwidth{Send: netstack.Rate{Bytes: rate}}.Set(server.p.PID)
		if errors.Is(err, errors.ErrUnsupported) {
			require.NotContains(t, strings.Join(h.devices(), " "), "+")
			_, err := h.try("look", nil, netstack.Bridge{State: h.state, Bandwidth: netstack.Bandwidth{Send: netstack.Rate{Bytes: rate}}})
			require.ErrorIs(t, err, errors.ErrUnsupported)
			t.Logf("sending is not limited here: %v", err)
		} else {
			require.NoError(t, err)
			about(h, rate*1448/1514, b)
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
	for _, r := range []netstack.Rate{{Bytes: 999}, {Bytes: 1 << 32}, {Bytes: -2}, {Bytes: 1000, Burst: 1999}, {Bytes: 1000, Burst: -1}, {Bytes: 1000, Burst: 1 << 31}, {Burst: 2000}, {Bytes: netstack.NoLimit, Burst: 2000},
		{Latency: 1}, {Bytes: 1000, Latency: -1}, {Bytes: 1 << 31, Latency: 2 * time.Second}} {
		require.ErrorIs(t, netstack.Bandwidth{Receive: r}.Set(1), syscall.EINVAL, "%+v", r)
		require.ErrorIs(t, netstack.Bridge{Bandwidth: netstack.Bandwidth{Send: r}}.Create(), syscall.EINVAL)
	}
	for _, d := range []netstack.Delay{{Time: -2}, {Time: time.Hour}, {Time: 5, Jitter: 6}, {Jitter: 1}, {Loss: -0.1}, {Loss: 1.1}, {Loss: math.NaN()}, {Time: netstack.NoLimit, Loss: 1}, {Time: netstack.NoLimit, Jitter: 1}} {
		require.ErrorIs(t, netstack.Bandwidth{ReceiveDelay: d}.Set(1), syscall.EINVAL, "%+v", d)
		require.ErrorIs(t, netstack.Bridge{Bandwidth: netstack.Bandwidth{SendDelay: d}}.Create(), syscall.EINVAL)
	}
}

// flood sends n packets of 1000 bytes at once, and says when.
func flood(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	c, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	for range n {
		c.Write(make([]byte, 1000)) // what is refused by a neighbour's ICMP has arrived
	}
	fmt.Println("ready")
	time.Sleep(time.Minute)
	return nil
}

// TestLatency: of what comes at once, as much waits as may wait for so long, and the rest is dropped and counted.
func TestLatency(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		slow := b
		slow.Bandwidth.Receive = netstack.Rate{Bytes: 10_000, Burst: 2000, Latency: time.Second}
		server := h.start("wait", nil, slow)
		h.start("flood", []string{"10.77.0.2:9", "200"}, b)
		var q []netstack.CardQueues
		var err error
		for range 1000 { // the first packet waits for the neighbour's address
			q, err = netstack.Queues(server.p.PID)
			require.NoError(t, err)
			if q[0].Receive.Dropped >= 40 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		require.Len(t, q, 1)
		require.Equal(t, "eth0", q[0].Card)
		require.Zero(t, q[0].Send)
		got := q[0].Receive
		require.GreaterOrEqual(t, got.Dropped, uint64(40), "%+v: 10,000 bytes may wait for a second, and 2,000 pass at once", got)
		require.NotZero(t, got.Packets)
		require.LessOrEqual(t, got.Waiting, uint64(12_000), "%+v", got)
		require.NoError(t, netstack.Bandwidth{Receive: netstack.Rate{Bytes: netstack.NoLimit}}.Set(server.p.PID))
		q, err = netstack.Queues(server.p.PID)
		require.NoError(t, err)
		require.Zero(t, q[0].Receive)
		_, err = netstack.Queues(os.Getpid())
		require.ErrorIs(t, err, syscall.ENODEV)
	})
}

// rtt prints how many microseconds the quickest of three connections took to be answered.
func rtt(args []string) error {
	best := dialTime
	for range 3 {
		begin := time.Now()
		c, err := net.DialTimeout("tcp", args[0], dialTime)
		if err != nil {
			return err
		}
		best = min(best, time.Since(begin))
		c.Close()
	}
	fmt.Println(best.Microseconds())
	return nil
}

// TestDelay: no answer is quicker than the delays of both directions, whatever else is set, and while it runs they change. A kernel without netem says so, and nothing is half set.
func TestDelay(t *testing.T) {
	const ms = time.Millisecond
	const rate = 4_000_000
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		server := h.start("source", []string{":80", "1000000"}, b)
		set := func(b netstack.Bandwidth) {
			t.Helper()
			require.NoError(t, b.Set(server.p.PID))
		}
		trip := func() time.Duration {
			t.Helper()
			var us int
			text := h.run("rtt", []string{"10.77.0.2:81"}, b)
			_, err := fmt.Sscan(text, &us)
			require.NoError(t, err, text)
			return time.Duration(us) * time.Microsecond
		}
		most := func(got float64) { // TCP begins slowly where answers take long
			t.Helper()
			require.Less(t, got, 1.15*rate*1448/1514)
			require.Greater(t, got, rate/20.0)
		}
		set(netstack.Bandwidth{Receive: netstack.Rate{Bytes: 10 * rate}})
		err := netstack.Bandwidth{ReceiveDelay: netstack.Delay{Time: 50 * ms}}.Set(server.p.PID)
		if errors.Is(err, errors.ErrUnsupported) {
			require.ErrorContains(t, err, "sch_netem")
			out, _ := exec.Command("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms").CombinedOutput()
			require.NotEmpty(t, out, "the kernel can")
			for _, bad := range []netstack.Bandwidth{{SendDelay: netstack.Delay{Loss: 0.5}}, {Receive: netstack.Rate{Bytes: rate}, ReceiveDelay: netstack.Delay{Time: ms}}} {
				_, err = h.try("look", nil, netstack.Bridge{State: h.state, Bandwidth: bad})
				require.ErrorIs(t, err, errors.ErrUnsupported)
			}
			require.Len(t, h.devices(), 2)
			trip()
			q, err := netstack.Queues(server.p.PID)
			require.NoError(t, err)
			require.NotZero(t, q[0].Receive, "the limit is there")
			t.Skipf("the kernel has no netem: %s", out)
		}
		require.NoError(t, err)
		require.GreaterOrEqual(t, trip(), 50*ms)
		set(netstack.Bandwidth{SendDelay: netstack.Delay{Time: 30 * ms}})
		require.GreaterOrEqual(t, trip(), 80*ms)
		set(netstack.Bandwidth{ReceiveDelay: netstack.Delay{Time: 10 * ms, Jitter: 5 * ms}, Send: netstack.Rate{Bytes: rate}})
		require.GreaterOrEqual(t, trip(), 35*ms)
		q, err := netstack.Queues(server.p.PID)
		require.NoError(t, err)
		require.NotZero(t, q[0].Send, "%+v", q)
		set(netstack.Bandwidth{SendDelay: netstack.Delay{Time: netstack.NoLimit}})
		q, err = netstack.Queues(server.p.PID)
		require.NoError(t, err)
		require.Zero(t, q[0].Send.Bytes, "a new queue")
		most(took(h, b)) // the limit has stayed
		q, err = netstack.Queues(server.p.PID)
		require.NoError(t, err)
		require.Greater(t, q[0].Send.Bytes, uint64(1_000_000), "%+v", q)
		set(netstack.Bandwidth{ReceiveDelay: netstack.Delay{Loss: 1}})
		require.Contains(t, h.run("dial", []string{"10.77.0.2:80", "200ms"}, b), "error")
		q, err = netstack.Queues(server.p.PID)
		require.NoError(t, err)
		require.NotZero(t, q[0].Receive.Dropped, "%+v", q)
		all := netstack.Rate{Bytes: netstack.NoLimit}
		set(netstack.Bandwidth{Receive: all, Send: all, ReceiveDelay: netstack.Delay{Time: netstack.NoLimit}, SendDelay: netstack.Delay{Time: netstack.NoLimit}})
		require.NotContains(t, strings.Join(h.devices(), " "), "+")
		require.Less(t, trip(), 50*ms)
		// From the start on, and with a limit.
		both := b
		both.Bandwidth = netstack.Bandwidth{Receive: netstack.Rate{Bytes: rate, Burst: 5000}, ReceiveDelay: netstack.Delay{Time: 20 * ms}, SendDelay: netstack.Delay{Time: 20 * ms}}
		b = both
		require.GreaterOrEqual(t, trip(), 40*ms)
		most(took(h, b))
	})
}
