//go:build linux

package ipam

import (
	"net/netip"
	"strings"
	"testing"
)

// FuzzHeld reads what anybody may have written into a lease's file.
func FuzzHeld(f *testing.F) {
	for _, s := range []string{"", "owner\n", "owner\nname\nother\n", "\n\n\n", "x\x00y", strings.Repeat("a", 5000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h := parseHeld(netip.Addr{}, text)
		if strings.Contains(h.Owner, "\n") {
			t.Errorf("owner %q", h.Owner)
		}
		for _, n := range h.Names {
			if n == "" || strings.Contains(n, "\n") {
				t.Errorf("name %q", n)
			}
		}
	})
}

// FuzzSubnet: what is given out is always usable, and the walk through a subnet stays in it.
func FuzzSubnet(f *testing.F) {
	f.Add("10.9.0.0/29", "10.9.0.3", "", "", "10.9.0.2")
	f.Add("fd09::/64", "", "fd09::5", "fd09::9", "fd09::9")
	f.Add("10.0.0.0/31", "", "", "", "10.0.0.1")
	f.Add("255.255.255.255/32", "", "", "", "255.255.255.255")
	f.Add("ffff::/128", "", "", "", "")
	f.Fuzz(func(t *testing.T, prefix, gateway, first, last, from string) {
		p, err := netip.ParsePrefix(prefix)
		if err != nil {
			return
		}
		parse := func(s string) netip.Addr { a, _ := netip.ParseAddr(s); return a }
		s := Subnet{p, parse(gateway), parse(first), parse(last)}
		if s.check() != nil {
			return
		}
		lo, hi := s.bounds()
		a := parse(from)
		for range 10 {
			a = s.after(a)
			if a.Less(lo) || hi.Less(a) || !s.Prefix.Contains(a) {
				t.Fatalf("%v of %+v", a, s)
			}
		}
		if s.size() == 0 || s.usable(s.GatewayAddr()) {
			t.Fatalf("%+v", s)
		}
	})
}
