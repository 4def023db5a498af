//go:build linux

package firewall_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// zone is what the resolver outside knows: name to records.
type zone map[string][]dnsmessage.Resource

func record(name string, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
}

func a(name string, ttl uint32, addr string) dnsmessage.Resource {
	return record(name, ttl, &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()})
}

// answer is all records that the zone has for the name, of whatever type.
func (z zone) answer(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil {
		return nil
	}
	m.Response = true
	for _, r := range z[strings.ToLower(m.Questions[0].Name.String())] {
		if _, v6 := r.Body.(*dnsmessage.AAAAResource); v6 == (m.Questions[0].Type == dnsmessage.TypeAAAA) {
			m.Answers = append(m.Answers, r)
		}
	}
	b, _ := m.Pack()
	return b
}

// nameserver answers in a namespace at port 53. Answers longer than 512 bytes are cut for UDP.
func (s space) nameserver(z zone, asked *atomic.Int64) {
	s.in(func() {
		u, err := net.ListenPacket("udp", ":53")
		require.NoError(s.t, err)
		s.t.Cleanup(func() { u.Close() })
		l, err := net.Listen("tcp", ":53")
		require.NoError(s.t, err)
		s.t.Cleanup(func() { l.Close() })
		go func() {
			buf := make([]byte, 512)
			for {
				n, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				asked.Add(1)
				b := z.answer(buf[:n])
				if len(b) > 512 {
					b = zone{}.answer(buf[:n])
					b[2] |= 2 // truncated
				}
				u.WriteTo([]byte("nonsense first"), from)
				u.WriteTo(b, from)
			}
		}()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				b := z.answer(framed(c))
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
				c.Close()
			}
		}()
	})
}

func framed(r io.Reader) []byte {
	var size [2]byte
	io.ReadFull(r, size[:])
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	io.ReadFull(r, b)
	return b
}

// resolve asks like a program that has its own idea of who answers.
func (s space) resolve(network, name string, kind dnsmessage.Type) (rcode dnsmessage.RCode, addrs []string) {
	s.t.Helper()
	s.in(func() {
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
		q, err := m.Pack()
		require.NoError(s.t, err)
		c, err := net.DialTimeout(network, "198.51.100.53:53", patience)
		require.NoError(s.t, err)
		defer c.Close()
		c.SetDeadline(time.Now().Add(4 * time.Second))
		buf := make([]byte, 4096)
		if network == "tcp" {
			c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
			buf = framed(c)
		} else {
			c.Write(q)
			n, err := c.Read(buf)
			require.NoError(s.t, err)
			buf = buf[:n]
		}
		require.NoError(s.t, m.Unpack(buf))
		require.Equal(s.t, uint16(4711), m.ID)
		rcode = m.RCode
		for _, r := range m.Answers {
			switch b := r.Body.(type) {
			case *dnsmessage.AResource:
				addrs = append(addrs, netip.AddrFrom4(b.A).String())
			case *dnsmessage.AAAAResource:
				addrs = append(addrs, netip.AddrFrom16(b.AAAA).String())
			}
		}
		if m.Truncated {
			addrs = append(addrs, "truncated")
		}
	})
	return rcode, addrs
}

// resolver serves at the bridge's address.
func (w *world) resolver(fw *firewall.Firewall) { w.resolverAt(fw, "10.88.0.1:5300", false) }

