package netstack_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/ipam"
)

// TestVxlan: sandboxes of two hosts, which are namespaces with a cable between them, are on one network. Who listens to the cable reads all.
func TestVxlan(t *testing.T) {
	local := netip.MustParseAddr("192.0.2.1")
	seen := overlay(t, netstack.Vxlan{Local: local, Peers: []netip.Addr{peerAddr}}, netstack.Vxlan{Local: peerAddr, Peers: []netip.Addr{local}})
	require.True(t, seen.plain)
	require.True(t, seen.injected, "as the documentation says")
	require.Contains(t, seen.ports, uint16(4789))
}

// TestVxlanWireGuard: the same, and what passes on the cable tells nothing, nor is anything taken that is not encrypted.
func TestVxlanWireGuard(t *testing.T) {
	a, b := netstack.NewPrivateKey(), netstack.NewPrivateKey()
	near := netstack.Vxlan{Peers: []netip.Addr{peerAddr}, WireGuard: netstack.WireGuard{Private: a, Public: []netstack.PublicKey{b.Public()}}}
	far := netstack.Vxlan{Peers: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, WireGuard: netstack.WireGuard{Private: b, Public: []netstack.PublicKey{a.Public()}, Device: "secret0"}}
	host(t, func(h *world) {
		if lacks(t, &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "probe", TxQLen: -1}}) {
			require.NoError(t, netstack.Bridge{Name: "over0", State: h.state}.Create())
			v := near
			v.Name, v.ID, v.Bridge = "vx0", 7, "over0"
			require.ErrorIs(t, v.Create(), errors.ErrUnsupported)
			require.Equal(t, []string{"over0"}, h.devices())
			t.Skip("the kernel has no WireGuard")
		}
	})
	seen := overlay(t, near, far)
	require.False(t, seen.plain)
	require.False(t, seen.injected)
	require.Equal(t, map[uint16]bool{51820: true}, seen.ports)
}

var peerAddr = netip.MustParseAddr("192.0.2.2")

// seen is what somebody at the cable between two hosts has found out.
type seen struct {
	plain    bool            // the text that the sandboxes have exchanged
	ports    map[uint16]bool // to which UDP was sent over IPv4
	injected bool            // what was sent from the cable has come to the far bridge
}

// overlay has a sandbox of one host ask one of another.
func overlay(t *testing.T, near, far netstack.Vxlan) (s seen) {
	host(t, func(far0 *world) {
		if lacks(t, &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "probe", TxQLen: -1}, VxlanId: 1}) {
			t.Skip("the kernel has no vxlan")
		}
		host(t, func(near0 *world) {
			require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0", TxQLen: -1}, PeerName: "up0", PeerNamespace: netlink.NsFd(int(far0.ns.Fd())), PeerTxQLen: -1}))
			underlay(t, netip.MustParseAddr("192.0.2.1"))
			var arrived *sniffer
			in(t, far0.ns, func() error {
				h := &world{t: t, ns: far0.ns, state: far0.state}
				underlay(t, peerAddr)
				b, v := hostOfTwo(t, h, far, peerAddr)
				arrived = sniff(t, "over0")
				far0.running = append(far0.running, h.start("serve", []string{":80", "far away"}, b))
				far = v
				return nil
			})
			b, v := hostOfTwo(t, near0, near, netip.MustParseAddr("192.0.2.1"))
			wire := sniff(t, "up0")
			answer := near0.run("dial", []string{"10.9.2.2:80"}, b)
			for begin := time.Now(); strings.HasPrefix(answer, "error") && time.Since(begin) < 30*time.Second; { // two hosts that greet each other at once try again after 5 s
				answer = near0.run("dial", []string{"10.9.2.2:80"}, b)
			}
			require.Contains(t, answer, "far away 10.9.1.")
			s.plain, s.ports = wire.look("far away")
			inject(t)
			s.injected, _ = arrived.look("smuggled")
			require.Error(t, v.Create(), "it is there")
			require.NoError(t, errors.Join(v.Delete(), v.Delete()))
			require.ElementsMatch(t, []string{"over0", "up0"}, near0.devices())
			in(t, far0.ns, func() error { return far.Delete() })
			near.Name, near.ID, near.Bridge = "up0", 7, "over0"
			require.ErrorIs(t, near.Delete(), syscall.EINVAL)
		})
	})
	return s
}

