//go:build linux

package netstack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/batch"
	"github.com/caisson-dev/caisson/netstack/internal/owner"
)

// speaker speaks to one network namespace: request by request, or with several at once. A start has some twenty of them, and most of the time that they took went by between them.
type speaker struct {
	*netlink.Handle
	batch *batch.Conn
}

// newSpeaker speaks to the network namespace of the calling thread.
func newSpeaker() (s speaker, err error) {
	if s.batch, err = batch.Open(unix.NETLINK_ROUTE); err != nil {
		return speaker{}, err
	}
	if s.Handle, err = newHandle(); err != nil {
		s.batch.Close()
		return speaker{}, err
	}
	return s, nil
}

// speakerOf speaks to an owner's network namespace. It is closed with the owner.
func speakerOf(o *owner.Owner) speaker { return speaker{o.Handle, o.Batch} }

// Close closes it.
func (s speaker) Close() {
	s.Handle.Close()
	s.batch.Close()
}

// request is one of several, with what it does, for errors.
type request struct {
	batch.Request
	op    string
	route bool
}

// do makes requests about a device, and gives the answers.
func (s speaker) do(device string, list ...request) (answers [][]byte, err error) {
	const most = 128 // the socket has room for so many refusals
	for part := range slices.Chunk(list, most) {
		raw := make([]batch.Request, len(part))
		for i, r := range part {
			raw[i] = r.Request
		}
		got, err := s.batch.Do(raw...)
		if refused := (*batch.Error)(nil); errors.As(err, &refused) {
			return nil, part[refused.Index].failed(refused.Err, device)
		}
		if err != nil {
			return nil, failed(err, "ask the kernel about", device)
		}
		answers = append(answers, got...)
	}
	return answers, nil
}

func (r request) failed(err syscall.Errno, device string) error {
	e := failed(err, r.op, device)
	if e, ok := e.(*Error); ok && r.route && (err == syscall.ENETUNREACH || err == syscall.EHOSTUNREACH) {
		e.Hint = "the gateway is in none of the card's networks; OnLink says that it is there all the same"
	}
	return e
}

// linkHeader is what requests about devices begin with (struct ifinfomsg).
func linkHeader(family byte, index int, flags, change uint32) []byte {
	b := binary.NativeEndian.AppendUint32([]byte{family, 0, 0, 0}, uint32(index))
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, flags), change)
}

// setUp sets a device up.
func setUp(index int) request {
	return request{Request: batch.Request{Type: unix.RTM_NEWLINK, Body: linkHeader(unix.AF_UNSPEC, index, unix.IFF_UP, unix.IFF_UP)}, op: "set up"}
}

// quiet is quietIPv6.
func quiet(index int) request {
	const mode, none = 8, 1 // IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE
	b := batch.Nest(linkHeader(unix.AF_UNSPEC, index, 0, 0), unix.IFLA_AF_SPEC, func(b []byte) []byte {
		return batch.Nest(b, unix.AF_INET6, func(b []byte) []byte { return batch.Attr(b, mode, none) })
	})
	return request{Request: batch.Request{Type: unix.RTM_SETLINK, Body: b}, op: "set addrgenmode none on"}
}

// newCable makes a cable (struct ifinfomsg, and the same inside for the other end). The kernel makes it a port of the bridge in the same step.
func newCable(v *netlink.Veth, inside string) request {
	b := batch.String(linkHeader(unix.AF_UNSPEC, 0, 0, 0), unix.IFLA_IFNAME, v.Name)
	for _, n := range [][2]int{{unix.IFLA_MTU, v.MTU}, {unix.IFLA_NUM_TX_QUEUES, v.NumTxQueues}, {unix.IFLA_NUM_RX_QUEUES, v.NumRxQueues}, {unix.IFLA_MASTER, v.MasterIndex}} {
		b = batch.Uint32(b, uint16(n[0]), uint32(n[1]))
	}
	b = batch.Nest(b, unix.IFLA_LINKINFO, func(b []byte) []byte {
		return batch.Nest(batch.String(b, nl.IFLA_INFO_KIND, "veth"), nl.IFLA_INFO_DATA, func(b []byte) []byte {
			return batch.Nest(b, nl.VETH_INFO_PEER, func(b []byte) []byte { return appendPeer(b, v) })
		})
	})
	return request{Request: batch.Request{Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: b}, op: fmt.Sprintf("create a cable to %q in the sandbox, with the end", inside)}
}

