//go:build linux

package netstack

import (
	"cmp"
	"errors"
	"net/netip"
	"runtime"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
)

// Vxlan joins bridges of several hosts to one network, over UDP (RFC 7348, ip-link(8)): the peers are known beforehand, and the bridges learn which device is behind which. It is a device of the host's, not a
// part of a sandbox.
//
// Without WireGuard nothing is encrypted or signed: the hosts' network must be one's own, and the port closed to others; a host that can send there is on the bridge. Who gives out addresses on several hosts gives each host a range
// of its own (First and Last of ipam.Subnet). Needs CAP_NET_ADMIN and vxlan in the kernel.
type Vxlan struct {
	Name   string       // of the device, 1 to 15 bytes
	ID     int          // of the network, 1 to 2^24-1; the same on all hosts
	Local  netip.Addr   // of this host, from which is sent; none with WireGuard
	Peers  []netip.Addr // of the other hosts, of Local's family
	Port   int          // UDP port, the same on all hosts; 0 is 4789
	Bridge string       // whose port it becomes; it must be there
	MTU    int          // in bytes; 0 is what Local's device has room for, with WireGuard 1350

	// WireGuard encrypts all that is sent. Peers are then where it finds the other hosts first; it follows those that move.
	WireGuard WireGuard
}

func (v Vxlan) check() error {
	if err := errors.Join(checkName("Name", v.Name), checkName("Bridge", v.Bridge), checkMTU(v.MTU)); err != nil {
		return err
	}
	switch {
	case owner.Of(v.Name) != "":
		return &ValueError{"Name", v.Name, "looks like a sandbox's cable"}
	case v.ID < 1 || v.ID >= 1<<24:
		return &ValueError{"ID", strconv.Itoa(v.ID), "not between 1 and 2^24-1"}
	case v.Port < 0 || v.Port > 65535:
		return &ValueError{"Port", strconv.Itoa(v.Port), "not a port"}
	}
	hosts := append([]netip.Addr{v.Local}, v.Peers...)
	if v.WireGuard.wanted() {
		if hosts = v.Peers; v.Local.IsValid() {
			return &ValueError{"Local", v.Local.String(), "WireGuard sends from the address that has the way to the peer"}
		}
	}
	for _, a := range hosts {
		if !a.IsValid() || a.Zone() != "" || a.Is4() != hosts[0].Is4() || a.IsMulticast() || a.IsUnspecified() || a.Is4In6() {
			return &ValueError{"Peers", a.String(), "not the address of a host, of the same family as the others"}
		}
	}
	return v.WireGuard.check(len(v.Peers))
}

// complete names the tunnel's device.
func (v Vxlan) complete() Vxlan {
	if v.WireGuard.wanted() {
		v.WireGuard.Device = cmp.Or(v.WireGuard.Device, "wg-"+v.Name)
	}
	return v
}

// Create makes the device and connects it with the bridge. One with the name is an error with EEXIST; on failure nothing is left. A port of WireGuard's that is taken is one with EADDRINUSE.
func (v Vxlan) Create() error {
	v = v.complete()
	if err := v.check(); err != nil {
		return err
	}
	runtime.LockOSThread() // all is done in one network
	defer runtime.UnlockOSThread()
	h, err := newHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	bridge, err := find(h, v.Bridge)
	if err != nil {
		return err
	}
	if !v.WireGuard.wanted() {
		return v.add(h, bridge, v.ends(), 0)
	}
	tunnel, err := v.createTunnel(h)
	if err != nil {
		return err
	}
	if err := v.add(h, bridge, v.ends(), tunnel.Attrs().Index); err != nil {
		return errors.Join(err, remove(h, v.WireGuard.Device))
	}
	return nil
}

// ends are the addresses of the vxlan itself, this host's first: those of the hosts, or those in the tunnel.
func (v Vxlan) ends() []netip.Addr {
	if !v.WireGuard.wanted() {
		return append([]netip.Addr{v.Local}, v.Peers...)
	}
	all := []netip.Addr{insideAddr(v.WireGuard.Private.Public())}
	for _, k := range v.WireGuard.Public {
		all = append(all, insideAddr(k))
	}
	return all
}

// add makes the device; through is the number of the only one by which it may send and receive, or 0.
func (v Vxlan) add(h *netlink.Handle, bridge netlink.Link, ends []netip.Addr, through int) error {
	link := &netlink.Vxlan{LinkAttrs: netlink.NewLinkAttrs(), VxlanId: v.ID, SrcAddr: ends[0].AsSlice(), Port: cmp.Or(v.Port, 4789), Learning: true, VtepDevIndex: through}
	link.Name, link.MTU = v.Name, v.MTU
	if err := h.LinkAdd(link); err != nil {
		return failed(err, "create vxlan", v.Name)
	}
	if err := v.connect(h, link, bridge, ends[1:], through); err != nil {
		return errors.Join(err, remove(h, v.Name))
	}
	return nil
}

func (v Vxlan) connect(h *netlink.Handle, link, bridge netlink.Link, peers []netip.Addr, through int) error {
	for i, peer := range peers {
		if err := addFlood(link, peer, through); err != nil {
			return failed(err, "add peer "+v.Peers[i].String()+" to", v.Name)
		}
	}
	if err := quietIPv6(h, link, false); err != nil {
		return err
	}
	if err := h.LinkSetMaster(link, bridge); err != nil {
		return failed(err, "connect with bridge "+v.Bridge, v.Name)
	}
	return failed(h.LinkSetUp(link), "set up", v.Name)
}

// Delete removes the device, and that of its WireGuard. One that is not there is no error, and one of another kind with the name is an [*Error] with EINVAL.
func (v Vxlan) Delete() error {
	v = v.complete()
	if err := v.check(); err != nil {
		return err
	}
	h, err := newHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	if err := removeKind(h, v.Name, "vxlan"); err != nil || !v.WireGuard.wanted() {
		return err
	}
	return removeKind(h, v.WireGuard.Device, wgName)
}

// removeKind removes a device, if it is there and of the kind.
func removeKind(h *netlink.Handle, name, kind string) error {
	link, err := find(h, name)
	if errors.Is(err, syscall.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Type() != kind {
		return &Error{Op: "remove " + kind, Device: name, Err: &reason{"it is a " + link.Type(), syscall.EINVAL}}
	}
	return remove(h, name)
}
