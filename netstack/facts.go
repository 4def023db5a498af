//go:build linux

package netstack

import (
	"encoding/binary"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/batch"
)

// facts is what the kernel says of a device.
type facts struct {
	name, kind  string
	index, peer int // peer is the number of the other end of a cable, where that is
	master, mtu int
	mac         net.HardwareAddr
	up, works   bool // set up; and able to send
	vlans       bool // a bridge that keeps VLANs apart
}

// look asks for a device by its name, or, where that is "", by its number.
func look(index int, name string) request {
	return request{Request: batch.Link(index, name), op: "find"}
}

// look asks for one device by its name. One that is not there is ENODEV.
func (s speaker) look(name string) (facts, error) {
	answers, err := s.do(name, look(0, name))
	if err != nil {
		return facts{}, err
	}
	return read(answers[0]), nil
}

// read reads the answer to look.
func read(b []byte) (f facts) {
	if len(b) < unix.SizeofIfInfomsg {
		return f
	}
	f.index = int(binary.NativeEndian.Uint32(b[4:]))
	f.up = binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0
	for kind, v := range batch.Attrs(b[unix.SizeofIfInfomsg:]) {
		switch {
		case kind == unix.IFLA_IFNAME:
			f.name = unix.ByteSliceToString(v)
		case kind == unix.IFLA_ADDRESS:
			f.mac = slices.Clone(v)
		case kind == unix.IFLA_OPERSTATE && len(v) == 1:
			f.works = v[0] == netlink.OperUp
		case kind == unix.IFLA_LINKINFO:
			f.readKind(v)
		case len(v) == 4:
			f.number(kind, int(binary.NativeEndian.Uint32(v)))
		}
	}
	return f
}

func (f *facts) number(kind uint16, n int) {
	switch kind {
	case unix.IFLA_MTU:
		f.mtu = n
	case unix.IFLA_LINK:
		f.peer = n
	case unix.IFLA_MASTER:
		f.master = n
	}
}

func (f *facts) readKind(info []byte) {
	for kind, v := range batch.Attrs(info) {
		switch kind {
		case nl.IFLA_INFO_KIND:
			f.kind = unix.ByteSliceToString(v)
		case nl.IFLA_INFO_DATA:
			for kind, v := range batch.Attrs(v) {
				f.vlans = f.vlans || f.kind == "bridge" && kind == nl.IFLA_BR_VLAN_FILTERING && len(v) == 1 && v[0] != 0
			}
		}
	}
}
