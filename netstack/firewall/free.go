//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// binding is a port of the host that is published.
type binding struct {
	protocol Protocol
	addr     netip.Addr
	port     uint16
}

func (b binding) String() string {
	text := fmt.Sprintf("%v port %d", b.protocol, b.port)
	if !b.addr.IsUnspecified() {
		text += " of " + b.addr.String()
	}
	return text
}

// bindings lists the ports, once for each family.
func (p Port) bindings(r Rules) (list []binding) {
	for _, t := range p.targets(r) {
		addr := p.Addr
		if !addr.IsValid() {
			addr = netip.IPv4Unspecified()
			if t.Is6() {
				addr = netip.IPv6Unspecified()
			}
		}
		for i := range int(p.last()-p.Port) + 1 {
			list = append(list, binding{p.protocol(), addr, p.Port + uint16(i)})
		}
	}
	return list
}

// free looks whether a process has a port that the rules publish and have not published before. The kernel is asked by bind(2), as that process did.
func (f *Firewall) free(r, before Rules) error {
	ours := map[binding]bool{}
	for _, p := range before.Publish {
		for _, b := range p.bindings(before) {
			ours[b] = true
		}
	}
	for _, p := range r.Publish {
		for _, b := range p.bindings(r) {
			if ours[b] {
				continue
			}
			if _, err := b.try(); err != nil {
				return f.taken(b, err)
			}
		}
	}
	return nil
}

// choose sets ports that are 0 to ones that are free.
func (f *Firewall) choose(r *Rules) error {
	for i := range r.Publish {
		p := &r.Publish[i]
		if p.Port != 0 {
			continue
		}
		if err := f.chooseOne(p, *r); err != nil {
			return err
		}
	}
	return nil
}

// chooseOne asks the kernel for a port of one family, and takes it if it is free in the other one and not published.
func (f *Firewall) chooseOne(p *Port, r Rules) (err error) {
	const tries = 64
	published, err := f.published()
	if err != nil {
		return err
	}
	for range tries {
		for _, b := range p.bindings(r) {
			b.port = p.Port
			if p.Port, err = b.try(); err != nil {
				break
			}
		}
		if err == nil && !published[p.Port] {
			return nil
		}
		p.Port = 0
	}
	if err == nil {
		err = unix.EADDRINUSE
	}
	return &Error{Op: fmt.Sprintf("choose a free %v port", p.protocol()), Err: err}
}

// published are the ports that are published by anybody.
func (f *Firewall) published() (map[uint16]bool, error) {
	ports := map[uint16]bool{}
	if f.x != nil {
		return ports, f.publishedLines(ports)
	}
	there, err := f.exists()
	if err != nil || !there {
		return ports, err
	}
	for _, fam := range families() {
		for _, set := range []string{anywhere, address} {
			list, err := f.conn.GetSetElements(f.sets[setID{false, set + fam.suffix}])
			if err != nil {
				return nil, refused("", err)
			}
			for _, e := range list {
				n := len(e.Key)
				ports[uint16(e.Key[n-4])<<8|uint16(e.Key[n-3])] = true
			}
		}
	}
	return ports, nil
}

// try binds a socket to the port and closes it again. It tells which port the kernel has chosen for 0.
func (b binding) try() (uint16, error) {
	fd, err := b.socket()
	if err != nil {
		return b.port, err
	}
	defer unix.Close(fd)
	if b.protocol != UDP { // of a connection that has ended the port is free again; for UDP it would mean to share it
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err := unix.Bind(fd, b.sockaddr()); err != nil {
		return b.port, os.NewSyscallError("bind", err)
	}
	if b.port != 0 {
		return b.port, nil
	}
	sa, err := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, os.NewSyscallError("getsockname", err)
}

func (b binding) socket() (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if b.addr.Is6() {
		family = unix.AF_INET6
	}
	if b.protocol == UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, int(b.protocol))
	if err == nil && b.addr.Is6() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		if err != nil {
			unix.Close(fd)
		}
	}
	return fd, os.NewSyscallError("socket", err)
}

func (b binding) sockaddr() unix.Sockaddr {
	if b.addr.Is4() {
		return &unix.SockaddrInet4{Port: int(b.port), Addr: b.addr.As4()}
	}
	return &unix.SockaddrInet6{Port: int(b.port), Addr: b.addr.As16()}
}

// taken explains why a port could not be bound. Nil: that does not say that it is taken.
func (f *Firewall) taken(b binding, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		pid, name := f.listener(b)
		return &ConflictError{What: b.String(), PID: pid, Program: name}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return &Error{Op: "publish " + b.String(), Err: err, Hint: "the address is none of the host's"}
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return nil // where the kernel does not know the protocol, nobody listens
	case errors.Is(err, unix.EACCES):
		return &Error{Op: "look whether " + b.String() + " is free", Err: err, Hint: "needs CAP_NET_BIND_SERVICE"}
	}
	return &Error{Op: "look whether " + b.String() + " is free", Err: err}
}
