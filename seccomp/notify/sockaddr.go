//go:build linux

package notify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SockAddr is a copy of the address of a socket that the target gave to connect(2), bind(2) or sendto(2).
type SockAddr struct {
	Family uint16 // AF_...

	// AddrPort is the address of AF_INET and AF_INET6, and else the zero value. An IPv4 address that is written as an IPv6 one
	// (::ffff:127.0.0.1) is given as what it is. The zone is the number of the interface.
	AddrPort netip.AddrPort

	// Path is the name of AF_UNIX; that of an abstract socket begins with a NUL byte (unix(7)).
	Path string

	raw string
}

// SockAddr reads an address of size bytes from the target's memory. One that the kernel would not take is EINVAL.
func (r *Request) SockAddr(address, size uint64) (SockAddr, error) {
	const most = 128 // sizeof(struct sockaddr_storage), socket(7)
	size = uint64(uint32(size))
	if size > most {
		return SockAddr{}, fail(syscall.EINVAL, "socket address of %d bytes", size)
	}
	b := make([]byte, size)
	if err := r.Read(b, address); err != nil {
		return SockAddr{}, err
	}
	return ParseSockAddr(b)
}

// ParseSockAddr reads what the kernel calls struct sockaddr. An address that is too short for its family, or one of AF_UNIX that is too long,
// is EINVAL.
func ParseSockAddr(b []byte) (SockAddr, error) {
	if len(b) < 2 {
		return SockAddr{}, fail(syscall.EINVAL, "socket address of %d bytes", len(b))
	}
	a := SockAddr{Family: binary.NativeEndian.Uint16(b), raw: string(b)}
	short := false
	switch a.Family {
	case unix.AF_INET:
		if short = len(b) < unix.SizeofSockaddrInet4; !short {
			a.AddrPort = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
		}
	case unix.AF_INET6:
		const least = 24 // SIN6_LEN_RFC2133: without the interface
		if short = len(b) < least; !short {
			a.AddrPort = inet6(b)
		}
	case unix.AF_UNIX:
		short = len(b) > unix.SizeofSockaddrUnix
		a.Path = unixPath(b[2:])
	}
	if short {
		return SockAddr{}, fail(syscall.EINVAL, "socket address of %d bytes and family %d", len(b), a.Family)
	}
	return a, nil
}

func inet6(b []byte) netip.AddrPort {
	ip := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	if len(b) >= unix.SizeofSockaddrInet6 && ip.Is6() {
		if zone := binary.NativeEndian.Uint32(b[24:]); zone != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(zone), 10))
		}
	}
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:]))
}

// unixPath: a path ends with a NUL byte or with the address, an abstract name only with the address.
func unixPath(b []byte) string {
	if len(b) > 0 && b[0] != 0 {
		if end := bytes.IndexByte(b, 0); end >= 0 {
			b = b[:end]
		}
	}
	return string(b)
}

// String gives the address for people to read.
func (a SockAddr) String() string {
	switch {
	case a.AddrPort.IsValid():
		return a.AddrPort.String()
	case a.Family == unix.AF_UNIX:
		return "unix " + strconv.Quote(a.Path)
	}
	return fmt.Sprintf("family %d, %d bytes", a.Family, len(a.raw))
}

// Connect connects the socket to this copy of the address, as the target would (connect(2)): what the target does to its memory
// meanwhile changes nothing. The socket is most often what [Request.File] gave. It belongs to the network namespace in which it was made.
// If it blocks, Connect does; when the context ends, the attempt is given up.
//
// Only AF_INET, AF_INET6 and AF_UNSPEC, which disconnects, are connected. The peer of an AF_UNIX socket, abstract or not, would take the target for the
// supervisor: its credentials are those of who connects (SO_PEERCRED, unix(7)); and a path would be looked up in the supervisor's root. Other families judge
// who connects by its rights (netlink(7)). They are refused: [ErrRefused], errors.ErrUnsupported.
func (a SockAddr) Connect(ctx context.Context, socket *os.File) error {
	if len(a.raw) == 0 {
		return fail(syscall.EINVAL, "connect to no address")
	}
	switch binary.NativeEndian.Uint16([]byte(a.raw)) { // not Family, which the caller can change
	case unix.AF_INET, unix.AF_INET6, unix.AF_UNSPEC:
	default:
		return fail(refused("the peer would see the supervisor's credentials or rights", errors.ErrUnsupported), "connect to %v", a)
	}
	c, err := socket.SyscallConn()
	if err != nil {
		return fail(err, "connect")
	}
	b := []byte(a.raw)
	e := c.Control(func(fd uintptr) {
		stop := context.AfterFunc(ctx, func() { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		defer stop()
		if _, _, errno := unix.Syscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))); errno != 0 {
			err = errno
		}
	})
	if e != nil {
		err = e
	}
	return fail(err, "connect to %v", a)
}
