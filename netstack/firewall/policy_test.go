//go:build linux

package firewall_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// both calls f with the addresses of one family and then of the other: web, db, the bridge, the host's uplink, outside.
func both(f func(web, db, gateway, uplink, outside string)) {
	f("10.88.0.2", "10.88.0.3", "10.88.0.1", "192.0.2.1", "192.0.2.2")
	f("[fd88::2]", "[fd88::3]", "[fd88::1]", "[2001:db8::1]", "[2001:db8::2]")
}

func plainText(bracketed string) string {
	return netip.MustParseAddrPort(bracketed + ":1").Addr().String()
}

func TestIsolation(t *testing.T) { testIsolation(t, (*world).open) }

func testIsolation(t *testing.T, open func(*world) *firewall.Firewall) {
	w := newWorld(t)
	fw := open(w)
	w.web.serve(80, "web")
	w.db.serve(80, "db")
	w.add(fw, "db", firewall.Rules{Cards: w.dbCard(), Masquerade: true})
	held := w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Masquerade: true})
	both(func(web, db, gateway, _, _ string) {
		w.web.reaches("db "+plainText(web), "tcp", db+":80")
		w.db.reaches("web "+plainText(db), "tcp", web+":80")
	})
	require.NoError(t, held.Set(firewall.Rules{Cards: w.webCard(), Masquerade: true, Isolated: true}))
	both(func(web, db, gateway, _, _ string) {
		w.web.cannot("tcp", db+":80")
		w.db.cannot("tcp", web+":80")
		w.host.reaches("web "+plainText(gateway), "tcp", web+":80")
	})
	// By way of the host, which would send it back over the bridge.
	w.web.run("ip", "route", "add", "10.88.0.3/32", "via", "10.88.0.1")
	w.web.cannot("tcp", "10.88.0.3:80")
	w.web.run("ip", "route", "del", "10.88.0.3/32")
	require.NoError(t, held.Set(firewall.Rules{Cards: w.webCard(), Masquerade: true}))
	w.web.reaches("db 10.88.0.2", "tcp", "10.88.0.3:80")
}

