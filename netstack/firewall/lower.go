//go:build linux

package firewall

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
)

// state is what rules become in the tables.
type state struct {
	elements map[element]bool
	chains   map[string]chain
	names    map[string]nameSet
	lines    []xline  // with iptables, instead of all that
	local    []string // bridges over which 127.0.0.1 is translated; several owners may ask for the same
}

// element is one element of a set. It is comparable: what differs between two states is what is to be changed.
type element struct {
	set      setID
	key, val string
	chain    string // of a verdict
	end      bool   // the end of an interval
}

// chain is a chain of one owner's own, in the table of family inet.
type chain struct {
	rules []rule
	text  string // tells whether it is the same as another
}

// rule is a line, with the sets that belong to it alone.
type rule struct {
	line line
	sets []*ownSet
}

// nameSet is a set of addresses that stand for names.
type nameSet struct {
	key     nftables.SetDatatype
	pattern []string
}

// lowering collects a state.
type lowering struct {
	id string
	state
	macs map[string]net.HardwareAddr // of bridges
}

// lower translates rules that are valid. macs has the hardware addresses of bridges with cards that have a policy.
func lower(id string, r Rules, macs map[string]net.HardwareAddr) state {
	l := lowering{id: id, macs: macs, state: state{elements: map[element]bool{}, chains: map[string]chain{}, names: map[string]nameSet{}}}
	for _, c := range r.Cards {
		l.card(c, r)
	}
	for _, p := range r.Pools {
		l.pool(p)
	}
	for _, p := range r.Publish {
		l.publish(p, r)
	}
	for i, s := range r.Services {
		l.service(i, s)
	}
	l.policy(r)
	slices.Sort(l.local)
	l.local = slices.Compact(l.local)
	return l.state
}

func (l *lowering) inet(set string, key []byte, val ...byte) {
	l.elements[element{set: setID{false, set}, key: string(key), val: string(val)}] = true
}

func (l *lowering) bridge(set string, key []byte, val ...byte) {
	l.elements[element{set: setID{true, set}, key: string(key), val: string(val)}] = true
}

func (l *lowering) jump(set string, key []byte, chain string) {
	l.elements[element{set: setID{false, set}, key: string(key), chain: chain}] = true
}

// mark is the value of elements that only one owner may have: the kernel refuses a second one with another value.
func (l *lowering) mark() []byte {
	sum := sha256.Sum256([]byte(l.id))
	return sum[:4]
}

func (l *lowering) card(c Card, r Rules) {
	name := interfaceName(c.Name)
	l.inet(cards, name, l.mark()...)
	if c.Bridge == "" {
		l.inet(routed, name)
	} else {
		l.port(c, r)
	}
	for _, a := range c.Addrs {
		f := familyOf(a).suffix
		l.inet(inside+f, a.AsSlice())
		l.inet(owner+f, a.AsSlice(), l.mark()...)
		if r.Isolated {
			l.inet(isolated+f, a.AsSlice())
		}
		if r.Masquerade {
			l.inet(masq+f, a.AsSlice())
		}
		if c.Bridge == "" {
			l.inet(source+f, slices.Concat(name, a.AsSlice()))
		}
	}
}

// port is a card that is a port of a bridge.
func (l *lowering) port(c Card, r Rules) {
	name := interfaceName(c.Name)
	l.bridge(cards, name)
	l.bridge(echo, slices.Concat(name, name))
	if r.Isolated {
		l.bridge(isolated, name)
	}
	l.bridgeMAC(c)
	for _, a := range c.sources() {
		l.bridge(source+familyOf(a).suffix, slices.Concat(name, a.AsSlice()))
		if r.Policy.any() {
			l.bridge(steered+familyOf(a).suffix, a.AsSlice())
		}
	}
	if r.Policy.any() {
		l.bridge(steered, name)
	}
	check := "check"
	if c.MAC != nil {
		check = "check-mac"
		l.bridge(mac, slices.Concat(name, c.MAC, []byte{0, 0}))
	}
	l.elements[element{set: setID{true, entry}, key: string(name), chain: check}] = true
}

func (l *lowering) bridgeMAC(c Card) {
	if hw := l.macs[c.Bridge]; hw != nil {
		l.bridge(routers, interfaceName(c.Name), hw...)
		l.bridge(hosts, slices.Concat(interfaceName(c.Name), hw, []byte{0, 0}))
	}
}

