//go:build linux

package netstack

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
)

// Vxlan joins bridges of several hosts to one network, over UDP (RFC 7348, ip-link(8)): the peers are known beforehand, and the bridges learn which device is behind which. It is a device of the host's, not a
// part of a sandbox.
//
// Nothing is encrypted or signed: the hosts' network must be one's own, and the port closed to others; a host that can send there is on the bridge. Who gives out addresses on several hosts gives each host a range
// of its own (First and Last of ipam.Subnet). Needs CAP_NET_ADMIN and vxlan in the kernel.
type Vxlan struct {
	Name   string       // of the device, 1 to 15 bytes
	ID     int          // of the network, 1 to 2^24-1; the same on all hosts
	Local  netip.Addr   // of this host, from which is sent
	Peers  []netip.Addr // of the other hosts, of Local's family
	Port   int          // UDP port, the same on all hosts; 0 is 4789
	Bridge string       // whose port it becomes; it must be there
	MTU    int          // in bytes; 0 is what Local's device has room for
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
	for _, a := range append([]netip.Addr{v.Local}, v.Peers...) {
		if !a.IsValid() || a.Zone() != "" || a.Is4() != v.Local.Is4() || a.IsMulticast() || a.IsUnspecified() {
			return &ValueError{"Peers", a.String(), "not the address of a host, of the same family as Local"}
		}
	}
	return nil
}

// Create makes the device and connects it with the bridge. One with the name is an error with EEXIST; on failure nothing is left.
func (v Vxlan) Create() error {
	if err := v.check(); err != nil {
		return err
	}
	h, err := newHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	bridge, err := find(h, v.Bridge)
	if err != nil {
		return err
	}
	link := &netlink.Vxlan{LinkAttrs: netlink.NewLinkAttrs(), VxlanId: v.ID, SrcAddr: v.Local.AsSlice(), Port: cmp.Or(v.Port, 4789), Learning: true}
	link.Name, link.MTU = v.Name, v.MTU
	if err := h.LinkAdd(link); err != nil {
		return failed(err, "create vxlan", v.Name)
	}
	if err := v.connect(h, link, bridge); err != nil {
		return errors.Join(err, remove(h, v.Name))
	}
	return nil
}

func (v Vxlan) connect(h *netlink.Handle, link, bridge netlink.Link) error {
	for _, peer := range v.Peers { // what nobody knows the way for goes to all
		all := &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT | netlink.NUD_NOARP,
			IP: peer.AsSlice(), HardwareAddr: make(net.HardwareAddr, 6)}
		if err := h.NeighAppend(all); err != nil {
			return failed(err, "add peer "+peer.String()+" to", v.Name)
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

// Delete removes the device. One that is not there is no error, and one of another kind with the name is an [*Error] with EINVAL.
func (v Vxlan) Delete() error {
	if err := v.check(); err != nil {
		return err
	}
	h, err := newHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := find(h, v.Name)
	if errors.Is(err, syscall.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Type() != "vxlan" {
		return &Error{Op: "remove vxlan", Device: v.Name, Err: &reason{"it is a " + link.Type(), syscall.EINVAL}}
	}
	return remove(h, v.Name)
}
