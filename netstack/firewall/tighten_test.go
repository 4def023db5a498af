//go:build linux

package firewall_test

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// pipe is a TCP connection with both ends in the test's hands.
type pipe struct {
	t              *testing.T
	caller, called net.Conn
}

func connect(t *testing.T, from, to space, listen, dial string) pipe {
	t.Helper()
	p := pipe{t: t}
	var l net.Listener
	to.in(func() {
		var err error
		l, err = net.Listen("tcp", listen)
		require.NoError(t, err)
	})
	defer l.Close()
	from.in(func() {
		var err error
		p.caller, err = (&net.Dialer{Timeout: 10 * patience}).Dial("tcp", dial)
		require.NoError(t, err)
	})
	var err error
	p.called, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { p.caller.Close(); p.called.Close() })
	require.True(t, p.passes(p.caller, p.called, 10*patience))
	return p
}

// passes reports whether a byte gets from one end to the other.
func (p pipe) passes(from, to net.Conn, wait time.Duration) bool {
	p.t.Helper()
	from.SetDeadline(time.Now().Add(wait))
	to.SetDeadline(time.Now().Add(wait))
	if _, err := from.Write([]byte{7}); err != nil {
		return false
	}
	_, err := io.ReadFull(to, make([]byte, 1))
	return err == nil
}

// lives wants the connection to go on, in both directions. A segment may be lost.
func (p pipe) lives(what string) {
	p.t.Helper()
	require.True(p.t, p.passes(p.caller, p.called, 20*patience), what)
	require.True(p.t, p.passes(p.called, p.caller, 20*patience), what)
}

// dead wants nothing to get through, whoever speaks first.
func (p pipe) dead(what string) {
	p.t.Helper()
	until := time.Now().Add(patience)
	heard := make(chan error, 2)
	for _, c := range []net.Conn{p.called, p.caller} {
		c.SetDeadline(until)
		c.Write([]byte{7})
		go func() {
			_, err := io.ReadFull(c, make([]byte, 1))
			heard <- err
		}()
	}
	require.Error(p.t, <-heard, what)
	require.Error(p.t, <-heard, what)
}

// TestTightened: connections end that a changed policy forbids, and no others.
func TestTightened(t *testing.T) {
	for name, open := range map[string]func(*world) *firewall.Firewall{"nftables": (*world).open, "iptables": (*world).xopen} {
		t.Run(name, func(t *testing.T) {
			if name == "iptables" {
				notInSoftware(t)
			}
			w := newWorld(t)
			fw := open(w)
			w.add(fw, "db", firewall.Rules{Cards: only4(w.dbCard()), Masquerade: true})
			rules := firewall.Rules{Cards: only4(w.webCard()), Masquerade: true, Publish: []firewall.Port{{Port: 8080, To: 80}},
				Policy: firewall.Policy{Egress: firewall.Direction{Rules: []firewall.Rule{{Peers: firewall.Prefixes("203.0.113.0/24"), Verdict: firewall.Drop}}}}}
			held := w.add(fw, "web", rules)
			good := connect(t, w.web, w.outside, "192.0.2.2:81", "192.0.2.2:81")
			bad := connect(t, w.web, w.outside, "192.0.2.2:82", "192.0.2.2:82")
			published := connect(t, w.outside, w.web, "10.88.0.2:80", "192.0.2.1:8080")
			neighbour := connect(t, w.db, w.web, "10.88.0.2:83", "10.88.0.2:83")
			host := connect(t, w.host, w.web, "10.88.0.2:84", "10.88.0.2:84")

			rules.Policy.Egress.Rules = append(rules.Policy.Egress.Rules, firewall.Rule{Peers: firewall.Prefixes("192.0.2.2"), Protocol: firewall.TCP, Ports: firewall.Ports(82), Verdict: firewall.Drop})
			require.NoError(t, held.Set(rules))
			bad.dead("egress")
			for _, p := range []pipe{good, published, neighbour, host} {
				p.lives("what is still allowed")
			}
			rules.Policy.Ingress.Rules = []firewall.Rule{{Peers: firewall.Prefixes("10.88.0.3"), Verdict: firewall.Drop}}
			require.NoError(t, held.Set(rules))
			neighbour.dead("ingress of a neighbour")
			published.lives("ingress from outside")
			rules.Policy.Ingress.Otherwise = firewall.Drop
			require.NoError(t, held.Set(rules))
			published.dead("ingress from outside")
			host.lives("the host may always speak")
			good.lives("egress")

			rules.Policy.Ingress = firewall.Direction{}
			require.NoError(t, held.Set(rules))
			neighbour = connect(t, w.web, w.db, "10.88.0.3:85", "10.88.0.3:85")
			rules.Isolated = true
			require.NoError(t, held.Set(rules))
			neighbour.dead("isolated")
			good.lives("not isolated from outside")
		})
	}
}

// TestTightenedNames: a connection to a name ends with the rule that allowed the name.
func TestTightenedNames(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	rules := firewall.Rules{Cards: only4(w.webCard()), Masquerade: true, Policy: firewall.Policy{Resolver: []netip.AddrPort{netip.MustParseAddrPort("10.88.0.1:53")},
		Egress: firewall.Direction{Otherwise: firewall.Reject, Rules: []firewall.Rule{{Names: []string{"a.example"}}, {Names: []string{"b.example"}}}}}}
	held := w.add(fw, "web", rules)
	require.NoError(t, firewall.Pin(held, "b.example", netip.MustParseAddr("192.0.2.2"), time.Minute))
	p := connect(t, w.web, w.outside, "192.0.2.2:81", "192.0.2.2:81")
	rules.Policy.Egress.Rules = rules.Policy.Egress.Rules[1:]
	require.NoError(t, held.Set(rules))
	p.lives("b.example is still allowed")
	rules.Policy.Egress.Rules[0].Names = []string{"a.example"}
	require.NoError(t, held.Set(rules))
	p.dead("b.example is not")
}
