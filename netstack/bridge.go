//go:build linux

package netstack

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
	"github.com/caisson-dev/caisson/netstack/ipam"
	"github.com/caisson-dev/caisson/plan"
)

// Bridge connects the sandbox to a bridge of the host's: a switch with a cable to each sandbox, and the host itself on it with the gateway's address (veth(4), ip-link(8)). The zero value is
// a card "eth0" on the bridge "caisson0" with the next free address of [DefaultSubnets].
//
// The bridge is made when it is not there. It stays afterwards, for others: [Bridge.Delete] removes it. The sandbox's cable and addresses are gone when the sandbox has ended, and
// where the host process is killed, with the next start on the same host.
//
// Those on a bridge see one another, and the host. What the sandbox sends passes only with its own addresses, and it cannot speak for others by ARP or neighbour discovery; nor does the
// host believe router advertisements and redirects from it (CVE-2020-13401, CVE-2020-10749). Beyond the bridge nothing is reached without Masquerade. See package firewall for the rules.
//
// Needs CAP_NET_ADMIN over the host's network and CAP_SYS_ADMIN, and nf_tables in the kernel, or iptables and ebtables with their programs, and br_netfilter for IPv6 then.
type Bridge struct {
	Name string // of the bridge, 1 to 15 bytes; "" is "caisson0"

	// Subnets are the addresses of the bridge: the host gets the gateway's of each, the sandbox the next free one. nil stands for [DefaultSubnets]; none, but not nil, for a
	// bridge without addresses. Where there is one already, with other addresses, it is an error.
	Subnets []ipam.Subnet

	// Addresses are those that the sandbox is to have of the subnets, at most one of each.
	Addresses []netip.Addr

	// Internal leaves out the default route.
	Internal bool

	MTU           int  // of the bridge and of the sandbox's card, in bytes; 0 is the kernel's: 1500 for a new bridge
	VLANFiltering bool // the bridge keeps VLANs apart; every port is in VLAN 1 if not said otherwise
	VLAN          int  // the VLAN of the sandbox, 1 to 4094, with VLANFiltering; 0 is the bridge's default
	STP           bool // the bridge looks for loops (IEEE 802.1D), which makes a new port wait for 30 seconds

	// Isolated keeps the sandbox from all others, but for what they publish. With Unchecked it keeps it from those only that are isolated, too (Linux 4.18).
	Isolated bool

	// Masquerade lets the sandbox reach other networks with the host's address. It allows forwarding on the host, for all (net.ipv4.ip_forward and the like), where it is not allowed yet.
	Masquerade bool

	// Publish makes ports of the sandbox ports of the host. It allows forwarding as Masquerade does.
	Publish []Port

	// Policy says whom the sandbox may speak to, and who to it. The zero value allows all.
	Policy Policy

	// Resolver answers the sandbox's questions for names, whomever they are addressed to, as soon as it has an Upstream: for the names that rules of Policy allow (Names), whose addresses it allows as long as
	// they are valid, and for those of neighbours (Hosts). It listens at the gateway's addresses while this process has sandboxes there; those with the same Resolver share one. The zero value is none.
	Resolver Resolver

	// Backend is the part of the kernel that keeps the rules. The zero value is nf_tables if it is there, else iptables; see firewall.IPTables for what it cannot do. All who use the same bridge should say the same.
	Backend Backend

	// Unchecked does without the rules that hold the sandbox to its own addresses, for a kernel without a packet filter, or a bridge on which addresses are not known beforehand: then the
	// sandbox may claim any address of its neighbours' and the host's.
	Unchecked bool

	// Bandwidth limits what the sandbox sends and receives.
	Bandwidth Bandwidth

	// Hosts are names under which [Bridge.Names] finds the sandbox, and those of one label under which its neighbours do who have a Resolver.
	Hosts []string

	// State is the directory for what must survive a crash; "" is [StateDir]. All who use the same bridge must say the same, and none else may write there.
	State string

	// Card is the sandbox's end.
	Card Card
}

