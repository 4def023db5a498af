//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checkID refuses what cannot be the name of a file and part of the name of a chain.
func checkID(id string) error {
	good := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
	}
	switch {
	case id == "" || len(id) > 64:
		return &RuleError{"id", id, "must have 1 to 64 characters"}
	case strings.HasPrefix(id, ".") || strings.ContainsFunc(id, func(r rune) bool { return !good(r) }):
		return &RuleError{"id", id, "may have letters, digits, and - _ . after the first place"}
	}
	return nil
}

// check finds values that make no sense.
func (r Rules) check() error {
	for i, c := range r.Cards {
		if err := c.check(fmt.Sprintf("Cards[%d]", i), r.Cards[:i]); err != nil {
			return err
		}
	}
	for i, p := range r.Pools {
		field := fmt.Sprintf("Pools[%d]", i)
		if err := checkPrefix(field, p); err != nil {
			return err
		}
		if slices.ContainsFunc(r.Pools[:i], p.Overlaps) {
			return &RuleError{field, p.String(), "overlaps with another one"}
		}
	}
	for i, p := range r.Publish {
		if err := p.check(fmt.Sprintf("Publish[%d]", i), r); err != nil {
			return err
		}
	}
	for i, s := range r.Services {
		if err := s.check(fmt.Sprintf("Services[%d]", i), r.Services[:i]); err != nil {
			return err
		}
	}
	if err := r.checkNames(); err != nil {
		return err
	}
	return r.checkPolicy()
}

func (r Rules) checkPolicy() error {
	if len(r.Cards) == 0 && (r.Policy.any() || len(r.Policy.Resolver) > 0 || r.Masquerade || r.Isolated) {
		return &RuleError{"Cards", "", "there is none to which the other rules could apply"}
	}
	if err := r.Policy.checkResolver(); err != nil {
		return err
	}
	if err := r.Policy.Egress.check("Policy.Egress", len(r.Policy.Resolver) > 0); err != nil {
		return err
	}
	return r.Policy.Ingress.check("Policy.Ingress", false)
}

func (c Card) check(field string, before []Card) error {
	for _, n := range []struct{ field, name string }{{".Name", c.Name}, {".Bridge", c.Bridge}} {
		if n.name == "" && n.field == ".Bridge" {
			continue
		}
		// As dev_valid_name of the kernel has it.
		if n.name == "" || len(n.name) > 15 || n.name == "." || n.name == ".." || strings.ContainsAny(n.name, "/: \t\n\v\f\r\x00") {
			return &RuleError{field + n.field, n.name, "is no name of an interface"}
		}
	}
	if c.MAC != nil && (len(c.MAC) != 6 || c.MAC[0]&1 != 0 || c.Bridge == "") {
		return &RuleError{field + ".MAC", c.MAC.String(), "is no address of one Ethernet card, or the card is no port of a bridge"}
	}
	for i, a := range c.Addrs {
		if err := checkAddr(fmt.Sprintf("%s.Addrs[%d]", field, i), a); err != nil {
			return err
		}
		if slices.Contains(c.Addrs[:i], a) || slices.ContainsFunc(before, func(o Card) bool { return slices.Contains(o.Addrs, a) }) {
			return &RuleError{field + ".Addrs", a.String(), "stands there twice"}
		}
	}
	if slices.ContainsFunc(before, func(o Card) bool { return o.Name == c.Name }) {
		return &RuleError{field + ".Name", c.Name, "stands there twice"}
	}
	return nil
}

// checkAddr wants the address of one card.
func checkAddr(field string, a netip.Addr) error {
	switch {
	case !a.IsValid():
		return &RuleError{field, a.String(), "is no address"}
	case a.Is4In6() || a.Zone() != "":
		return &RuleError{field, a.String(), "is mapped, or has a zone"}
	case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return &RuleError{field, a.String(), "is not the address of one card"}
	}
	return nil
}

func checkPrefix(field string, p netip.Prefix) error {
	if !p.IsValid() || p.Addr().Is4In6() {
		return &RuleError{field, p.String(), "is no network"}
	}
	return nil
}

func (p Port) check(field string, r Rules) error {
	switch p.protocol() {
	case TCP, UDP, SCTP:
	default:
		return &RuleError{field + ".Protocol", p.Protocol.String(), "has no ports"}
	}
	if p.Addr.IsValid() && (p.Addr.Is4In6() || p.Addr.Zone() != "" || p.Addr.IsMulticast()) {
		return &RuleError{field + ".Addr", p.Addr.String(), "is mapped, multicast, or has a zone"}
	}
	if p.Addr == netip.IPv6Loopback() {
		return &Error{Op: "publish on ::1", Err: &reason{"the kernel takes answers to ::1 from the interface lo only", errors.ErrUnsupported}, Hint: "publish on 127.0.0.1"}
	}
	if p.Last != 0 && p.Last < p.Port || p.Port == 0 && p.Last != 0 || p.Port == 0 && p.To == 0 {
		return &RuleError{field, fmt.Sprintf("%d-%d to %d", p.Port, p.Last, p.To), "is no range of ports"}
	}
	if int(p.to())+int(p.last()-p.Port) > 65535 {
		return &RuleError{field + ".To", fmt.Sprint(p.To), "the range goes beyond port 65535"}
	}
	return p.checkTarget(field, r)
}