// TestPrivate: somebody on the same wire routes to a sandbox's own address, or to the host's loopback address.
func TestPrivate(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	w.web.serve(80, "web")
	w.outside.run("ip", "route", "add", "10.88.0.0/24", "via", "192.0.2.1")
	w.outside.run("ip", "-6", "route", "add", "fd88::/64", "via", "2001:db8::1")
	rules := firewall.Rules{Cards: w.webCard()}
	held := w.add(fw, "web", rules)
	w.host.sysctl("net/ipv4/ip_forward", "1")
	w.host.sysctl("net/ipv6/conf/all/forwarding", "1")
	w.outside.reaches("web 192.0.2.2", "tcp", "10.88.0.2:80")
	w.outside.reaches("web 2001:db8::2", "tcp", "[fd88::2]:80")

	rules.Masquerade = true
	rules.Publish = []firewall.Port{{Addr: netip.MustParseAddr("127.0.0.1"), Port: 8080, To: 80}}
	require.NoError(t, held.Set(rules))
	w.outside.cannot("tcp", "10.88.0.2:80")
	w.outside.cannot("tcp", "[fd88::2]:80")
	w.host.reaches("web 10.88.0.1", "tcp", "127.0.0.1:8080")
	require.Equal(t, "1", w.host.readSysctl("net/ipv4/conf/caisson0/route_localnet"))

	w.host.serve(99, "host")
	for _, s := range []space{w.outside, w.web} { // what is for the host alone, and what it listens to itself
		s.sysctl("net/ipv4/conf/all/route_localnet", "1")
		s.run("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
		s.run("ip", "route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local")
	}
	w.outside.run("ip", "route", "add", "127.0.0.0/8", "via", "192.0.2.1", "src", "192.0.2.2")
	w.web.run("ip", "route", "add", "127.0.0.0/8", "via", "10.88.0.1", "src", "10.88.0.2")
	for _, s := range []space{w.outside, w.web} {
		s.cannot("tcp", "127.0.0.1:8080")
		s.cannot("tcp", "127.0.0.1:99")
	}
	require.NoError(t, held.Remove())
	require.Equal(t, "0", w.host.readSysctl("net/ipv4/conf/caisson0/route_localnet"))
}

func TestPolicy(t *testing.T) { testPolicy(t, (*world).open) }

func testPolicy(t *testing.T, open func(*world) *firewall.Firewall) {
	w := newWorld(t)
	fw := open(w)
	for _, s := range []space{w.outside, w.db, w.host} {
		s.serve(80, s.name)
		s.serve(81, s.name)
	}
	w.web.serve(80, "web")
	w.add(fw, "db", firewall.Rules{Cards: w.dbCard(), Masquerade: true})
	rules := firewall.Rules{Cards: w.webCard(), Masquerade: true, Publish: []firewall.Port{{Port: 8080, To: 80}}, Policy: firewall.Policy{Egress: firewall.Direction{
		Rules: []firewall.Rule{
			{Verdict: firewall.Drop, Peers: firewall.Prefixes("192.0.2.2", "2001:db8::2"), Protocol: firewall.TCP, Ports: firewall.Ports(81)},
			{Peers: firewall.Prefixes("192.0.2.0/24", "2001:db8::/64", "192.0.2.128/25"), Protocol: firewall.TCP},
			{Peers: firewall.Prefixes("10.88.0.3", "fd88::3"), Protocol: firewall.UDP, Ports: []firewall.PortRange{{First: 70, Last: 80}, {First: 75, Last: 90}}},
		},
		Otherwise: firewall.Reject}}}
	held := w.add(fw, "web", rules)
	both(func(web, db, gateway, uplink, outside string) {
		w.web.reaches("outside "+plainText(uplink), "tcp", outside+":80")
		w.web.cannot("tcp", outside+":81")
		w.web.cannot("udp", outside+":80")
		w.web.cannot("tcp", gateway+":80") // the host is somebody, too
		w.web.reaches("host "+plainText(web), "tcp", uplink+":80")
		w.web.reaches("db "+plainText(web), "udp", db+":80") // a neighbour on the bridge
		w.web.cannot("tcp", db+":80")
		w.db.reaches("web "+plainText(db), "tcp", web+":80")
		w.host.reaches("web "+plainText(gateway), "tcp", web+":80")
		w.outside.reaches("web "+plainText(outside), "tcp", uplink+":8080")
	})
	rules.Policy = firewall.Policy{Ingress: firewall.Direction{Rules: []firewall.Rule{
		{Verdict: firewall.Reject, Peers: firewall.Prefixes("192.0.2.0/24", "2001:db8::/64")},
		{Verdict: firewall.Drop, Protocol: firewall.UDP}}}}
	require.NoError(t, held.Set(rules))
	both(func(web, db, gateway, uplink, outside string) {
		w.web.reaches("outside "+plainText(uplink), "tcp", outside+":81")
		w.outside.cannot("tcp", uplink+":8080")
		w.db.reaches("web "+plainText(db), "tcp", web+":80")
		w.db.cannot("udp", web+":80")
	})
	require.NoError(t, held.Set(firewall.Rules{Cards: w.webCard(), Masquerade: true}))
	both(func(web, db, gateway, uplink, outside string) { w.db.reaches("web "+plainText(db), "udp", web+":80") })
}

// TestSpoof: a sandbox that is root in its network namespace takes other addresses.
func TestSpoof(t *testing.T) { testSpoof(t, (*world).open) }

func testSpoof(t *testing.T, open func(*world) *firewall.Firewall) {
	w := newWorld(t)
	fw := open(w)
	w.db.serve(80, "db")
	w.outside.serve(80, "outside")
	w.add(fw, "db", firewall.Rules{Cards: w.dbCard(), Masquerade: true})
	w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Masquerade: true,
		Policy: firewall.Policy{Egress: firewall.Direction{Rules: []firewall.Rule{{Peers: firewall.Prefixes("10.88.0.3", "fd88::3")}}, Otherwise: firewall.Drop}}})
	both(func(web, db, _, _, outside string) {
		w.web.reaches("db "+plainText(web), "tcp", db+":80")
		w.web.cannot("tcp", outside+":80")
	})
	w.web.run("ip", "addr", "del", "10.88.0.2/24", "dev", "eth0")
	w.web.run("ip", "addr", "del", "fd88::2/64", "dev", "eth0")
	w.web.addr("eth0", "10.88.0.77/24", "fd88::77/64")
	w.web.gateway("10.88.0.1")
	both(func(_, db, gateway, _, outside string) {
		w.web.cannot("tcp", db+":80")
		w.web.cannot("tcp", outside+":80")
	})

	// The neighbour's address, and then its MAC, too: its packets stay its own.
	w.web.addr("eth0", "10.88.0.3/32", "fd88::3/128")
	w.web.run("ip", "link", "set", "eth0", "address", mac(w.db).String())
	w.web.serve(80, "thief")
	w.web.ask("udp", "10.88.0.1:9") // frames with the stolen MAC
	w.host.run("ip", "neigh", "flush", "dev", "caisson0")
	both(func(_, db, gateway, _, _ string) { w.host.reaches("db "+plainText(gateway), "tcp", db+":80") })
}

