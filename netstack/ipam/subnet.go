//go:build linux

package ipam

import (
	"encoding/binary"
	"net/netip"
)

// Subnet is a range of addresses of which each reservation gets one.
type Subnet struct {
	// Prefix is the subnet: 10.9.0.0/16, fd09::/64. Bits after the prefix must be zero.
	Prefix netip.Prefix

	// Gateway is never given out. The zero value is the first address of the subnet, 10.9.0.1.
	Gateway netip.Addr

	// First and Last bound what is given out without being asked for. The zero values are the ends of the subnet. Addresses asked for may be outside of the
	// bounds.
	First, Last netip.Addr
}

// GatewayAddr is the gateway: the one that was given, or the first address.
func (s Subnet) GatewayAddr() netip.Addr {
	if s.Gateway.IsValid() {
		return s.Gateway
	}
	if s.single() {
		return s.Prefix.Addr()
	}
	return s.Prefix.Addr().Next()
}

// single reports whether every address of the prefix is one of a host: there is no network address in a /31 or /32, or /127 and /128.
func (s Subnet) single() bool { return s.Prefix.Addr().BitLen()-s.Prefix.Bits() <= 1 }

func (s Subnet) check() error {
	switch {
	case !s.Prefix.IsValid():
		return &SubnetError{s, "the prefix is not valid"}
	case s.Prefix.Addr().Is4In6() || s.Prefix.Addr().Zone() != "":
		return &SubnetError{s, "an IPv4 address in IPv6 form, or one with a zone"}
	case s.Prefix.Masked() != s.Prefix:
		return &SubnetError{s, "bits after the prefix are set; " + s.Prefix.Masked().String() + " is meant?"}
	case s.Prefix.Addr().IsMulticast() || s.Prefix.Addr().IsLoopback() || s.Prefix.Bits() == 0:
		return &SubnetError{s, "not a range for hosts"}
	}
	for _, a := range []netip.Addr{s.Gateway, s.First, s.Last} {
		if a.IsValid() && !s.Prefix.Contains(a) {
			return &SubnetError{s, a.String() + " is outside"}
		}
	}
	if first, last := s.bounds(); last.Less(first) {
		return &SubnetError{s, "the last address is before the first"}
	}
	return nil
}

// bounds are the first and the last address that may be given out.
func (s Subnet) bounds() (first, last netip.Addr) {
	first, last = s.Prefix.Addr(), s.end()
	if !s.single() {
		first = first.Next() // the network's own, or the routers' anycast address (RFC 4291)
		if first.Is4() {
			last = last.Prev() // broadcast
		}
	}
	if s.First.IsValid() && first.Less(s.First) {
		first = s.First
	}
	if s.Last.IsValid() && s.Last.Less(last) {
		last = s.Last
	}
	return first, last
}

// end is the last address of the prefix.
func (s Subnet) end() netip.Addr {
	b := s.Prefix.Addr().AsSlice()
	for i := s.Prefix.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// usable reports whether a host may have the address.
func (s Subnet) usable(a netip.Addr) bool {
	all := Subnet{Prefix: s.Prefix}
	first, last := all.bounds()
	return s.Prefix.Contains(a) && !a.Less(first) && !last.Less(a) && a != s.GatewayAddr()
}

// after is the next one to give out after a, round the end of the bounds.
func (s Subnet) after(a netip.Addr) netip.Addr {
	first, last := s.bounds()
	if !a.IsValid() || a.Less(first) || !a.Less(last) {
		return first
	}
	return a.Next()
}

// size is how many addresses are between the bounds, as far as it matters: at most 2^32.
func (s Subnet) size() uint64 {
	first, last := s.bounds()
	f, l := first.As16(), last.As16()
	if binary.BigEndian.Uint64(f[:8]) != binary.BigEndian.Uint64(l[:8]) {
		return 1 << 32
	}
	return min(binary.BigEndian.Uint64(l[8:])-binary.BigEndian.Uint64(f[8:]), 1<<32-1) + 1
}
