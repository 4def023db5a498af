//go:build linux

package firewall

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A rule is a list of expressions; each of these functions is one line of nft(8), or a part of one. Registers are those of 32 bits: what is looked up together lies side by side.
const (
	reg = unix.NFT_REG32_00
	// after is the first register behind an interface's name of 16 bytes, or behind an IPv6 address.
	after = unix.NFT_REG32_04
)

type line []expr.Any

func join(parts ...line) line {
	var all line
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// family is IPv4 or IPv6, with where their headers have what.
type family struct {
	suffix             string // of the names of maps
	proto              byte   // NFPROTO_...
	ether              uint16
	source, dest, size uint32
	icmp               byte
	loopback           netip.Prefix
	multicast          netip.Prefix
}

func ipv4() family {
	return family{"4", unix.NFPROTO_IPV4, unix.ETH_P_IP, 12, 16, 4, unix.IPPROTO_ICMP, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3")}
}

func ipv6() family {
	return family{"6", unix.NFPROTO_IPV6, unix.ETH_P_IPV6, 8, 24, 16, unix.IPPROTO_ICMPV6, netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("ff00::/8")}
}

func families() []family { return []family{ipv4(), ipv6()} }

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4()
	}
	return ipv6()
}

func payload(base expr.PayloadBase, offset, size, to uint32) line {
	return line{&expr.Payload{DestRegister: to, Base: base, Offset: offset, Len: size}}
}

func equal(r uint32, data []byte) line {
	return line{&expr.Cmp{Op: expr.CmpOpEq, Register: r, Data: data}}
}
func differs(r uint32, data []byte) line {
	return line{&expr.Cmp{Op: expr.CmpOpNeq, Register: r, Data: data}}
}

// isFamily matches packets of the family in a table of family inet.
func (f family) is() line {
	return join(line{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}}, equal(reg, []byte{f.proto}))
}

// isEther matches frames of the family in a table of family bridge. A tagged frame has another type here, also when the tag was taken off by the card.
func (f family) isEther() line { return etherType(f.ether) }

func etherType(t uint16) line {
	return join(payload(expr.PayloadBaseLLHeader, 12, 2, reg), equal(reg, binary.BigEndian.AppendUint16(nil, t)))
}

func (f family) saddr(to uint32) line {
	return payload(expr.PayloadBaseNetworkHeader, f.source, f.size, to)
}
func (f family) daddr(to uint32) line {
	return payload(expr.PayloadBaseNetworkHeader, f.dest, f.size, to)
}

// in matches when the network of the address at offset is p.
func (f family) in(offset uint32, p netip.Prefix) line {
	load := payload(expr.PayloadBaseNetworkHeader, offset, f.size, reg)
	mask := make([]byte, f.size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	and := line{&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: f.size, Mask: mask, Xor: make([]byte, f.size)}}
	return join(load, and, equal(reg, p.Masked().Addr().AsSlice()))
}

// lookup matches when what lies in the registers from r on is in the set; not, when it is not.
func lookup(set string) line { return line{&expr.Lookup{SourceRegister: reg, SetName: set}} }
func not(set string) line    { return line{&expr.Lookup{SourceRegister: reg, SetName: set, Invert: true}} }

// find puts what the map has for the registers from r on into the registers from to on.
func find(m string, to uint32) line {
	return line{&expr.Lookup{SourceRegister: reg, SetName: m, DestRegister: to, IsDestRegSet: true}}
}

// vmap goes on where the map says.
func vmap(m string) line { return find(m, unix.NFT_REG_VERDICT) }

func verdict(kind expr.VerdictKind) line { return line{&expr.Verdict{Kind: kind}} }

func jump(chain string) line { return line{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }

func accept() line { return verdict(expr.VerdictAccept) }
func drop() line   { return verdict(expr.VerdictDrop) }
func back() line   { return verdict(expr.VerdictReturn) }

// reject answers with "administratively prohibited", in both families (NFT_REJECT_ICMPX_UNREACH of inet tables).
func reject() line {
	return line{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

func iifname(to uint32) line { return line{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: to}} }
func oifname(to uint32) line { return line{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: to}} }
func l4proto(to uint32) line { return line{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: to}} }
func dport(to uint32) line   { return payload(expr.PayloadBaseTransportHeader, 2, 2, to) }

// notFirst matches TCP segments that do not begin a connection: of SYN, ACK, RST and FIN not SYN alone.
func notFirst() line {
	return join(payload(expr.PayloadBaseTransportHeader, 13, 1, reg), line{&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{0x17}, Xor: []byte{0}}},
		differs(reg, []byte{0x02}))
}

// isICMPv6 matches one type.
func isICMPv6(kind byte) line {
	return join(l4proto(reg), equal(reg, []byte{unix.IPPROTO_ICMPV6}), payload(expr.PayloadBaseTransportHeader, 0, 1, reg), equal(reg, []byte{kind}))
}

// local matches packets to one of the host's own addresses.
func local() line {
	return join(line{&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true}}, equal(reg, native(unix.RTN_LOCAL)))
}

// ctBits matches when one of the bits is set, or with want false when none is.
func ctBits(key expr.CtKey, bits uint32, want bool) line {
	test := equal(reg, native(0))
	if want {
		test = differs(reg, native(0))
	}
	return join(line{&expr.Ct{Key: key, Register: reg}, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(bits), Xor: native(0)}}, test)
}

// ipsDstNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h: the destination was changed.
const ipsDstNAT = 1 << 5

func dnatted(want bool) line { return ctBits(expr.CtKeySTATUS, ipsDstNAT, want) }

// established matches what belongs to a connection that has been allowed.
func established() line {
	return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, true)
}

func invalidState() line { return ctBits(expr.CtKeySTATE, expr.CtStateBitINVALID, true) }

// dnat sends the packet to the address and port that lie side by side in the registers from from on.
func (f family) dnat(from uint32) line {
	return line{&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: from, RegProtoMin: from + f.size/4, Specified: true}}
}

func masquerade() line { return line{&expr.Masq{}} }

func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
func big16(n uint16) []byte  { return binary.BigEndian.AppendUint16(nil, n) }
