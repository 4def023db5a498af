//go:build linux

package netstack

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
	"github.com/caisson-dev/caisson/plan"
)

// Veth is a cable between the sandbox and the host, without a bridge (veth(4)). The zero value is a card "eth0" without addresses.
//
// The host's end ignores router advertisements and redirects from the sandbox. What the sandbox sends is not checked for its own addresses, as it is by [Bridge]: which addresses are behind the cable is known to the caller's
// routes only, and the kernel's own check against them knows IPv4 only, and is not strict where the host says so for all devices (rp_filter; 2 in net.ipv4.conf.all). A sandbox that is not trusted, and the host forwards for, needs
// a Bridge, or a rule of the caller's such as nft's "fib saddr . iif oif missing drop".
//
// Needs CAP_NET_ADMIN over the host's network and CAP_SYS_ADMIN.
type Veth struct {
	// Host is the name of the host's end. "" is one that says whose it is, so that it is removed also where the host process is killed; with a name of its own it is gone with the sandbox's
	// network namespace, when the last process in it has ended.
	Host string

	HostAddresses []netip.Prefix // of the host's end
	HostRoutes    []Route        // of the host, over its end
	State         string         // as in [Bridge]
	Bandwidth     Bandwidth      // limits what the sandbox sends and receives; with Send, Host must leave room for a further byte
	Card          Card           // the sandbox's end
}

// Apply asks for the cable.
func (v Veth) Apply(p *plan.Plan) error {
	if v.Host != "" {
		if err := checkName("Host", v.Host); err != nil {
			return err
		}
		if owner.Of(v.Host) != "" {
			return &ValueError{"Host", v.Host, "looks like a name that says whose it is"}
		}
	}
	end := Card{Addresses: v.HostAddresses, Routes: v.HostRoutes, MTU: v.Card.MTU}
	if err := errors.Join(end.check(), v.Card.check(), v.Bandwidth.check()); err != nil {
		return err
	}
	s, err := sessionOf(p)
	if err != nil {
		return err
	}
	if err := s.owns(v.State); err != nil {
		return err
	}
	if v.Card, err = v.Card.claim(p); err != nil {
		return err
	}
	attach(p, v.Card.Name, fmt.Sprintf("veth %q, to the host's %q", v.Card.Name, cmp.Or(v.Host, owner.Prefix+"*")), func() device { return &cable{Veth: v, end: end} })
	return nil
}

type cable struct {
	Veth
	end  Card
	made string
}

func (c *cable) prepare(*wire) error { return nil }

func (c *cable) plug(w *wire) error {
	in, err := w.inside()
	if err != nil {
		return err
	}
	c.end.Name = cmp.Or(c.Host, w.owner.Name())
	link := newVeth(c.end.Name, c.Card, w.target)
	if err := w.host.LinkAdd(link); err != nil {
		return failed(err, fmt.Sprintf("create veth with the end %q in the sandbox and", c.Card.Name), c.end.Name)
	}
	c.made = c.end.Name
	if err := owner.In(w.owner.Net, func() error { return deaf(c.made) }); err != nil {
		return err
	}
	if err := c.Bandwidth.limit(w.host.Handle, link, true); err != nil {
		return err
	}
	if err := c.end.configure(w.host, addresses{}); err != nil {
		return err
	}
	if err := c.Card.configure(in, addresses{}); err != nil {
		return err
	}
	return settle(w.host, c.made)
}

// newVeth describes a cable with one end in the sandbox. It has one queue at each end instead of one for each processor: it needs no lock to send, so more gain nothing, and each takes the kernel
// some time to make.
func newVeth(name string, c Card, t target) *netlink.Veth {
	v := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: c.Name, PeerHardwareAddr: c.MAC, PeerNamespace: t.here(), PeerTxQLen: -1,
		PeerMTU: uint32(c.MTU), PeerNumTxQueues: 1, PeerNumRxQueues: 1}
	v.Name, v.MTU, v.NumTxQueues, v.NumRxQueues = name, c.MTU, 1, 1
	return v
}

func (c *cable) unplug(w *wire) (err error) {
	if c.made != "" {
		err = removeCable(w.host.Handle, c.made)
		c.made = ""
	}
	return err
}

// Macvlan is a device with an address of its own on the network of a device of the host's, as if it were plugged in there. The host itself and the sandbox do not see each other on it
// (ip-link(8)). What it sends does not come by the host's packet filter: a sandbox that has CAP_NET_ADMIN or CAP_NET_RAW over its network can take any address of that network, as a machine there could. Only the switch can forbid it. Needs CAP_NET_ADMIN over the host's network and CAP_SYS_ADMIN.
type Macvlan struct {
	Parent string      // the host's device
	Mode   MacvlanMode // the zero value is MacvlanBridge
	Card   Card        // an MTU beyond the parent's is an error
}

// MacvlanMode says whom of the other devices of the same parent a [Macvlan] sees.
type MacvlanMode uint8

// The modes.
const (
	MacvlanBridge   MacvlanMode = iota // all, directly
	MacvlanPrivate                     // none
	MacvlanVEPA                        // all, by way of a switch outside that sends back what comes from a port
	MacvlanPassthru                    // there is only this one, with the parent's own hardware address
)