func appendPeer(b []byte, v *netlink.Veth) []byte {
	b = batch.String(append(b, linkHeader(unix.AF_UNSPEC, 0, 0, 0)...), unix.IFLA_IFNAME, v.PeerName)
	b = batch.Attr(b, unix.IFLA_ADDRESS, v.PeerHardwareAddr...)
	for _, n := range [][2]uint32{{unix.IFLA_MTU, v.PeerMTU}, {unix.IFLA_NUM_TX_QUEUES, v.PeerNumTxQueues}, {unix.IFLA_NUM_RX_QUEUES, v.PeerNumRxQueues}} {
		b = batch.Uint32(b, uint16(n[0]), n[1])
	}
	switch ns := v.PeerNamespace.(type) {
	case netlink.NsPid:
		b = batch.Uint32(b, unix.IFLA_NET_NS_PID, uint32(ns))
	case netlink.NsFd:
		b = batch.Uint32(b, unix.IFLA_NET_NS_FD, uint32(ns))
	}
	return b
}

// bridgePort sets a flag of a port of a bridge.
func bridgePort(index int, flag uint16, op string) request {
	b := batch.Nest(linkHeader(unix.AF_BRIDGE, index, 0, 0), unix.IFLA_PROTINFO|unix.NLA_F_NESTED, func(b []byte) []byte { return batch.Attr(b, flag, 1) })
	return request{Request: batch.Request{Type: unix.RTM_SETLINK, Body: b}, op: op}
}

// family is the kernel's number of an address's family.
func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// newAddress adds an address (struct ifaddrmsg).
func newAddress(index int, p netip.Prefix) request {
	flags, scope := byte(0), byte(unix.RT_SCOPE_UNIVERSE)
	if p.Addr().Is6() {
		flags = unix.IFA_F_NODAD
	}
	if p.Addr().IsLinkLocalUnicast() {
		scope = unix.RT_SCOPE_LINK
	}
	b := binary.NativeEndian.AppendUint32([]byte{family(p.Addr()), byte(p.Bits()), flags, scope}, uint32(index))
	for _, kind := range []uint16{unix.IFA_LOCAL, unix.IFA_ADDRESS} {
		b = batch.Attr(b, kind, p.Addr().AsSlice()...)
	}
	if p.Addr().Is4() && p.Bits() < 31 {
		b = batch.Attr(b, unix.IFA_BROADCAST, broadcast(p)...)
	}
	return request{Request: batch.Request{Type: unix.RTM_NEWADDR, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: b}, op: "add address " + p.String() + " to"}
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) []byte {
	a := binary.BigEndian.Uint32(p.Addr().AsSlice())
	return binary.BigEndian.AppendUint32(nil, a|(1<<(32-p.Bits())-1))
}

// request adds the route (struct rtmsg).
func (r Route) request(index int) request {
	destination := r.To.Addr()
	if !r.To.IsValid() {
		destination = r.Via
	}
	table, scope, flags := byte(unix.RT_TABLE_MAIN), byte(unix.RT_SCOPE_UNIVERSE), uint32(0)
	switch {
	case r.Table > 255:
		table = unix.RT_TABLE_UNSPEC
	case r.Table > 0:
		table = byte(r.Table)
	}
	if !r.Via.IsValid() {
		scope = unix.RT_SCOPE_LINK
	}
	if r.OnLink {
		flags = unix.RTNH_F_ONLINK
	}
	b := []byte{family(destination), byte(max(r.To.Bits(), 0)), 0, 0, table, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST}
	b = binary.NativeEndian.AppendUint32(b, flags)
	for _, a := range []struct {
		kind uint16
		addr netip.Addr
	}{{unix.RTA_DST, r.To.Addr()}, {unix.RTA_PREFSRC, r.Source}, {unix.RTA_GATEWAY, r.Via}} {
		if a.addr.IsValid() {
			b = batch.Attr(b, a.kind, a.addr.AsSlice()...)
		}
	}
	return request{Request: batch.Request{Type: unix.RTM_NEWROUTE, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: r.numbers(batch.Uint32(b, unix.RTA_OIF, uint32(index)))},
		op: "add route " + r.text() + " over", route: true}
}

func (r Route) numbers(b []byte) []byte {
	if r.Metric > 0 {
		b = batch.Uint32(b, unix.RTA_PRIORITY, uint32(r.Metric))
	}
	if r.Table > 0 {
		b = batch.Uint32(b, unix.RTA_TABLE, uint32(r.Table))
	}
	if r.MTU > 0 {
		b = batch.Nest(b, unix.RTA_METRICS, func(b []byte) []byte { return batch.Uint32(b, unix.RTAX_MTU, uint32(r.MTU)) })
	}
	return b
}

// isLocal reads the answer to whereTo: whether the address is the namespace's own, and can be used.
func isLocal(b []byte) bool { return len(b) >= unix.SizeofRtMsg && b[7] == unix.RTN_LOCAL }

// whereTo asks for the route to an address.
func whereTo(a netip.Addr) request {
	b := append([]byte{family(a), byte(a.BitLen())}, make([]byte, unix.SizeofRtMsg-2)...)
	return request{Request: batch.Request{Type: unix.RTM_GETROUTE, Body: batch.Attr(b, unix.RTA_DST, a.AsSlice()...)}, op: "wait for " + a.String() + " on"}
}
