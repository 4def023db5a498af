package netstack_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/firewall"
)

// router gives the host a way outside.
func router(h *world) {
	outside(h, "world")
	run(h.t, "ip", "addr", "add", "192.0.2.9/24", "dev", "up0")
	run(h.t, "ip", "addr", "add", "2001:db8::9/64", "dev", "up0", "nodad")
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%v: it is in iproute2", err)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, string(out))
}

// TestMasqueradeAndPublish: a sandbox reaches a server outside, and is reached from there, from the host's localhost and from a neighbour by the host's address, in both families.
func TestMasqueradeAndPublish(t *testing.T) {
	bothBackends(t, func(h *world, by netstack.Backend) {
		slowPrograms(h.t, by)
		router(h)
		b := netstack.Bridge{State: h.state, Backend: by, Masquerade: true, Publish: []netstack.Port{{Port: 8080, To: 80}}}
		server := h.start("serve", []string{":80", "inside"}, b)
		b.Publish = nil
		require.Equal(h.t, "world 192.0.2.9", withoutPort(h.run("dial", []string{"192.0.2.1:80"}, b)))
		require.Equal(h.t, "world [2001:db8::9]", withoutPort(h.run("dial", []string{"[2001:db8::1]:80"}, b)))
		for _, address := range []string{"127.0.0.1:8080", "192.0.2.9:8080", "10.77.0.2:80"} {
			require.NoError(h.t, dialHost(h, address), address)
		}
		require.Contains(h.t, h.run("dial", []string{"192.0.2.9:8080"}, b), "inside")
		fromOutside(h, "192.0.2.9:8080", "inside 192.0.2.1")
		fromOutside(h, "[2001:db8::9]:8080", "inside [2001:db8::1]")
		_, err := h.try("look", nil, netstack.Bridge{State: h.state, Backend: by, Publish: []netstack.Port{{Port: 8080, To: 81}}})
		require.ErrorIs(h.t, err, syscall.EADDRINUSE)
		in := h.run("dial", []string{"192.0.2.9:8080"}, netstack.Join{PID: server.p.PID})
		require.Contains(h.t, in, "inside", "by its own published port")
	})
}

// fromOutside connects from the namespace that stands for the world outside.
func fromOutside(h *world, address, want string) {
	h.t.Helper()
	var out []byte
	in(h.t, h.world, func() error {
		c := exec.Command(self(), address)
		c.Env = append(os.Environ(), "NETSTACK_TEST=dial")
		out, _ = c.CombinedOutput()
		return nil
	})
	require.Equal(h.t, want, withoutPort(string(out)))
}

// TestSpoof: a sandbox that is root of its network takes another address, and nothing passes.
func TestSpoof(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("%v: it is in iproute2", err)
	}
	bothBackends(t, func(h *world, by netstack.Backend) {
		b := netstack.Bridge{State: h.state, Backend: by}
		h.start("serve", []string{":80", "hello"}, b)
		spoof := func(b netstack.Bridge, source, server string, most time.Duration) string {
			return h.run("spoof", []string{source, server, most.String()}, b)
		}
		require.Contains(h.t, spoof(b, "10.77.9.9/16", "10.77.0.2:80", 400*time.Millisecond), "error: dial")
		require.Contains(h.t, spoof(b, "fd77:ca15:50::99/64", "[fd77:ca15:50::2]:80", 400*time.Millisecond), "error: dial")
		b.Unchecked, b.Backend = true, 0
		require.Equal(h.t, "hello 10.77.9.9", withoutPort(spoof(b, "10.77.9.9/16", "10.77.0.2:80", dialTime)), "the same without the rules")
		require.Equal(h.t, "hello [fd77:ca15:50::99]", withoutPort(spoof(b, "fd77:ca15:50::99/64", "[fd77:ca15:50::2]:80", dialTime)), "the same without the rules")
	})
}

// spoof takes a further address as the source, as root of the sandbox's network may.
func spoof(args []string) error {
	if out, err := exec.Command("ip", "addr", "add", args[0], "dev", "eth0", "nodad").CombinedOutput(); err != nil {
		return errors.New(string(out))
	}
	ip, _, err := net.ParseCIDR(args[0])
	if err != nil {
		return err
	}
	most, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}, Timeout: most}
	c, err := d.Dial("tcp", args[1])
	if err != nil {
		return err
	}
	return say(c)
}

func TestPolicy(t *testing.T) {
	bothBackends(t, func(h *world, by netstack.Backend) {
		slowPrograms(h.t, by)
		b := netstack.Bridge{State: h.state, Backend: by, Masquerade: true}
		h.start("serve", []string{":80", "hello"}, b)
		b.Policy.Egress.Otherwise = firewall.Drop
		require.Contains(h.t, h.run("dial", []string{"10.77.0.2:80", "400ms"}, b), "error")
		b.Policy.Egress.Rules = []firewall.Rule{{Verdict: firewall.Allow, Protocol: firewall.TCP, Ports: firewall.Ports(80)}}
		require.Contains(h.t, h.run("dial", []string{"10.77.0.2:80"}, b), "hello")
	})
}

func TestRulesValues(t *testing.T) {
	names := netstack.Policy{Egress: firewall.Direction{Rules: []firewall.Rule{{Names: []string{"example.com"}}}}}
	upstream := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}
	for _, b := range []netstack.Bridge{{Backend: 9}, {Backend: firewall.IPTables, Unchecked: true}, {Policy: names}, {Resolver: netstack.Resolver{Private: true}}, {Resolver: netstack.Resolver{Upstream: upstream}, Unchecked: true},
		{Resolver: netstack.Resolver{Upstream: upstream}, Policy: netstack.Policy{Resolver: upstream}}, {Unchecked: true, Masquerade: true}, {Unchecked: true, Publish: []netstack.Port{{Port: 1}}}, {Subnets: netstack.DefaultSubnets()[:0]},
		{Unchecked: true, Policy: netstack.Policy{Egress: firewall.Direction{Otherwise: firewall.Drop}}}} {
		require.ErrorIs(t, b.Create(), syscall.EINVAL)
	}
}

// TestNothingLeftOfRules: the tables are gone with the last sandbox.
func TestNothingLeftOfRules(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skipf("%v: it is in nftables", err)
	}
	host(t, func(h *world) {
		b := h.start("wait", nil, netstack.Bridge{State: h.state, Masquerade: true})
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), "10.77.0.2")
		b.stop()
		out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
		require.NoError(t, err, string(out))
		require.Empty(t, strings.TrimSpace(string(out)))
	})
}
