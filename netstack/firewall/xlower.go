//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// xlowering collects the lines of one owner.
type xlowering struct {
	id    string
	r     Rules
	lines []xline
	local []string // as in state
}

// xlower translates rules that are valid, and that xrefuse lets pass.
func xlower(id string, r Rules) ([]xline, []string) {
	x := &xlowering{id: id, r: r}
	for i, c := range r.Cards {
		x.card(i, c)
	}
	for _, p := range r.Pools {
		x.private(toolOf(p.Addr()), p.Masked().String())
		x.inside(toolOf(p.Addr()), p.Masked().String())
	}
	for _, p := range r.Publish {
		x.publish(p)
	}
	for i, s := range r.Services {
		x.service(i, s)
	}
	x.policies()
	return x.lines, x.local
}

// xrefuse says what cannot be expressed.
func xrefuse(r Rules) error {
	cannot := func(what, why string) error {
		return &Error{Op: what + " by iptables", Err: &reason{why, errors.ErrUnsupported}}
	}
	for _, c := range r.Cards {
		if name := c.Name + c.Bridge; strings.ContainsFunc(name, unwritable) {
			return cannot("write the interface "+c.reachedBy(), "only names of letters, digits, and - _ . @ can be written")
		}
	}
	for _, s := range r.Services {
		if s.Spread == SourceHash {
			return cannot("spread by source addresses", "there is no such rule")
		}
	}
	for _, rule := range r.Policy.Egress.Rules {
		if len(rule.Names) > 0 {
			return cannot("allow names", "there are no sets whose elements end by themselves")
		}
	}
	return nil
}

// unwritable tells of a character that would mean something else in a line: a plus sign at the end of a name, say, stands for any name that begins so.
func unwritable(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.@", r))
}

func toolOf(a netip.Addr) string {
	if a.Is4() {
		return ip4tables
	}
	return ip6tables
}

// ip adds a line to a shared chain; the comment says whose it is.
func (x *xlowering) ip(tool, table, chain, match, then string) {
	x.lines = append(x.lines, xline{tool: tool, table: table, chain: xprefix + chain, text: match + " -m comment --comment " + x.id + " -j " + then})
}

// firstIP adds a line before those of others.
func (x *xlowering) firstIP(tool, table, chain, match, then string) {
	x.ip(tool, table, chain, match, then)
	x.lines[len(x.lines)-1].first = true
}

// own adds a line to a chain of the owner's own.
func (x *xlowering) own(tool, table, what, text string) {
	x.lines = append(x.lines, xline{tool: tool, table: table, chain: xown(x.id, what), text: text})
}

// once adds the one line of a chain of the owner's own, for the first card that needs it.
func (x *xlowering) once(table, what, text string) {
	if line := (xline{tool: ebtables, table: table, chain: xown(x.id, what), text: text}); !slices.Contains(x.lines, line) {
		x.lines = append(x.lines, line)
	}
}

// bridge adds a line to a shared chain of ebtables, which has no comments: it leads to a chain of the owner's own.
func (x *xlowering) bridge(table, chain, match, what string) {
	x.lines = append(x.lines, xline{tool: ebtables, table: table, chain: xprefix + chain, text: match + " -j " + xown(x.id, what)})
}

const notTranslated = " -m conntrack ! --ctstate DNAT"

func (x *xlowering) card(n int, c Card) {
	for _, a := range c.Addrs {
		t, text := toolOf(a), a.String()
		x.ip(t, "filter", "to", "-d "+text, "DROP")
		x.ip(t, "filter", "from", "-s "+text, "DROP")
		x.ip(t, "filter", "fwd", "-s "+text+" -m conntrack --ctstate INVALID", "DROP")
		if x.r.Isolated {
			x.ip(t, "filter", "fwd", "-s "+text+notTranslated, xprefix+"to")
			x.ip(t, "filter", "fwd", "-d "+text+notTranslated, xprefix+"from")
		}
		x.ip(t, "nat", "masq-to", "-d "+text, "MASQUERADE")
		x.ip(t, "nat", "hair", "-s "+text, xprefix+"masq-to")
		x.inside(t, text)
		if x.r.Masquerade {
			x.private(t, text)
		}
	}
	if c.Bridge == "" {
		x.routed(c)
		return
	}
	x.port(n, c)
}

// inside says that an address, or a network, is not outside.
func (x *xlowering) inside(tool, text string) {
	x.firstIP(tool, "nat", "leave", "-d "+text, "RETURN")
	x.firstIP(tool, "filter", "private", "-s "+text, "RETURN")
}

// private masquerades what leaves, and keeps out what was not translated.
func (x *xlowering) private(tool, text string) {
	x.ip(tool, "nat", "masq", "-s "+text, xprefix+"leave")
	x.ip(tool, "filter", "fwd", "-d "+text+notTranslated, xprefix+"private")
}

// routed checks the sources of a card that is no port of a bridge.
func (x *xlowering) routed(c Card) {
	in := "-i " + c.Name + " "
	for _, text := range xdiscovery(in) {
		match, then, _ := strings.Cut(text, " -j ")
		x.ip(ip6tables, "raw", "raw", match, then)
	}
	for _, a := range c.Addrs {
		x.ip(toolOf(a), "raw", "raw", in+"-s "+a.String(), "RETURN")
	}
	x.ip(ip4tables, "raw", "raw", strings.TrimSpace(in), "DROP")
	x.ip(ip6tables, "raw", "raw", strings.TrimSpace(in), "DROP")
}

