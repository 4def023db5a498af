//go:build linux

package firewall_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

func TestService(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	w.outside.gateway("192.0.2.1", "2001:db8::1")
	for _, s := range []space{w.web, w.db} {
		s.serve(80, s.name)
	}
	w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Masquerade: true, Isolated: true})
	w.add(fw, "db", firewall.Rules{Cards: w.dbCard(), Masquerade: true})
	four := []netip.AddrPort{netip.MustParseAddrPort("10.88.0.2:80"), netip.MustParseAddrPort("10.88.0.3:80")}
	six := []netip.AddrPort{netip.MustParseAddrPort("[fd88::2]:80"), netip.MustParseAddrPort("[fd88::3]:80")}
	services := func(spread firewall.Spread, n int) firewall.Rules {
		return firewall.Rules{Services: []firewall.Service{
			{Addr: netip.MustParseAddr("10.96.0.1"), Port: 7, Spread: spread, Backends: four[:n]},
			{Addr: netip.MustParseAddr("fd96::1"), Port: 7, Spread: spread, Backends: six[:n]},
			{Protocol: firewall.UDP, Addr: netip.MustParseAddr("10.96.0.1"), Port: 7, Spread: spread, Backends: four[:n]}}}
	}
	held := w.add(fw, "service", services(firewall.RoundRobin, 2))
	count := func(s space, network, to string, n int) map[string]int {
		seen := map[string]int{}
		for range n {
			text, err := s.ask(network, to)
			require.NoError(t, err)
			seen[text]++
		}
		return seen
	}
	require.Equal(t, map[string]int{"web 192.0.2.2": 4, "db 192.0.2.2": 4}, count(w.outside, "tcp", "10.96.0.1:7", 8))
	require.Equal(t, map[string]int{"web 2001:db8::2": 4, "db 2001:db8::2": 4}, count(w.outside, "tcp", "[fd96::1]:7", 8))
	require.Equal(t, map[string]int{"web 192.0.2.2": 4, "db 192.0.2.2": 4}, count(w.outside, "udp", "10.96.0.1:7", 8))

	require.NoError(t, held.Set(services(firewall.Random, 2)))
	require.Len(t, count(w.outside, "tcp", "10.96.0.1:7", 40), 2, "40 times the same has a chance of 2 in a million million")

	require.NoError(t, held.Set(services(firewall.SourceHash, 2)))
	require.Len(t, count(w.outside, "tcp", "10.96.0.1:7", 8), 1)
	require.Len(t, count(w.outside, "tcp", "[fd96::1]:7", 8), 1)

	require.NoError(t, held.Set(services(firewall.RoundRobin, 1)))
	require.Equal(t, map[string]int{"web 192.0.2.2": 4}, count(w.outside, "tcp", "10.96.0.1:7", 4))
	require.Equal(t, map[string]int{"web 10.88.0.1": 2}, count(w.db, "tcp", "10.96.0.1:7", 2), "from a neighbour")
	require.Equal(t, map[string]int{"web 10.88.0.1": 2}, count(w.web, "tcp", "10.96.0.1:7", 2), "from the backend itself")
	w.host.run("ip", "route", "add", "10.96.0.0/16", "dev", "caisson0")
	require.Equal(t, map[string]int{"web 10.88.0.1": 2}, count(w.host, "tcp", "10.96.0.1:7", 2), "from the host")

	require.NoError(t, held.Set(services(firewall.RoundRobin, 0)))
	w.outside.cannot("tcp", "10.96.0.1:7")
	require.NoError(t, held.Set(services(firewall.RoundRobin, 2)))
	require.Len(t, count(w.outside, "tcp", "10.96.0.1:7", 2), 2)
}
