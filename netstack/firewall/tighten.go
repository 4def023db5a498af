//go:build linux

package firewall

import (
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What is established passes the filter without being looked at again, so a connection would outlive the policy that had allowed it. When a policy changes, the kernel forgets the connections that the new one forbids; their
// next packet is one of a new connection. The others are left alone: their translation would be lost with them.

// forbidden picks the connections of a sandbox that its rules do not allow.
type forbidden struct {
	rules  Rules
	own    flows
	host   flows                                   // addresses of the host, who may always speak
	inside flows                                   // addresses of all sandboxes, where it matters
	pinned func(names []string, a netip.Addr) bool // whether one of the names has the address
}

// tightened reports whether connections that were allowed may not be any longer.
func tightened(old, next Rules) bool {
	return len(old.Cards) > 0 && (!reflect.DeepEqual(old.Policy, next.Policy) || next.Isolated && !old.Isolated)
}

// forgetForbidden makes the kernel forget what the rules that are now in force forbid.
func (h *Held) forgetForbidden(next Rules) (err error) {
	if !tightened(h.rules, next) {
		return nil
	}
	which := forbidden{rules: next, own: flows{}, inside: flows{}, pinned: h.pinned}
	for a := range h.rules.addrs() {
		which.own[a] = true
	}
	if which.host, err = h.f.hostAddrs(); err != nil {
		return err
	}
	if next.Isolated && !h.rules.Isolated {
		if which.inside, err = h.f.insiders(); err != nil {
			return err
		}
	}
	return deleteFlows(which)
}

// MatchConntrackFlow is called for each connection that the kernel keeps track of. Rules are about the destination behind a translation, as the filter sees it.
func (x forbidden) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	from, to := addrOfIP(c.Forward.SrcIP), addrOfIP(c.Reverse.SrcIP)
	translated := to != addrOfIP(c.Forward.DstIP)
	if x.own[from] && (x.isolated(to, translated) || x.egress(to, Protocol(c.Forward.Protocol), c.Reverse.SrcPort) != Allow) {
		return true
	}
	if !x.own[to] || x.host[from] || from.IsLoopback() {
		return false
	}
	return x.isolated(from, translated) || x.rules.Policy.Ingress.verdict(from, Protocol(c.Forward.Protocol), c.Reverse.SrcPort, x.pinned) != Allow
}

func (x forbidden) isolated(other netip.Addr, translated bool) bool {
	return x.rules.Isolated && !translated && x.inside[other] && !x.own[other]
}

func (x forbidden) egress(to netip.Addr, p Protocol, port uint16) Verdict {
	d := x.rules.Policy.Egress
	if d.any() {
		d.Rules = append(resolverRules(x.rules.Policy.Resolver), d.Rules...)
	}
	return d.verdict(to, p, port, x.pinned)
}

// verdict is what the chain of a direction says.
func (d Direction) verdict(peer netip.Addr, p Protocol, port uint16, pinned func([]string, netip.Addr) bool) Verdict {
	for _, r := range d.Rules {
		if r.matches(peer, p, port, pinned) {
			return r.Verdict
		}
	}
	return d.Otherwise
}

func (r Rule) matches(peer netip.Addr, p Protocol, port uint16, pinned func([]string, netip.Addr) bool) bool {
	switch {
	case r.Protocol != 0 && r.Protocol != p:
		return false
	case len(r.Ports) > 0 && !slices.ContainsFunc(r.Ports, func(q PortRange) bool { return q.First <= port && port <= q.Last }):
		return false
	case len(r.Names) > 0:
		return pinned(r.Names, peer)
	}
	return len(r.Peers) == 0 || slices.ContainsFunc(r.Peers, func(q netip.Prefix) bool { return q.Contains(peer) })
}

// pinned reports whether a name was answered with an address. What has run out meanwhile counts as long as it is remembered.
func (h *Held) pinned(names []string, a netip.Addr) bool {
	_, ok := h.pins[pinKey{nameSetName(familyOf(a), h.id, names), a}]
	return ok
}

func addrOfIP(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// hostAddrs are the addresses of the network namespace.
func (f *Firewall) hostAddrs() (flows, error) {
	var list []netlink.Addr
	var err error
	const tries = 5
	for range tries {
		if list, err = f.links.AddrList(nil, unix.AF_UNSPEC); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	all := flows{}
	for _, a := range list {
		all[addrOfIP(a.IP)] = true
	}
	return all, failed(err, "list the host's addresses")
}

// insiders are the addresses of all sandboxes.
func (f *Firewall) insiders() (flows, error) {
	if f.x == nil {
		elements := map[setID][]nftables.SetElement{}
		for _, fam := range families() {
			id := setID{false, inside + fam.suffix}
			list, err := f.conn.GetSetElements(f.sets[id])
			if err != nil {
				return nil, refused("", err)
			}
			elements[id] = list
		}
		return flowsOf(elements), nil
	}
	all, err := f.dir.others("")
	addrs := flows{}
	for _, c := range all {
		for a := range c.Rules.addrs() {
			addrs[a] = true
		}
	}
	return addrs, err
}