// port checks the frames of a card that is a port of a bridge. They are ARP, or IP of a family of which the card has an address, or dropped.
func (x *xlowering) port(n int, c Card) {
	check := fmt.Sprint("c", n)
	if c.MAC != nil {
		x.own(ebtables, "nat", check, "-s ! "+c.MAC.String()+" -j DROP")
	}
	for _, a := range c.Addrs {
		if a.Is4() {
			x.own(ebtables, "nat", check, "-p IPv4 --ip-src "+a.String()+" -j RETURN")
			x.own(ebtables, "nat", check, "-p ARP --arp-ip-src "+a.String()+" -j RETURN")
		}
	}
	if c.bridged6() {
		x.sources6(check, c)
		x.advertisements(c)
	}
	x.own(ebtables, "nat", check, "-p ARP --arp-ip-src 0.0.0.0 -j RETURN") // a probe has none (RFC 5227)
	x.own(ebtables, "nat", check, "-j DROP")
	x.bridge("nat", "check", "-i "+c.Name, check)
	x.once("filter", "drop", "-j DROP")
	x.once("filter", "to", "-j caisson-v1-to")
	x.once("filter", "from", "-j caisson-v1-from")
	x.bridge("filter", "to", "-o "+c.Name, "drop")
	x.bridge("filter", "from", "-i "+c.Name, "drop")
	x.bridge("filter", "control", "-i "+c.Name, "drop")
	x.bridge("filter", "bridged", "-i "+c.Name+" -o "+c.Name, "drop")
	if x.r.Isolated {
		x.bridge("filter", "bridged", "-i "+c.Name, "to")
		x.bridge("filter", "bridged", "-o "+c.Name, "from")
	}
	if x.r.Policy.any() {
		x.steer(c)
	}
}

// steer hands frames to the host instead of the neighbour, so that they come by where policies are.
func (x *xlowering) steer(c Card) {
	x.stay("nat", "host", "-j redirect --redirect-target CONTINUE")
	x.bridge("nat", "steer", "-p IPv4 -i "+c.Name+" -d Unicast", "host")
	x.bridge("nat", "steer", "-p IPv6 -i "+c.Name+" -d Unicast", "host")
	for _, a := range c.sources() {
		if a.Is4() {
			x.bridge("nat", "steer", "-p IPv4 -d Unicast --ip-dst "+a.String(), "host")
		} else {
			x.bridge("nat", "steer", "-p IPv6 -d Unicast --ip6-dst "+a.String(), "host")
		}
	}
	x.stay("filter", "steered", "-j DROP")
	x.bridge("filter", "bridged", "-p ! ARP -i "+c.Name, "steered")
	x.bridge("filter", "bridged", "-p ! ARP -o "+c.Name, "steered")
}

func (x *xlowering) publish(p Port) {
	for _, target := range p.targets(x.r) {
		t := toolOf(target)
		match := fmt.Sprintf("-p %d --dport %d:%d", p.protocol(), p.Port, p.last())
		then := "DNAT --to-destination " + p.destination(target)
		if p.Addr.IsValid() && !p.Addr.IsUnspecified() {
			x.ip(t, "nat", "addr", "-d "+p.Addr.String()+" "+match, then)
		} else {
			x.ip(t, "nat", "any", match+" -m addrtype --dst-type LOCAL", then)
		}
		if target.Is4() && p.onLoopback() {
			x.local = append(x.local, cardOf(x.r.Cards, target).reachedBy())
		}
	}
}

// destination is where a published range goes: the n-th port to the n-th (Linux 4.18).
func (p Port) destination(target netip.Addr) string {
	switch {
	case p.to() == p.Port:
		return target.String()
	case p.last() == p.Port:
		return netip.AddrPortFrom(target, p.to()).String()
	}
	return fmt.Sprintf("%v-%d/%d", netip.AddrPortFrom(target, p.to()), p.to()+p.last()-p.Port, p.Port)
}

func (x *xlowering) service(n int, s Service) {
	t, what := toolOf(s.Addr), fmt.Sprint("s", n)
	match := fmt.Sprintf("-d %v -p %d --dport %d", s.Addr, s.Protocol.orTCP(), s.Port)
	if len(s.Backends) == 0 { // tables for translation cannot drop
		for _, chain := range []string{"fwd", "input", "own"} {
			x.ip(t, "filter", chain, match, "DROP")
		}
		return
	}
	x.ip(t, "nat", "svc", match, xown(x.id, what))
	for i, b := range s.Backends {
		pick := ""
		if left := len(s.Backends) - i; left > 1 {
			pick = fmt.Sprintf("-m statistic --mode random --probability %.10f ", 1/float64(left))
			if s.Spread == RoundRobin {
				pick = fmt.Sprintf("-m statistic --mode nth --every %d --packet 0 ", left)
			}
		}
		x.own(t, "nat", what, fmt.Sprintf("-p %d %s-j DNAT --to-destination %v", s.Protocol.orTCP(), pick, b))
	}
}
