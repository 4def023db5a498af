//go:build linux

package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Who has which IPv6 address is said by a neighbour advertisement, in its text and not in its header, and ebtables sees no more of it than its type. ip6tables can read the text (xt_u32), and sees the frames of a bridge where
// br_netfilter shows them. So an advertisement goes through two hands: ip6tables marks those that are about an address of the card's, before the bridge decides where they go, and ebtables drops all that bear no mark afterwards.
// If somebody takes br_netfilter away, no advertisement passes: the neighbours lose each other, and nobody can speak for them.

// advertMark is a bit of the packet's mark. It is on neighbour advertisements only, and gone when they enter the network of who receives them.
const advertMark = "0x8000000"

// ofType matches ICMPv6 messages in ebtables, also behind extension headers.
func ofType(kind int) string {
	return fmt.Sprintf("-p IPv6 --ip6-proto ipv6-icmp --ip6-icmp-type %d", kind)
}

func (c Card) bridged6() bool { return c.Bridge != "" && slices.ContainsFunc(c.Addrs, netip.Addr.Is6) }

// sources6 lets pass in the chain that checks a card's frames what has an address of its own, or none yet; the rules are those of checkRules.
func (x *xlowering) sources6(check string, c Card) {
	for _, kind := range []int{ndRouterAdvert, ndRedirect} {
		x.own(ebtables, "nat", check, ofType(kind)+" -j DROP")
	}
	for _, a := range c.sources() {
		if a.Is6() {
			x.own(ebtables, "nat", check, "-p IPv6 --ip6-src "+a.String()+" -j RETURN")
		}
	}
	for _, kind := range []int{ndNeighbourSolicit, mldReport, mldReport2, mldDone} {
		x.own(ebtables, "nat", check, ofType(kind)+" --ip6-src ::/128 -j RETURN")
	}
}

// advertisements has those alone pass that are about an address of the card's.
func (x *xlowering) advertisements(c Card) {
	for _, a := range c.sources() {
		if a.Is6() {
			x.ip(ip6tables, "raw", "raw", "-m physdev --physdev-in "+c.Name+" -p ipv6-icmp --icmpv6-type 136 -m u32 --u32 "+about(a), "MARK --set-xmark "+advertMark+"/"+advertMark)
		}
	}
	x.once("filter", "advert", ofType(ndNeighbourAdvert)+" --mark 0x0/"+advertMark+" -j DROP")
	x.bridge("filter", "advert", "-i "+c.Name, "advert")
	// What is between neighbours comes by the chain of what is forwarded, too, and there are policies.
	for _, kind := range []int{ndNeighbourSolicit, ndNeighbourAdvert} {
		x.firstIP(ip6tables, "filter", "fwd", fmt.Sprintf("-m physdev --physdev-is-bridged -p ipv6-icmp --icmpv6-type %d", kind), "RETURN")
	}
}

// about matches the target of an advertisement (RFC 4861, 4.4). It is where it is only if no extension header is before it; one that has some is not marked.
func about(a netip.Addr) string {
	text, b := "0x4&0xff00=0x3a00", a.As16()
	for i := 0; i < 16; i += 4 {
		text += fmt.Sprintf("&&%#x=%#x", 48+i, binary.BigEndian.Uint32(b[i:]))
	}
	return text
}

// stay has the messages by which neighbours are found stay on the bridge, in a chain of the owner's own that takes other frames elsewhere.
func (x *xlowering) stay(table, what, then string) {
	for _, kind := range []int{ndNeighbourSolicit, ndNeighbourAdvert} {
		x.once(table, what, ofType(kind)+" -j RETURN")
	}
	x.once(table, what, then)
}

// showIPv6 has the bridges of cards with IPv6 addresses show their frames to ip6tables, and no other bridge. That br_netfilter is there is for the administrator to say: it shows the frames of all bridges as soon as it is loaded.
func (f *Firewall) showIPv6(r Rules) error {
	if f.x == nil {
		return nil
	}
	for _, c := range r.Cards {
		if !c.bridged6() {
			continue
		}
		op := "show ip6tables what " + c.Bridge + " forwards"
		if _, err := f.sys.proc.Read(f.x.shown); err != nil {
			return &Error{Op: op, Err: &reason{"the kernel has no br_netfilter, or it is not loaded", errors.Join(errors.ErrUnsupported, err)},
				Hint: "modprobe br_netfilter, with net.bridge.bridge-nf-call-* as the other bridges need them; or do without IPv6 addresses"}
		}
		bridge, err := f.device(c.Bridge)
		if err != nil {
			return err
		}
		if err := setCallIP6Tables(bridge); err != nil {
			return &Error{Op: op, Err: err}
		}
	}
	return nil
}

// setCallIP6Tables sets a bridge's nf_call_ip6tables (ip-link(8)). A device that is none is refused by the kernel.
func setCallIP6Tables(bridge netlink.Link) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(bridge.Attrs().Index)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(unix.IFLA_BR_NF_CALL_IP6TABLES, nl.Uint8Attr(1))
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	req.AddData(msg)
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
