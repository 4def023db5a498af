//go:build linux

package batch

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// Link asks for a device (struct ifinfomsg) by its name, or, where that is "", by its number. It leaves out the counters.
func Link(index int, name string) Request {
	const withoutCounters = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	b = Uint32(b, unix.IFLA_EXT_MASK, withoutCounters)
	if name != "" {
		b = String(b, unix.IFLA_IFNAME, name)
	}
	return Request{Type: unix.RTM_GETLINK, Body: b}
}

// Attr appends an attribute: its length, its type, and the value, filled up to four bytes (netlink(7), rtnetlink(7)).
func Attr(b []byte, kind uint16, value ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return pad(append(b, value...))
}

// String appends an attribute that is a text, with the zero byte that ends it.
func String(b []byte, kind uint16, text string) []byte {
	return Attr(b, kind, append([]byte(text), 0)...)
}

// Uint32 appends an attribute that is a number in the byte order of the machine.
func Uint32(b []byte, kind uint16, n uint32) []byte {
	return Attr(b, kind, binary.NativeEndian.AppendUint32(nil, n)...)
}

// Big32 appends an attribute that is a number in the byte order of the network, as nf_tables wants it.
func Big32(b []byte, kind uint16, n uint32) []byte {
	return Attr(b, kind, binary.BigEndian.AppendUint32(nil, n)...)
}

// Nest appends an attribute that holds others.
func Nest(b []byte, kind uint16, inner func(b []byte) []byte) []byte {
	begin := len(b)
	b = inner(Attr(b, kind))
	binary.NativeEndian.PutUint16(b[begin:], uint16(len(b)-begin))
	return b
}

// Attrs goes through attributes, up to one that is not whole. The types are without NLA_F_NESTED.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