func (w *world) resolverAt(fw *firewall.Firewall, at string, forward bool) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	w.host.in(func() {
		u, err := net.ListenPacket("udp", at)
		require.NoError(w.t, err)
		l, err := net.Listen("tcp", at)
		require.NoError(w.t, err)
		r := firewall.Resolver{Forward: forward, Upstream: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:53")},
			Dial: func(ctx context.Context, network, address string) (c net.Conn, err error) {
				w.host.in(func() { c, err = new(net.Dialer).DialContext(ctx, network, address) })
				return c, err
			}}
		go func() { done <- r.Serve(ctx, fw, u, l) }()
	})
	w.t.Cleanup(func() {
		cancel()
		require.NoError(w.t, <-done)
	})
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	w.resolver(fw)
	w.outside.serve(443, "outside")
	many := zone{"many.example.com.": nil}
	for range 60 {
		many["many.example.com."] = append(many["many.example.com."], a("many.example.com.", 60, "203.0.113.1"))
	}
	var asked atomic.Int64
	w.outside.nameserver(zone{
		"example.com.": {record("example.com.", 60, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("cdn.example.net.")}),
			a("cdn.example.net.", 1, "192.0.2.2"), a("elsewhere.net.", 1, "192.0.2.1"),
			record("example.com.", 1, &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::2").As16()})},
		"trick.example.com.": {a("trick.example.com.", 60, "10.88.0.1"), a("trick.example.com.", 60, "127.0.0.1")},
		"evil.org.":          {a("evil.org.", 60, "192.0.2.2")},
		"many.example.com.":  many["many.example.com."],
	}, &asked)
	held := w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Masquerade: true, Policy: firewall.Policy{
		Resolver: []netip.AddrPort{netip.MustParseAddrPort("10.88.0.1:5300")},
		Egress: firewall.Direction{Otherwise: firewall.Reject, Rules: []firewall.Rule{
			{Names: []string{"Example.com", "*.example.com"}, Protocol: firewall.TCP, Ports: firewall.Ports(443)}}}}})
	w.add(fw, "db", firewall.Rules{Cards: w.dbCard(), Masquerade: true})
	for _, to := range []string{"192.0.2.2:443", "[2001:db8::2]:443"} {
		w.web.cannot("tcp", to)
	}
	rcode, addrs := w.web.resolve("udp", "example.COM.", dnsmessage.TypeA)
	require.Equal(t, dnsmessage.RCodeSuccess, rcode)
	require.Equal(t, []string{"192.0.2.2"}, addrs)
	w.web.reaches("outside 192.0.2.1", "tcp", "192.0.2.2:443")
	w.web.cannot("tcp", "192.0.2.2:53")
	w.web.cannot("tcp", "[2001:db8::2]:443")
	_, addrs = w.web.resolve("tcp", "example.com.", dnsmessage.TypeAAAA)
	require.Equal(t, []string{"2001:db8::2"}, addrs)
	w.web.reaches("outside 2001:db8::1", "tcp", "[2001:db8::2]:443")

	_, addrs = w.web.resolve("udp", "trick.example.com.", dnsmessage.TypeA)
	require.Empty(t, addrs, "an allowed name that leads to the host")
	_, addrs = w.web.resolve("udp", "many.example.com.", dnsmessage.TypeA)
	require.Equal(t, []string{"truncated"}, addrs)
	_, addrs = w.web.resolve("tcp", "many.example.com.", dnsmessage.TypeA)
	require.Len(t, addrs, 60)

	before := asked.Load()
	for name, kind := range map[string]dnsmessage.Type{"evil.org.": dnsmessage.TypeA, "secret.evil.org.": dnsmessage.TypeTXT, "notexample.com.": dnsmessage.TypeA} {
		rcode, addrs = w.web.resolve("udp", name, kind)
		require.Equal(t, dnsmessage.RCodeRefused, rcode, name)
		require.Empty(t, addrs)
	}
	rcode, addrs = w.web.resolve("udp", "example.com.", dnsmessage.TypeTXT)
	require.Equal(t, dnsmessage.RCodeSuccess, rcode)
	require.Empty(t, addrs)
	require.Equal(t, before, asked.Load(), "nobody outside hears of it")

	require.Eventually(t, func() bool { _, err := w.web.ask("tcp", "192.0.2.2:443"); return err != nil }, 12*time.Second, 100*time.Millisecond, "the answer was valid for a second")
	w.web.resolve("udp", "example.com.", dnsmessage.TypeA)
	w.web.reaches("outside 192.0.2.1", "tcp", "192.0.2.2:443")
	require.Contains(t, w.host.ruleset(), "192.0.2.2 timeout 6s")
	require.NoError(t, held.Remove())
	require.False(t, strings.Contains(w.host.ruleset(), "names4"))
}