// sources are the card's addresses, and the link-local one that the kernel makes of the MAC (RFC 4291, appendix A) if there is IPv6.
func (c Card) sources() []netip.Addr {
	if c.MAC == nil || !slices.ContainsFunc(c.Addrs, netip.Addr.Is6) {
		return c.Addrs
	}
	m := c.MAC
	local := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return append(slices.Clone(c.Addrs), local)
}

func (l *lowering) pool(p netip.Prefix) {
	set := setID{false, pools + familyOf(p.Addr()).suffix}
	l.elements[element{set: set, key: string(p.Masked().Addr().AsSlice())}] = true
	if next := past(p); next != nil {
		l.elements[element{set: set, key: string(next), end: true}] = true
	}
}

// past is the address after a network; nil where there is none.
func past(p netip.Prefix) []byte {
	a := p.Masked().Addr().AsSlice()
	for i := p.Bits() - 1; i >= 0; i-- {
		bit := byte(0x80) >> (i % 8)
		a[i/8] ^= bit
		if a[i/8]&bit != 0 {
			return a
		}
	}
	return nil
}

func (l *lowering) publish(p Port, r Rules) {
	for _, target := range p.targets(r) {
		f := familyOf(target)
		for i := range int(p.last()-p.Port) + 1 {
			key := slices.Concat([]byte{byte(p.protocol()), 0, 0, 0}, wide(p.Port+uint16(i)))
			val := slices.Concat(target.AsSlice(), wide(p.to()+uint16(i)))
			if p.Addr.IsValid() && !p.Addr.IsUnspecified() {
				l.inet(address+f.suffix, slices.Concat(p.Addr.AsSlice(), key), val...)
			} else {
				l.inet(anywhere+f.suffix, key, val...)
			}
		}
		if target.Is4() && p.onLoopback() {
			l.localnet(cardOf(r.Cards, target))
		}
	}
}

// localnet allows 127.0.0.1 over the interface by which the card is reached. A bridge is not the owner's alone.
func (l *lowering) localnet(c Card) {
	if c.Bridge == "" {
		l.inet(localnet, interfaceName(c.Name))
	}
	l.local = append(l.local, c.reachedBy())
}

func (c Card) reachedBy() string {
	if c.Bridge != "" {
		return c.Bridge
	}
	return c.Name
}

func cardOf(cards []Card, a netip.Addr) Card {
	i := slices.IndexFunc(cards, func(c Card) bool { return slices.Contains(c.Addrs, a) })
	return cards[i] // there is one: see [Rules.check]
}

// targets are the addresses in the sandbox, one of each family that the port is published in.
func (p Port) targets(r Rules) (list []netip.Addr) {
	if p.Target.IsValid() {
		return []netip.Addr{p.Target}
	}
	for _, v4 := range []bool{true, false} {
		if p.Addr.IsValid() && p.Addr.Is4() != v4 {
			continue
		}
		if a, ok := first(r.Cards, v4); ok {
			list = append(list, a)
		}
	}
	return list
}

func first(cards []Card, v4 bool) (netip.Addr, bool) {
	for _, c := range cards {
		for _, a := range c.Addrs {
			if a.Is4() == v4 && !a.IsLinkLocalUnicast() {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

func (p Port) onLoopback() bool {
	return !p.Addr.IsValid() || p.Addr.IsUnspecified() || p.Addr.IsLoopback()
}

func (p Port) last() uint16 { return max(p.Port, p.Last) }

func (p Port) to() uint16 {
	if p.To == 0 {
		return p.Port
	}
	return p.To
}

func (p Port) protocol() Protocol { return p.Protocol.orTCP() }

func (p Protocol) orTCP() Protocol {
	if p == 0 {
		return TCP
	}
	return p
}

// String gives the protocol's name in lower case.
func (p Protocol) String() string {
	switch p {
	case 0:
		return "any"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	case ICMP:
		return "icmp"
	case ICMPv6:
		return "icmpv6"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// interfaceName is a name as the kernel compares it.
func interfaceName(name string) []byte {
	b := make([]byte, 16)
	copy(b, name)
	return b
}

// wide is a port with what fills up a register.
func wide(port uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, port), 0, 0) }
