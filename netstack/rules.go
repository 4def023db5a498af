//go:build linux

package netstack

import (
	"errors"
	"io"

	"github.com/caisson-dev/caisson/netstack/firewall"
	"github.com/caisson-dev/caisson/netstack/internal/owner"
)

// Port publishes a port of the sandbox on the host, or a range: Port{Port: 8080, To: 80}.
type Port = firewall.Port

// Policy says whom the sandbox may speak to, and who to it.
type Policy = firewall.Policy

// Backend is the part of the kernel that keeps the rules: firewall.NFTables, firewall.IPTables, or what is there (firewall.Probe, the zero value).
type Backend = firewall.Backend

// Resolver answers the questions of sandboxes whose policies allow names: Resolver{Upstream: []netip.AddrPort{...}}.
type Resolver = firewall.Resolver

// forwards reports whether the sandbox's packets go beyond the bridge, so that the host must forward.
func (b Bridge) forwards() bool {
	return b.Masquerade || len(b.Publish) > 0 || b.policed() || b.asks()
}

func (b Bridge) policed() bool {
	p := b.Policy
	return len(p.Egress.Rules) > 0 || len(p.Ingress.Rules) > 0 || p.Egress.Otherwise != 0 || p.Ingress.Otherwise != 0 || len(p.Resolver) > 0
}

// checkRules refuses what Unchecked would leave without effect.
func (b Bridge) checkRules() error {
	switch {
	case b.Unchecked && b.forwards():
		return &ValueError{"Unchecked", "true", "Masquerade, Publish, Policy and Resolver know the sandbox by its addresses, so they must be checked"}
	case b.Unchecked && b.Backend != firewall.Probe:
		return &ValueError{"Backend", b.Backend.String(), "with Unchecked there are no rules"}
	case b.Backend > firewall.IPTables:
		return &ValueError{"Backend", b.Backend.String(), "is none that there is"}
	case !b.Unchecked && len(b.Subnets) == 0 && len(b.Card.Addresses) == 0:
		return &ValueError{"Unchecked", "false", "the sandbox has no address, so that nothing it sends could pass"}
	}
	return b.checkResolver()
}

// rules are the sandbox's part of the firewall.
func (t *port) rules() firewall.Rules {
	card := firewall.Card{Name: t.cable, Bridge: t.Name, MAC: t.Card.MAC, Later: true}
	for _, a := range t.addresses().own {
		card.Addrs = append(card.Addrs, a.Addr())
	}
	for _, a := range t.Card.Addresses {
		card.Addrs = append(card.Addrs, a.Addr())
	}
	return firewall.Rules{Cards: []firewall.Card{card}, Masquerade: t.Masquerade, Isolated: t.Isolated, Publish: t.Publish, Policy: t.Policy, Names: labels(t.Hosts)}
}

type firewallKey struct {
	forward bool
	backend Backend
}

// firewallOf opens the firewall of the host's network namespace, once for all sandboxes of the process that are there.
func firewallOf(o *owner.Owner, forward bool, backend Backend) (*firewall.Firewall, error) {
	c, err := o.Keep(firewallKey{forward, backend}, func() (c io.Closer, err error) {
		err = owner.In(o.Net, func() (err error) {
			c, err = firewall.Host{Forward: forward, Backend: backend}.Open()
			return err
		})
		return c, err
	})
	if err != nil {
		return nil, err
	}
	return c.(*firewall.Firewall), nil
}

// guard puts the rules in force.
func (t *port) guard(o *owner.Owner) error {
	if t.Unchecked || t.held != nil {
		return nil
	}
	f, err := firewallOf(o, t.forwards(), t.Backend)
	if err == nil && t.asks() {
		t.Policy.Resolver, err = t.answers(o, f)
	}
	if err == nil {
		t.held, err = f.Add(t.cable, t.rules())
	}
	if conflict := (*firewall.ConflictError)(nil); errors.As(err, &conflict) { // with somebody dead, perhaps
		if dead, e := f.Sweep(); e == nil && len(dead) > 0 {
			t.held, err = f.Add(t.cable, t.rules())
		}
	}
	if err != nil && errors.Is(err, errors.ErrUnsupported) {
		return &Error{Op: "check what is sent by", Device: t.Card.Name, Err: err, Hint: "Unchecked does without"}
	}
	return err
}