// underlay sets up a host's end of the cable.
func underlay(t *testing.T, local netip.Addr) {
	up, err := netlink.LinkByName("up0")
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(up, &netlink.Addr{IPNet: mustIPNet(t, local.String()+"/24")}))
	require.NoError(t, netlink.AddrAdd(up, &netlink.Addr{IPNet: mustIPNet(t, "fe80::"+itoa(int(local.As4()[3]))+"/64"), Flags: unix.IFA_F_NODAD}))
	require.NoError(t, netlink.LinkSetUp(up))
}

// hostOfTwo sets up one of two hosts: its bridge, and the overlay.
func hostOfTwo(t *testing.T, h *world, v netstack.Vxlan, local netip.Addr) (netstack.Bridge, netstack.Vxlan) {
	third := local.As4()[3]
	at := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, third, last}) }
	b := netstack.Bridge{Name: "over0", State: h.state, MTU: 1350, Internal: true,
		Subnets: []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Gateway: at(1), First: at(2), Last: at(254)}}}
	require.NoError(t, b.Create())
	v.Name, v.ID, v.Bridge = "vx0", 7, "over0"
	require.NoError(t, v.Create())
	link, err := netlink.LinkByName("vx0")
	require.NoError(t, err)
	require.GreaterOrEqual(t, link.Attrs().MTU, 1350)
	return b, v
}

// inject sends a broadcast for the far bridge, as vxlan but not encrypted, to all addresses of the far host.
func inject(t *testing.T) {
	packet := append([]byte{0x08, 0, 0, 0, 0, 0, 7, 0}, bytes.Repeat([]byte{0xff}, 6)...) // RFC 7348: network 7
	packet = append(append(packet, 2, 0, 0, 0, 0, 9, 0x88, 0xb5), "smuggled, and long enough for a frame of Ethernet's, as they are"...)
	for _, to := range []string{"192.0.2.2:4789", "[fe80::2%up0]:4789"} {
		c, err := net.Dial("udp", to)
		require.NoError(t, err)
		_, err = c.Write(packet)
		require.NoError(t, err)
		c.Close()
	}
}

// sniffer has what has passed a device since it was made (packet(7)).
type sniffer struct {
	t  *testing.T
	fd int
}

func sniff(t *testing.T, device string) *sniffer {
	link, err := netlink.LinkByName(device)
	require.NoError(t, err)
	all := uint16(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: link.Attrs().Index}))
	return &sniffer{t, fd}
}

// look waits a moment for the text.
func (s *sniffer) look(text string) (found bool, ports map[uint16]bool) {
	ports = map[uint16]bool{}
	buf := make([]byte, 1<<16)
	for begin := time.Now(); !found && time.Since(begin) < 300*time.Millisecond; {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if err == unix.EAGAIN {
			time.Sleep(time.Millisecond)
			continue
		}
		require.NoError(s.t, err)
		frame := buf[:n]
		found = bytes.Contains(frame, []byte(text))
		if n > 38 && frame[12] == 8 && frame[13] == 0 && frame[23] == unix.IPPROTO_UDP {
			ports[binary.BigEndian.Uint16(frame[36:])] = true
		}
	}
	return found, ports
}

func TestVxlanValues(t *testing.T) {
	good := netstack.Vxlan{Name: "vx0", ID: 1, Local: netip.MustParseAddr("192.0.2.1"), Bridge: "br0"}
	for _, change := range []func(*netstack.Vxlan){
		func(v *netstack.Vxlan) { v.Name = "" }, func(v *netstack.Vxlan) { v.Name = "cs012345-1" }, func(v *netstack.Vxlan) { v.Bridge = "a/b" }, func(v *netstack.Vxlan) { v.ID = 0 },
		func(v *netstack.Vxlan) { v.ID = 1 << 24 }, func(v *netstack.Vxlan) { v.Port = 65536 }, func(v *netstack.Vxlan) { v.Local = netip.Addr{} },
		func(v *netstack.Vxlan) { v.Peers = []netip.Addr{netip.MustParseAddr("fd00::1")} }, func(v *netstack.Vxlan) { v.Peers = []netip.Addr{netip.MustParseAddr("224.0.0.1")} },
	} {
		v := good
		change(&v)
		require.ErrorIs(t, v.Create(), syscall.EINVAL, v)
		require.ErrorIs(t, v.Delete(), syscall.EINVAL, v)
	}
	if os.Geteuid() == 0 {
		host(t, func(*world) { require.ErrorIs(t, good.Create(), unix.ENODEV) })
	}
}
