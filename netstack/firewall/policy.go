//go:build linux

package firewall

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// any reports whether there is a policy.
func (p Policy) any() bool { return p.Egress.any() || p.Ingress.any() }

func (d Direction) any() bool { return len(d.Rules) > 0 || d.Otherwise != Allow }

// policy makes a chain for each direction that has rules, to which the maps send the packets of the sandbox's addresses.
func (l *lowering) policy(r Rules) {
	for _, side := range []struct {
		set string
		dir Direction
		out bool
	}{{egress, r.Policy.Egress, true}, {ingress, r.Policy.Ingress, false}} {
		if !side.dir.any() {
			continue
		}
		name := side.set + "." + l.id
		l.chains[name] = l.direction(side.dir, side.out, r.Policy.Resolver)
		for _, c := range r.Cards {
			for _, a := range c.sources() {
				l.jump(side.set+familyOf(a).suffix, a.AsSlice(), name)
			}
		}
	}
	for _, to := range r.Policy.Resolver {
		l.resolver(r.Cards, to)
	}
}

// resolver sends the questions of all addresses of its family to it.
func (l *lowering) resolver(cards []Card, to netip.AddrPort) {
	for _, c := range cards {
		for _, a := range c.Addrs {
			if a.Is4() == to.Addr().Is4() {
				l.inet(resolve+familyOf(a).suffix, a.AsSlice(), slices.Concat(to.Addr().AsSlice(), wide(to.Port()))...)
			}
		}
	}
}

func (l *lowering) direction(d Direction, out bool, resolvers []netip.AddrPort) (c chain) {
	// The kernel would take the middle of a TCP connection for a new one (nf_conntrack_tcp_loose): an end of a forgotten one could go on in the other direction.
	c.rules = append(c.rules, rule{line: join(l4proto(reg), equal(reg, []byte{unix.IPPROTO_TCP}), notFirst(), drop())})
	if out {
		for _, r := range resolverRules(resolvers) {
			l.add(&c, r, out)
		}
	}
	for _, r := range d.Rules {
		l.add(&c, r, out)
	}
	c.rules = append(c.rules, rule{line: d.Otherwise.line()})
	c.text += fmt.Sprintf("%v\n", d.Otherwise)
	return c
}

// resolverRules allow questions to resolvers.
func resolverRules(resolvers []netip.AddrPort) (list []Rule) {
	for _, r := range resolvers {
		to := []netip.Prefix{netip.PrefixFrom(r.Addr(), r.Addr().BitLen())}
		for _, p := range []Protocol{UDP, TCP} {
			list = append(list, Rule{Peers: to, Protocol: p, Ports: Ports(r.Port())})
		}
	}
	return list
}

// add appends a rule, once for each family that it is about.
func (l *lowering) add(c *chain, r Rule, out bool) {
	c.text += r.text() + "\n"
	for _, f := range families() {
		peers := slices.DeleteFunc(slices.Clone(r.Peers), func(p netip.Prefix) bool { return p.Addr().Is4() != (f.suffix == "4") })
		switch {
		case len(r.Names) > 0:
			c.rules = append(c.rules, r.lower(f, lookupIn(f, l.nameSet(f, r.Names), out), nil))
		case len(r.Peers) == 0:
			c.rules = append(c.rules, r.lower(f, nil, nil))
		case len(peers) > 0:
			set := peerSet(f, peers)
			c.rules = append(c.rules, r.lower(f, join(f.peer(out), line{set.lookup}), set))
		}
	}
}

// nameSet names the set with the addresses of the names. Rules with the same names share it, and keep it when others change.
func (l *lowering) nameSet(f family, names []string) string {
	name := nameSetName(f, l.id, names)
	key := nftables.TypeIPAddr
	if f.suffix == "6" {
		key = nftables.TypeIP6Addr
	}
	l.names[name] = nameSet{key, names}
	return name
}

func nameSetName(f family, id string, names []string) string {
	sum := sha256.Sum256([]byte(strings.Join(names, " ")))
	return "names" + f.suffix + "." + id + "." + hex.EncodeToString(sum[:8])
}

func lookupIn(f family, set string, out bool) line { return join(f.peer(out), lookup(set)) }