var macvlanModes = map[MacvlanMode]netlink.MacvlanMode{MacvlanBridge: netlink.MACVLAN_MODE_BRIDGE, MacvlanPrivate: netlink.MACVLAN_MODE_PRIVATE,
	MacvlanVEPA: netlink.MACVLAN_MODE_VEPA, MacvlanPassthru: netlink.MACVLAN_MODE_PASSTHRU}

// Apply asks for the device.
func (m Macvlan) Apply(p *plan.Plan) error {
	mode, ok := macvlanModes[m.Mode]
	if !ok {
		return &ValueError{"Mode", strconv.Itoa(int(m.Mode)), "not a mode"}
	}
	return child(p, "macvlan", m.Parent, m.Card, func(a netlink.LinkAttrs) netlink.Link { return &netlink.Macvlan{LinkAttrs: a, Mode: mode} })
}

// Ipvlan is a device with addresses of its own on the network of a device of the host's, and with the same hardware address (ip-link(8)). As with [Macvlan] nobody checks with which addresses the
// sandbox sends; in the mode IpvlanL3S the host's packet filter sees it all, and a rule of the caller's there can. Needs a kernel with ipvlan, CAP_NET_ADMIN
// over the host's network and CAP_SYS_ADMIN.
type Ipvlan struct {
	Parent string     // the host's device
	Mode   IpvlanMode // the zero value is IpvlanL2
	Card   Card       // without MAC: it is the parent's
}

// IpvlanMode says how an [Ipvlan] finds others.
type IpvlanMode uint8

// The modes.
const (
	IpvlanL2  IpvlanMode = iota // as on a switch
	IpvlanL3                    // by routes; the parent does not forward broadcasts
	IpvlanL3S                   // as IpvlanL3, through the host's packet filter
)

var ipvlanModes = map[IpvlanMode]netlink.IPVlanMode{IpvlanL2: netlink.IPVLAN_MODE_L2, IpvlanL3: netlink.IPVLAN_MODE_L3, IpvlanL3S: netlink.IPVLAN_MODE_L3S}

// Apply asks for the device.
func (v Ipvlan) Apply(p *plan.Plan) error {
	mode, ok := ipvlanModes[v.Mode]
	if !ok {
		return &ValueError{"Mode", strconv.Itoa(int(v.Mode)), "not a mode"}
	}
	if v.Card.MAC != nil {
		return &ValueError{"MAC", v.Card.MAC.String(), "an ipvlan device has its parent's"}
	}
	return child(p, "ipvlan", v.Parent, v.Card, func(a netlink.LinkAttrs) netlink.Link { return &netlink.IPVlan{LinkAttrs: a, Mode: mode} })
}

// Vlan is a device for one VLAN of a device of the host's (IEEE 802.1Q, ip-link(8)). As with [Macvlan] nobody but the switch
// checks with which addresses the sandbox sends. Needs a kernel with 8021q, CAP_NET_ADMIN over the host's network and CAP_SYS_ADMIN.
type Vlan struct {
	Parent string // the host's device
	ID     int    // 1 to 4094
	Card   Card
}

// Apply asks for the device.
func (v Vlan) Apply(p *plan.Plan) error {
	if v.ID < 1 || v.ID > 4094 {
		return &ValueError{"ID", strconv.Itoa(v.ID), "not between 1 and 4094"}
	}
	return child(p, "vlan "+strconv.Itoa(v.ID), v.Parent, v.Card, func(a netlink.LinkAttrs) netlink.Link {
		return &netlink.Vlan{LinkAttrs: a, VlanId: v.ID, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	})
}

// child asks for a device that is made of one of the host's, directly in the sandbox's network namespace: there is nothing of it on the host, and it is gone with the namespace.
func child(p *plan.Plan, kind, parent string, c Card, link func(netlink.LinkAttrs) netlink.Link) error {
	if err := errors.Join(checkName("Parent", parent), c.check()); err != nil {
		return err
	}
	if _, err := sessionOf(p); err != nil {
		return err
	}
	c, err := c.claim(p)
	if err != nil {
		return err
	}
	attach(p, c.Name, fmt.Sprintf("%s %q of the host's %q", kind, c.Name, parent),
		func() device { return &offspring{kind: kind, parent: parent, Card: c, link: link} })
	return nil
}

type offspring struct {
	Card
	kind, parent string
	link         func(netlink.LinkAttrs) netlink.Link
	index, mtu   int // of the parent
}

func (o *offspring) prepare(w *wire) error {
	parent, err := find(w.host.Handle, o.parent)
	if err != nil {
		return err
	}
	o.index, o.mtu = parent.Attrs().Index, parent.Attrs().MTU
	if o.MTU > o.mtu {
		return &Error{Op: fmt.Sprintf("set mtu %d of", o.MTU), Device: o.Name, Err: &reason{fmt.Sprintf("%q has %d", o.parent, o.mtu), syscall.EINVAL}}
	}
	return nil
}

func (o *offspring) plug(w *wire) error {
	in, err := w.inside()
	if err != nil {
		return err
	}
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.HardwareAddr, a.ParentIndex, a.Namespace = o.Name, o.MTU, o.MAC, o.index, w.target.here()
	if err := w.host.LinkAdd(o.link(a)); err != nil {
		return failed(err, fmt.Sprintf("create %s of %q in the sandbox:", o.kind, o.parent), o.Name)
	}
	return o.Card.configure(in, addresses{})
}

func (o *offspring) unplug(*wire) error { return nil }
