//go:build linux

package netstack

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers of the kernel's include/uapi/linux/wireguard.h.
const (
	wgSetDevice = 1 // WG_CMD_SET_DEVICE

	wgDeviceIndex, wgDevicePrivateKey, wgDevicePort, wgDevicePeers = 1, 3, 6, 8        // WGDEVICE_A_
	wgPeerPublicKey, wgPeerFlags, wgPeerEndpoint, wgPeerAllowedIPs = 1, 3, 4, 9        // WGPEER_A_
	wgAllowedFamily, wgAllowedAddr, wgAllowedBits                  = 1, 2, 3           // WGALLOWEDIP_A_
	wgReplaceAllowedIPs                                            = 1 << 1            // WGPEER_F_
	wgNested                                                       = unix.NLA_F_NESTED // of nested attributes
	wgName, wgVersion                                              = "wireguard", 1    // of the generic netlink family
)

// insideAddr is a host's address in the tunnel. It is one of the link, for which alone the kernel looks at the device by which a packet for a vxlan has come: what comes from elsewhere is not taken.
func insideAddr(k PublicKey) netip.Addr {
	sum := sha256.Sum256(k[:])
	a := [16]byte{0: 0xfe, 1: 0x80}
	copy(a[8:], sum[:8])
	return netip.AddrFrom16(a)
}

// createTunnel makes the device, which is up and knows all peers.
func (v Vxlan) createTunnel(h *netlink.Handle) (netlink.Link, error) {
	link := &netlink.Wireguard{LinkAttrs: netlink.NewLinkAttrs()}
	link.Name = v.WireGuard.Device
	if err := h.LinkAdd(link); err != nil {
		return nil, without(err, "create", link, wgName)
	}
	err := v.configureTunnel(h, link)
	if err != nil {
		h.LinkDel(link)
		return nil, err
	}
	return link, nil
}

func (v Vxlan) configureTunnel(h *netlink.Handle, link netlink.Link) error {
	index := nl.NewRtAttr(wgDeviceIndex, nl.Uint32Attr(uint32(link.Attrs().Index)))
	key, port := v.WireGuard.Private.secret, uint16(cmp.Or(v.WireGuard.Port, 51820))
	if err := setTunnel(index, nl.NewRtAttr(wgDevicePrivateKey, key[:]), nl.NewRtAttr(wgDevicePort, nl.Uint16Attr(port))); err != nil {
		return without(err, "give a key to", link, wgName)
	}
	for i, peer := range v.Peers {
		peers := nl.NewRtAttr(wgDevicePeers|wgNested, nil)
		peers.AddChild(tunnelPeer(v.WireGuard.Public[i], netip.AddrPortFrom(peer, port)))
		if err := setTunnel(index, peers); err != nil {
			return failed(err, "add peer "+peer.String()+" to", link.Attrs().Name)
		}
	}
	if err := quietIPv6(h, link, true); err != nil {
		return err
	}
	if err := addAddress(h, link, netip.PrefixFrom(insideAddr(v.WireGuard.Private.Public()), 64)); err != nil {
		return err
	}
	return failed(h.LinkSetUp(link), "set up", link.Attrs().Name) // EADDRINUSE: another one has the port
}

// tunnelPeer is another host: it may send with its own address only.
func tunnelPeer(key PublicKey, at netip.AddrPort) *nl.RtAttr {
	peer := nl.NewRtAttr(wgNested, nil)
	peer.AddRtAttr(wgPeerPublicKey, key[:])
	peer.AddRtAttr(wgPeerFlags, nl.Uint32Attr(wgReplaceAllowedIPs))
	peer.AddRtAttr(wgPeerEndpoint, sockaddr(at))
	allowed := peer.AddRtAttr(wgPeerAllowedIPs|wgNested, nil).AddRtAttr(wgNested, nil)
	allowed.AddRtAttr(wgAllowedFamily, nl.Uint16Attr(unix.AF_INET6))
	allowed.AddRtAttr(wgAllowedAddr, insideAddr(key).AsSlice())
	allowed.AddRtAttr(wgAllowedBits, nl.Uint8Attr(128))
	return peer
}

// sockaddr is a struct sockaddr_in or sockaddr_in6 (ip(7), ipv6(7)).
func sockaddr(at netip.AddrPort) []byte {
	family, size := uint16(unix.AF_INET), 16
	if at.Addr().Is6() {
		family, size = unix.AF_INET6, 28
	}
	b := make([]byte, size)
	binary.NativeEndian.PutUint16(b, family)
	binary.BigEndian.PutUint16(b[2:], at.Port())
	if at.Addr().Is6() {
		copy(b[8:], at.Addr().AsSlice())
	} else {
		copy(b[4:], at.Addr().AsSlice())
	}
	return b
}

// setTunnel changes a WireGuard device of the calling thread's network.
func setTunnel(attributes ...*nl.RtAttr) error {
	family, err := netlink.GenlFamilyGet(wgName)
	if err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	req.AddData(&nl.Genlmsg{Command: wgSetDevice, Version: wgVersion})
	for _, a := range attributes {
		req.AddData(a)
	}
	_, err = req.Execute(unix.NETLINK_GENERIC, 0)
	return err
}

// addFlood has what nobody knows the way for go to the peer, too. An address of a link is one with the device of that link.
func addFlood(vxlan netlink.Link, peer netip.Addr, device int) error {
	const ndaIfindex = 8 // NDA_IFINDEX
	req := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_APPEND|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(vxlan.Attrs().Index), Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT | netlink.NUD_NOARP})
	req.AddData(nl.NewRtAttr(unix.NDA_DST, peer.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.NDA_LLADDR, make([]byte, 6)))
	if device != 0 {
		req.AddData(nl.NewRtAttr(ndaIfindex, nl.Uint32Attr(uint32(device))))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