// DefaultSubnets are those of a bridge that names none: 10.77.0.0/16 and fd77:ca15:50::/64.
func DefaultSubnets() []ipam.Subnet {
	return []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.77.0.0/16")}, {Prefix: netip.MustParsePrefix("fd77:ca15:50::/64")}}
}

// Apply asks for the card, and for the bridge.
func (b Bridge) Apply(p *plan.Plan) error {
	b, err := b.complete()
	if err != nil {
		return err
	}
	s, err := sessionOf(p)
	if err != nil {
		return err
	}
	if err := s.owns(b.State); err != nil {
		return err
	}
	if b.Card, err = b.Card.claim(p); err != nil {
		return err
	}
	s.ports++
	attach(p, b.Card.Name, b.text(), func() device { return &port{Bridge: b} })
	return nil
}

func (b Bridge) text() string {
	text := fmt.Sprintf("bridge %q", b.Name)
	for i, s := range b.Subnets {
		text += []string{" with addresses of ", ", "}[min(i, 1)] + s.Prefix.String()
	}
	text += fmt.Sprintf("; veth \"%s*\", %q inside", owner.Prefix, b.Card.Name)
	if !b.Unchecked {
		text += "; its own addresses only"
	}
	if b.Masquerade {
		text += "; masquerade"
	}
	for _, q := range b.Publish {
		text += fmt.Sprintf("; publish %d as %d", cmp.Or(q.To, q.Port), q.Port)
	}
	if b.policed() {
		text += "; policy"
	}
	if b.asks() {
		text += "; questions are answered here"
	}
	if b.Backend != 0 {
		text += "; by " + b.Backend.String()
	}
	return text
}

// complete fills in the defaults and checks the rest.
func (b Bridge) complete() (Bridge, error) {
	b.Name, b.State = cmp.Or(b.Name, "caisson0"), cmp.Or(b.State, StateDir)
	if b.Subnets == nil {
		b.Subnets = DefaultSubnets()
	}
	if err := checkName("Name", b.Name); err != nil {
		return b, err
	}
	if owner.Of(b.Name) != "" {
		return b, &ValueError{"Name", b.Name, "looks like a sandbox's cable, which would be removed when its owner is gone"}
	}
	b.Card.MTU = cmp.Or(b.Card.MTU, b.MTU)
	for _, err := range []error{checkMTU(b.MTU), b.Card.check(), b.checkSubnets(), b.checkRules(), b.Bandwidth.check()} {
		if err != nil {
			return b, err
		}
	}
	switch {
	case b.VLAN < 0 || b.VLAN > 4094:
		return b, &ValueError{"VLAN", strconv.Itoa(b.VLAN), "not between 1 and 4094"}
	case b.VLAN != 0 && !b.VLANFiltering:
		return b, &ValueError{"VLAN", strconv.Itoa(b.VLAN), "without VLANFiltering the bridge would not keep it apart"}
	case b.MTU != 0 && b.Card.MTU > b.MTU:
		return b, &ValueError{"MTU", strconv.Itoa(b.Card.MTU), "the bridge drops what is larger than " + strconv.Itoa(b.MTU)}
	case b.State[0] != '/':
		return b, &ValueError{"State", b.State, "not an absolute path"}
	}
	return b, nil
}

func (b Bridge) checkSubnets() error {
	pool := ipam.Pool{Subnets: b.Subnets}
	if err := pool.Check(); err != nil {
		return err
	}
	if err := pool.CheckRequest(ipam.Request{Addresses: b.Addresses, Names: b.Hosts}); err != nil {
		return err
	}
	for _, s := range b.Subnets {
		if s.Prefix.Addr().Is6() && b.Card.MTU != 0 && b.Card.MTU < 1280 {
			return &ValueError{"MTU", strconv.Itoa(b.Card.MTU), "IPv6 needs 1280"}
		}
	}
	return nil
}

// pool is where the bridge's addresses are given out, in one network namespace of the host's.
func (b Bridge) pool(o *owner.Owner) ipam.Pool {
	return ipam.Pool{Dir: poolDir(o, b.Name), Subnets: b.Subnets}
}

func poolDir(o *owner.Owner, bridge string) string { return filepath.Join(o.Dir, "pools", bridge) }