func (p Port) checkTarget(field string, r Rules) error {
	if p.Target.IsValid() && !slices.ContainsFunc(r.Cards, func(c Card) bool { return slices.Contains(c.Addrs, p.Target) }) {
		return &RuleError{field + ".Target", p.Target.String(), "is no address of the cards"}
	}
	if p.Target.IsValid() && p.Addr.IsValid() && p.Target.Is4() != p.Addr.Is4() {
		return &RuleError{field + ".Target", p.Target.String(), "is of another family than Addr"}
	}
	if len(p.targets(r)) == 0 {
		return &RuleError{field, p.Addr.String(), "the cards have no address of the family"}
	}
	return nil
}

func (s Service) check(field string, before []Service) error {
	if err := checkAddr(field+".Addr", s.Addr); err != nil {
		return err
	}
	switch s.Protocol.orTCP() {
	case TCP, UDP, SCTP:
	default:
		return &RuleError{field + ".Protocol", s.Protocol.String(), "has no ports"}
	}
	if s.Port == 0 || s.Spread > SourceHash {
		return &RuleError{field, fmt.Sprintf("port %d, spread %d", s.Port, s.Spread), "needs a port, and a spread that there is"}
	}
	for i, b := range s.Backends {
		if err := checkAddr(fmt.Sprintf("%s.Backends[%d]", field, i), b.Addr()); err != nil {
			return err
		}
		if b.Port() == 0 || b.Addr().Is4() != s.Addr.Is4() {
			return &RuleError{fmt.Sprintf("%s.Backends[%d]", field, i), b.String(), "has no port, or is of another family"}
		}
	}
	if slices.ContainsFunc(before, func(o Service) bool {
		return o.Addr == s.Addr && o.Port == s.Port && o.Protocol.orTCP() == s.Protocol.orTCP()
	}) {
		return &RuleError{field, s.Addr.String(), "stands there twice"}
	}
	return nil
}

func (p Policy) checkResolver() error {
	for i, r := range p.Resolver {
		field := fmt.Sprintf("Policy.Resolver[%d]", i)
		if err := checkAddr(field, r.Addr()); err != nil {
			return err
		}
		if r.Port() == 0 || slices.ContainsFunc(p.Resolver[:i], func(o netip.AddrPort) bool { return o.Addr().Is4() == r.Addr().Is4() }) {
			return &RuleError{field, r.String(), "has no port, or is the second of its family"}
		}
	}
	return nil
}

func (d Direction) check(field string, names bool) error {
	for i, r := range d.Rules {
		if err := r.check(fmt.Sprintf("%s.Rules[%d]", field, i), names); err != nil {
			return err
		}
	}
	if d.Otherwise > Reject {
		return &RuleError{field + ".Otherwise", d.Otherwise.String(), "is no verdict"}
	}
	return nil
}

func (r Rule) check(field string, names bool) error {
	switch {
	case r.Verdict > Reject:
		return &RuleError{field + ".Verdict", r.Verdict.String(), "is no verdict"}
	case len(r.Ports) > 0 && r.Protocol != TCP && r.Protocol != UDP && r.Protocol != SCTP:
		return &RuleError{field + ".Protocol", r.Protocol.String(), "has no ports"}
	case len(r.Names) > 0 && (!names || r.Verdict != Allow || len(r.Peers) > 0):
		return &RuleError{field + ".Names", strings.Join(r.Names, " "), "needs Egress, Allow, no Peers, and a Resolver"}
	}
	for i, p := range r.Peers {
		if err := checkPrefix(fmt.Sprintf("%s.Peers[%d]", field, i), p); err != nil {
			return err
		}
	}
	for i, p := range r.Ports {
		if p.Last < p.First {
			return &RuleError{fmt.Sprintf("%s.Ports[%d]", field, i), fmt.Sprintf("%d-%d", p.First, p.Last), "is no range of ports"}
		}
	}
	for i, n := range r.Names {
		if !goodPattern(n) {
			return &RuleError{fmt.Sprintf("%s.Names[%d]", field, i), n, "is no domain name"}
		}
	}
	return nil
}

// goodPattern accepts names as they are written, in lower or upper case, with "*." before them or not.
func goodPattern(n string) bool {
	n = strings.TrimPrefix(n, "*.")
	if n == "" || len(n) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(n, "."), ".") {
		bad := func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, bad) {
			return false
		}
	}
	return true
}
