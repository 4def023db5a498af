package netstack_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/firewall"
)

// named asks the nameserver for a name, and then who has it.
func named(args []string) error {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, args[1])
	}}
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	all, err := r.LookupNetIP(ctx, args[2], args[0])
	if err != nil {
		return err
	}
	c, err := net.DialTimeout("tcp", netip.AddrPortFrom(all[0].Unmap(), 80).String(), dialTime)
	if err != nil {
		return err
	}
	return say(c)
}

// nameserver answers in the world outside: every name has its one address of each family.
func nameserver(h *world) {
	in(h.t, h.world, func() error {
		p, err := net.ListenPacket("udp", "192.0.2.1:53")
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { p.Close() })
		go func() {
			b := make([]byte, 512)
			for {
				n, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				p.WriteTo(answerAll(b[:n]), from)
			}
		}()
		return nil
	})
}

func answerAll(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response = true
	head := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60}
	switch m.Questions[0].Type {
	case dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AResource{A: netip.MustParseAddr("192.0.2.1").As4()}}}
	case dnsmessage.TypeAAAA:
		m.Answers = []dnsmessage.Resource{{Header: head, Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}}}
	}
	b, _ := m.Pack()
	return b
}

// TestNames: a sandbox reaches those alone whose names its policy has, and its neighbours by their names; the program knows nothing of that, and asks whom it likes.
func TestNames(t *testing.T) {
	host(t, func(h *world) {
		router(h)
		nameserver(h)
		web := netstack.Bridge{State: h.state, Hosts: []string{"web", "web.example"}}
		h.start("serve", []string{":80", "web"}, web)
		b := netstack.Bridge{State: h.state, Masquerade: true, Resolver: netstack.Resolver{Upstream: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}},
			Policy: netstack.Policy{Egress: firewall.Direction{Otherwise: firewall.Reject, Rules: []firewall.Rule{
				{Names: []string{"*.example.com", "web"}, Protocol: firewall.TCP, Ports: firewall.Ports(80)}}}}}
		ask := func(b netstack.Bridge, name, server, network string) string {
			return h.run("named", []string{name, server, network}, b)
		}
		require.Contains(t, h.run("dial", []string{"192.0.2.1:80", "400ms"}, b), "error", "an address that no name stands for")
		for _, server := range []string{"192.0.2.1:53", "[2001:db8::1]:53", "203.0.113.7:53"} {
			require.Equal(t, "world 192.0.2.9", withoutPort(ask(b, "www.example.com", server, "ip4")), server)
		}
		require.Equal(t, "world [2001:db8::9]", withoutPort(ask(b, "www.example.com", "192.0.2.1:53", "ip6")))
		require.Contains(t, ask(b, "www.example.org", "192.0.2.1:53", "ip4"), "error", "another name")
		require.Regexp(t, `^web 10\.77\.0\.\d+:`, ask(b, "web", "192.0.2.1:53", "ip4"))
		b.Policy = netstack.Policy{}
		require.Contains(t, ask(b, "web", "192.0.2.1:53", "ip6"), "web [fd77:ca15:50::", "without a policy neighbours have names, too")
		require.Contains(t, ask(b, "www.example.org", "192.0.2.1:53", "ip4"), "error")
		b.Resolver.Forward = true
		require.Contains(t, ask(b, "www.example.org", "192.0.2.1:53", "ip4"), "world")
		b.Backend, b.Resolver.Forward = 0, false
		b.Resolver.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, fmt.Errorf("nobody") }
		require.Contains(t, ask(b, "web", "192.0.2.1:53", "ip4"), "web 10.77.0.")
	})
}

// TestNamesTogether: starts with the same Resolver have one between them, and nothing of it is left when the last sandbox has ended.
func TestNamesTogether(t *testing.T) {
	host(t, func(h *world) {
		router(h)
		before := sockets(t)
		b := netstack.Bridge{State: h.state, Resolver: netstack.Resolver{Upstream: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}}}
		first := h.start("wait", nil, b)
		one := sockets(t)
		require.NotEqual(t, before, one)
		b.Resolver.Upstream = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}
		second := h.start("wait", nil, b)
		require.Equal(t, one, sockets(t))
		first.stop()
		require.Equal(t, one, sockets(t))
		second.stop()
		require.Equal(t, before, sockets(t))
	})
}

// sockets are those that listen in the host's network.
func sockets(t *testing.T) (list []string) {
	t.Helper()
	for _, file := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		require.NoError(t, err)
		for _, line := range strings.Split(string(text), "\n")[1:] {
			if f := strings.Fields(line); len(f) > 3 && (f[3] == "0A" || f[3] == "07") {
				list = append(list, file+" "+f[1])
			}
		}
	}
	return list
}