// peer loads the address of the other side.
func (f family) peer(out bool) line {
	if out {
		return f.daddr(reg)
	}
	return f.saddr(reg)
}

// lower makes the rule of one family: the peer first, then protocol and ports, then the verdict.
func (r Rule) lower(f family, peer line, set *ownSet) rule {
	made := rule{line: join(f.is(), peer)}
	if set != nil {
		made.sets = append(made.sets, set)
	}
	if r.Protocol != 0 {
		made.line = join(made.line, l4proto(reg), equal(reg, []byte{byte(r.Protocol)}))
	}
	if len(r.Ports) > 0 {
		ports := portSet(r.Ports)
		made.sets = append(made.sets, ports)
		made.line = join(made.line, dport(reg), line{ports.lookup})
	}
	made.line = join(made.line, r.Verdict.line())
	return made
}

func (r Rule) text() string {
	return fmt.Sprintf("%v peers %v names %v %v ports %v", r.Verdict, r.Peers, r.Names, r.Protocol, r.Ports)
}

// line is what a verdict does: Allow goes on to what comes behind the chain.
func (v Verdict) line() line {
	switch v {
	case Drop:
		return drop()
	case Reject:
		return reject()
	}
	return back()
}

// String gives the verdict's name in lower case.
func (v Verdict) String() string {
	if int(v) < len(verdictNames()) {
		return verdictNames()[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

func verdictNames() []string { return []string{"allow", "drop", "reject"} }

// ownSet is a set of intervals, or a map, that belongs to one rule (an anonymous one). The kernel knows it by the number that the transaction gives it.
type ownSet struct {
	key    nftables.SetDatatype
	ranges []interval
	lookup *expr.Lookup

	data   nftables.SetDatatype // of a map
	values []nftables.SetElement
}

// interval is from first to before end; end nil is open.
type interval struct{ first, end []byte }

func newOwnSet(key nftables.SetDatatype, ranges []interval) *ownSet {
	return &ownSet{key: key, ranges: merge(ranges), lookup: &expr.Lookup{SourceRegister: reg, SetName: "__set%d"}}
}

func peerSet(f family, peers []netip.Prefix) *ownSet {
	key := nftables.TypeIPAddr
	if f.suffix == "6" {
		key = nftables.TypeIP6Addr
	}
	var ranges []interval
	for _, p := range peers {
		ranges = append(ranges, interval{p.Masked().Addr().AsSlice(), past(p)})
	}
	return newOwnSet(key, ranges)
}

func portSet(ports []PortRange) *ownSet {
	var ranges []interval
	for _, p := range ports {
		r := interval{first: big16(p.First)}
		if p.Last < 65535 {
			r.end = big16(p.Last + 1)
		}
		ranges = append(ranges, r)
	}
	return newOwnSet(nftables.TypeInetService, ranges)
}

// merge sorts intervals and joins those that overlap or touch, which the kernel would refuse.
func merge(list []interval) (merged []interval) {
	slices.SortFunc(list, func(a, b interval) int { return cmp.Or(bytes.Compare(a.first, b.first)) })
	for _, r := range list {
		n := len(merged) - 1
		if n < 0 || merged[n].end != nil && bytes.Compare(merged[n].end, r.first) < 0 {
			merged = append(merged, r)
			continue
		}
		if merged[n].end != nil && (r.end == nil || bytes.Compare(r.end, merged[n].end) > 0) {
			merged[n].end = r.end
		}
	}
	return merged
}

// elements are the borders of the intervals, as nft(8) writes them: the first one says that what is before it is outside.
func (s *ownSet) elements() []nftables.SetElement {
	if s.values != nil {
		return s.values
	}
	zero := make([]byte, s.key.Bytes)
	var list []nftables.SetElement
	if !bytes.Equal(s.ranges[0].first, zero) {
		list = append(list, nftables.SetElement{Key: zero, IntervalEnd: true})
	}
	for _, r := range s.ranges {
		list = append(list, nftables.SetElement{Key: r.first})
		if r.end != nil {
			list = append(list, nftables.SetElement{Key: r.end, IntervalEnd: true})
		}
	}
	return list
}
