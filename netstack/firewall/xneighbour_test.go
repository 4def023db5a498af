//go:build linux

package firewall_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// xopen6 is xopen where the frames of bridges can be shown to ip6tables.
func (w *world) xopen6() *firewall.Firewall {
	w.t.Helper()
	notInSoftware(w.t.(*testing.T))
	if cards := w.webCard(); len(w.shown(cards)[0].Addrs) == 1 {
		w.t.Skip("a kernel without br_netfilter: there is no /proc/sys/net/bridge/bridge-nf-call-ip6tables")
	}
	for _, what := range []string{"iptables", "ip6tables", "arptables"} { // as an administrator sets them who has other bridges
		w.host.sysctl("net/bridge/bridge-nf-call-"+what, "0")
	}
	return w.xopen()
}

// shown is a card on the bridge with those addresses that iptables can check here.
func (w *world) shown(cards []firewall.Card) []firewall.Card {
	missing := false
	w.host.in(func() {
		_, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-ip6tables")
		missing = err != nil
	})
	if missing {
		return only4(cards)
	}
	return cards
}

// The same as with nf_tables, in both families.
func TestIPTablesIsolation(t *testing.T)  { testIsolation(t, (*world).xopen6) }
func TestIPTablesPolicy6(t *testing.T)    { testPolicy(t, (*world).xopen6) }
func TestIPTablesSpoof6(t *testing.T)     { testSpoof(t, (*world).xopen6) }
func TestIPTablesNeighbours(t *testing.T) { testSpoofFrames(t, (*world).xopen6) }

// TestIPTablesNotShown: where br_netfilter does not show frames, no rules for IPv6 on a bridge begin, and where it no longer does, nobody speaks for others.
func TestIPTablesNotShown(t *testing.T) {
	w := newWorld(t)
	fw := w.xopen6()
	w.add(fw, "web", firewall.Rules{Cards: w.webCard()})
	own := w.advertisement("fd88::2", "fd88::2")
	require.True(t, w.sniff6(func() { w.web.send(own) }))
	w.host.run("ip", "link", "set", "caisson0", "type", "bridge", "nf_call_ip6tables", "0")
	require.False(t, w.sniff6(func() { w.web.send(own) }), "not even for itself")
	firewall.WithoutBridgeNetfilter(fw)
	_, err := fw.Add("db", firewall.Rules{Cards: w.dbCard()})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "br_netfilter")
	w.add(fw, "db", firewall.Rules{Cards: only4(w.dbCard())})
}

// icmp6 is a packet of ICMPv6 to all neighbours, with the extension headers before it.
func icmp6(from string, kind byte, body []byte, extension ...byte) []byte {
	source, all := netip.MustParseAddr(from).As16(), netip.MustParseAddr("ff02::1").As16()
	message := append([]byte{kind, 0, 0, 0}, body...)
	sum := uint32(len(message)) + unix.IPPROTO_ICMPV6
	for _, part := range [][]byte{source[:], all[:], message} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum))
	next := byte(unix.IPPROTO_ICMPV6)
	if len(extension) > 0 {
		next = unix.IPPROTO_DSTOPTS
	}
	packet := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(extension)+len(message)))
	packet = append(append(append(packet, next, 255), source[:]...), all[:]...)
	return append(append(packet, extension...), message...)
}

// neighbourhood is the frame of such a packet, from web.
func (w *world) neighbourhood(packet []byte) []byte {
	return append(append(append([]byte{0x33, 0x33, 0, 0, 0, 1}, mac(w.web)...), 0x86, 0xdd), packet...)
}

// about is the body of a message about an address, with web's MAC.
func (w *world) about(target string, option byte) []byte {
	b := append([]byte{0x20, 0, 0, 0}, netip.MustParseAddr(target).AsSlice()...)
	return append(append(b, option, 1), mac(w.web)...)
}

func (w *world) advertisement(from, target string) []byte {
	return w.neighbourhood(icmp6(from, 136, w.about(target, 2)))
}

// oddNeighbours has web say by neighbour discovery what it may say, and what it may not.
func (w *world) oddNeighbours(t *testing.T) {
	t.Helper()
	var names []string
	var forbidden [][]byte
	options := []byte{unix.IPPROTO_ICMPV6, 0, 1, 4, 0, 0, 0, 0} // none but padding
	for _, c := range []struct {
		name   string
		frame  []byte
		passes bool
	}{
		{"own address", w.advertisement("fd88::2", "fd88::2"), true},
		{"a question", w.neighbourhood(icmp6("fd88::2", 135, w.about("fd88::3", 1))), true},
		{"the gateway's address", w.advertisement("fd88::2", "fd88::1"), false},
		{"the neighbour's", w.advertisement("fd88::2", "fd88::3"), false},
		{"the gateway's, as the gateway", w.advertisement("fd88::1", "fd88::1"), false},
		{"a question of the gateway's", w.neighbourhood(icmp6("fd88::1", 135, w.about("fd88::3", 1))), false},
		{"the gateway's, behind options", w.neighbourhood(icmp6("fd88::2", 136, w.about("fd88::1", 2), options...)), false},
		{"a router", w.neighbourhood(icmp6("fd88::2", 134, make([]byte, 12))), false},
		{"a router, behind options", w.neighbourhood(icmp6("fd88::2", 134, make([]byte, 12), options...)), false},
		{"a redirect", w.neighbourhood(icmp6("fd88::2", 137, make([]byte, 36))), false},
	} {
		if c.passes {
			require.True(t, w.sniff6(func() { w.web.send(c.frame) }), c.name)
			continue
		}
		names, forbidden = append(names, c.name), append(forbidden, c.frame)
	}
	some := w.sniff6(func() { // all in one, because nothing is to be waited for
		for _, frame := range forbidden {
			w.web.send(frame)
		}
	})
	for i := 0; some && i < len(forbidden); i++ {
		require.False(t, w.sniff6(func() { w.web.send(forbidden[i]) }), names[i])
	}
	require.False(t, some)
}

// sniff6 tells whether what f has web send to all neighbours arrives at db.
func (w *world) sniff6(f func()) bool {
	own := mac(w.web)
	return w.arrives(f, func(b []byte) bool {
		return len(b) > 54 && bytes.Equal(b[:6], []byte{0x33, 0x33, 0, 0, 0, 1}) && bytes.Equal(b[6:12], own)
	})
}