// TestSpoofFrames sends what no IP stack would.
func TestSpoofFrames(t *testing.T) { testSpoofFrames(t, (*world).open) }

func testSpoofFrames(t *testing.T, open func(*world) *firewall.Firewall) {
	w := newWorld(t)
	fw := open(w)
	w.add(fw, "web", firewall.Rules{Cards: w.webCard()})
	w.oddFrames(t)
	w.oddNeighbours(t)
}

// oddFrames are sent by web: only its own ARP passes.
func (w *world) oddFrames(t *testing.T) {
	t.Helper()
	own, all := mac(w.web), []byte{255, 255, 255, 255, 255, 255}
	arp := func(sender string) []byte {
		ip := netip.MustParseAddr(sender).AsSlice()
		return append(append(append([]byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}, append(append([]byte{}, own...), ip...)...), own...), ip...)
	}
	for _, c := range []struct {
		name   string
		source []byte
		rest   []byte
		passes bool
	}{
		{"own ARP", own, arp("10.88.0.2"), true},
		{"ARP for the gateway", own, arp("10.88.0.1"), false},
		{"other MAC", []byte{2, 0, 0, 0, 0, 9}, arp("10.88.0.2"), false},
		{"VLAN", own, append([]byte{0x81, 0, 0, 1}, arp("10.88.0.2")...), false},
		{"unknown type", own, append([]byte{0x88, 0xb5}, make([]byte, 46)...), false},
	} {
		got := w.sniff(func() { w.web.send(append(append(append([]byte{}, all...), c.source...), c.rest...)) })
		require.Equal(t, c.passes, got, c.name)
	}
}

// send puts a frame on the wire.
func (s space) send(frame []byte) {
	s.in(func() {
		l, err := netlink.LinkByName("eth0")
		require.NoError(s.t, err)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		require.NoError(s.t, err)
		defer unix.Close(fd)
		require.NoError(s.t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Halen: 6}))
	})
}

// sniff tells whether a frame of what f sends, all of which are broadcast and none IP, arrives at db.
func (w *world) sniff(f func()) bool {
	return w.arrives(f, func(b []byte) bool {
		return len(b) >= 14 && b[0] == 255 && fmt.Sprintf("%x", b[12:14]) != "0800" && fmt.Sprintf("%x", b[12:14]) != "86dd"
	})
}

// arrives tells whether a frame arrives at db that is one of those that f sends.
func (w *world) arrives(f func(), is func(frame []byte) bool) (arrived bool) {
	var fd int
	w.db.in(func() {
		l, err := netlink.LinkByName("eth0")
		require.NoError(w.t, err)
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		require.NoError(w.t, err)
		require.NoError(w.t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: l.Attrs().Index}))
		require.NoError(w.t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200000}))
	})
	sock := os.NewFile(uintptr(fd), "packets")
	defer sock.Close()
	f()
	buf := make([]byte, 2048)
	for !arrived {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return false
		}
		arrived = is(buf[:n])
	}
	return true
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }
