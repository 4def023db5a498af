//go:build linux

package firewall_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// TestSCTP publishes a port and a range, which are reached by the kernel's own SCTP if it has one, else by packets that are made here, an INIT and its answer (RFC 9260).
func TestSCTP(t *testing.T) {
	for name, open := range map[string]func(*world) *firewall.Firewall{"nftables": (*world).open, "iptables": (*world).xopen} {
		t.Run(name, func(t *testing.T) {
			if name == "iptables" {
				notInSoftware(t)
			}
			w := newWorld(t)
			fw := open(w)
			cards, addrs := w.webCard(), [][3]string{{"192.0.2.1", "10.88.0.2", "192.0.2.2"}, {"2001:db8::1", "fd88::2", "2001:db8::2"}}
			if fw.Backend() == firewall.IPTables {
				cards, addrs = only4(cards), addrs[:1]
			}
			held := w.add(fw, "web", firewall.Rules{Cards: cards, Masquerade: true, Publish: []firewall.Port{
				{Protocol: firewall.SCTP, Port: 3868, To: 80}, {Protocol: firewall.SCTP, Port: 5000, Last: 5009, To: 6000}, {Protocol: firewall.SCTP, Port: 7000, Last: 7001}}})
			talk := w.sctpPackets
			if w.hasSCTP() {
				talk = w.sctpSockets
			} else {
				t.Log("the kernel has no sockets for SCTP: packets are made by hand")
			}
			for _, a := range addrs {
				for port, to := range map[uint16]uint16{3868: 80, 5000: 6000, 5007: 6007, 5009: 6009, 7001: 7001} {
					require.NoErrorf(t, talk(a[0], port, a[1], to, a[2]), "%s port %d to %d", a[0], port, to)
				}
			}
			require.NoError(t, held.Remove())
			w.short = true
			require.Error(t, talk("192.0.2.1", 3868, "10.88.0.2", 80, "192.0.2.2"))
		})
	}
}

// hasSCTP asks the kernel for a socket, which loads the module if there is one.
func (w *world) hasSCTP() (has bool) {
	w.host.in(func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		if err == nil {
			unix.Close(fd)
		}
		has = !errors.Is(err, unix.EPROTONOSUPPORT)
	})
	return has
}

func sockaddr(text string, port uint16) (int, unix.Sockaddr) {
	a := netip.MustParseAddr(text)
	if a.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Addr: a.As4(), Port: int(port)}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Addr: a.As16(), Port: int(port)}
}

// socket opens one inside whose calls wait for a while only.
func (s space) socket(family, kind int, long time.Duration) (fd int) {
	s.t.Helper()
	s.in(func() {
		var err error
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		require.NoError(s.t, err)
		wait := unix.NsecToTimeval(long.Nanoseconds())
		require.NoError(s.t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
		require.NoError(s.t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait))
	})
	return fd
}

// wait is how long something may take that should work, or that should not.
func (w *world) wait() time.Duration {
	if w.short {
		return patience
	}
	return 20 * patience
}

// sctpSockets connects from outside to what web listens at.
func (w *world) sctpSockets(host string, port uint16, web string, to uint16, _ string) error {
	family, listen := sockaddr(web, to)
	l := w.web.socket(family, unix.SOCK_STREAM, w.wait())
	defer unix.Close(l)
	if err := errors.Join(unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(l, listen), unix.Listen(l, 1)); err != nil {
		return err
	}
	c := w.outside.socket(family, unix.SOCK_STREAM, w.wait())
	defer unix.Close(c)
	_, dial := sockaddr(host, port)
	if err := unix.Connect(c, dial); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	in, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	defer unix.Close(in)
	if _, err := unix.Write(in, []byte("hello")); err != nil {
		return err
	}
	buf := make([]byte, 16)
	n, err := unix.Read(c, buf)
	if err != nil || string(buf[:n]) != "hello" {
		return fmt.Errorf("read %q: %w", buf[:n], err)
	}
	return nil
}

// sctpPackets sends an INIT from outside, looks at it in web, and has it answered.
func (w *world) sctpPackets(host string, port uint16, web string, to uint16, outside string) error {
	const client = 40000
	family, dest := sockaddr(host, 0)
	a, b := w.outside.socket(family, unix.SOCK_RAW, w.wait()), w.web.socket(family, unix.SOCK_RAW, w.wait())
	defer unix.Close(a)
	defer unix.Close(b)
	if err := unix.Sendto(a, sctpPacket(client+port, port, 0, 1, 0x1234), 0, dest); err != nil {
		return err
	}
	if err := sctpExpect(b, family, w.wait(), client+port, to, 1); err != nil {
		return fmt.Errorf("in web: %w", err)
	}
	_, back := sockaddr(outside, 0)
	if err := unix.Sendto(b, sctpPacket(to, client+port, 0x1234, 2, 0x5678), 0, back); err != nil {
		return err
	}
	if err := sctpExpect(a, family, w.wait(), port, client+port, 2); err != nil {
		return fmt.Errorf("outside: %w", err)
	}
	return nil
}

// sctpPacket is an INIT (kind 1) or INIT ACK (2) with a cookie.
func sctpPacket(from, to uint16, tag uint32, kind byte, initTag uint32) []byte {
	be := binary.BigEndian
	p := be.AppendUint32(be.AppendUint32(be.AppendUint16(be.AppendUint16(nil, from), to), tag), 0)
	cookie := []byte{0, 7, 0, 8, 1, 2, 3, 4}
	p = append(p, kind, 0, 0, byte(20+len(cookie)))
	p = be.AppendUint32(be.AppendUint32(be.AppendUint16(be.AppendUint16(be.AppendUint32(p, initTag), 0xffff), 0), 0), 1)
	be.PutUint16(p[20:], 0)
	be.PutUint16(p[24:], 1) // streams out and in
	be.PutUint16(p[26:], 1)
	p = append(p, cookie...)
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// sctpExpect waits for a packet between two ports, whose checksum is right.
func sctpExpect(fd, family int, long time.Duration, from, to uint16, kind byte) error {
	buf := make([]byte, 2048)
	for until := time.Now().Add(long); time.Now().Before(until); {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		p := buf[:n]
		if family == unix.AF_INET { // with the IP header
			p = p[int(p[0]&15)*4:]
		}
		sum := binary.LittleEndian.Uint32(p[8:])
		binary.LittleEndian.PutUint32(p[8:], 0)
		if binary.BigEndian.Uint16(p) == from && binary.BigEndian.Uint16(p[2:]) == to && p[12] == kind {
			if want := crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)); sum != want {
				return fmt.Errorf("checksum %x, not %x", sum, want)
			}
			return nil
		}
	}
	return unix.ETIMEDOUT
}
