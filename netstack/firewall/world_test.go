//go:build linux

package firewall_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// space is a network namespace of the test's own.
type space struct {
	t    testing.TB
	name string
	file *os.File
}

// newSpace makes a namespace with a loopback interface. The thread that has made it ends.
func newSpace(t testing.TB, name string) space {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: no network namespaces")
	}
	s := space{t: t, name: name}
	made := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.file, err = os.Open("/proc/thread-self/ns/net")
		}
		made <- err
	}()
	require.NoError(t, <-made)
	t.Cleanup(func() { s.file.Close() })
	s.in(func() {
		lo, err := netlink.LinkByName("lo")
		require.NoError(t, err)
		require.NoError(t, netlink.LinkSetUp(lo))
		for _, k := range []string{"all", "default"} { // so that addresses can be used at once
			require.NoError(t, os.WriteFile("/proc/sys/net/ipv6/conf/"+k+"/accept_dad", []byte("0"), 0))
		}
	})
	return s
}

// in runs f on a thread in the namespace, which ends with it.
func (s space) in(f func()) {
	s.t.Helper()
	done := make(chan any)
	go func() {
		runtime.LockOSThread()
		ok := false
		defer func() { // also when f ends by t.FailNow
			if r := recover(); r != nil || !ok {
				done <- fmt.Sprintf("%v (in %s)", r, s.name)
				return
			}
			done <- nil
		}()
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		f()
		ok = true
	}()
	if r := <-done; r != nil {
		s.t.Fatal(r)
	}
}

func (s space) sysctl(name, value string) {
	s.t.Helper()
	s.in(func() { require.NoError(s.t, os.WriteFile("/proc/sys/"+name, []byte(value), 0)) })
}

func (s space) readSysctl(name string) (value string) {
	s.in(func() {
		b, err := os.ReadFile("/proc/sys/" + name)
		require.NoError(s.t, err)
		value = strings.TrimSpace(string(b))
	})
	return value
}

// run runs a program inside and gives what it has printed.
func (s space) run(name string, args ...string) (out string) {
	s.t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		s.t.Skipf("no %s in PATH: Debian's packages iproute2, nftables and iptables", name)
	}
	s.in(func() {
		b, err := exec.Command(name, args...).CombinedOutput()
		require.NoErrorf(s.t, err, "%s %v: %s", name, args, b)
		out = string(b)
	})
	return out
}

func (s space) addr(link string, texts ...string) {
	s.t.Helper()
	s.in(func() {
		l, err := netlink.LinkByName(link)
		require.NoError(s.t, err)
		for _, text := range texts {
			a, err := netlink.ParseAddr(text)
			require.NoError(s.t, err)
			a.Flags = unix.IFA_F_NODAD
			if a.IP.To4() != nil {
				a.Flags = 0
			}
			require.NoError(s.t, netlink.AddrAdd(l, a))
		}
		require.NoError(s.t, netlink.LinkSetUp(l))
	})
}

func (s space) gateway(texts ...string) {
	s.t.Helper()
	s.in(func() {
		for _, text := range texts {
			require.NoError(s.t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(text)}))
		}
	})
}

// veth connects two namespaces.
func veth(a space, nameA string, b space, nameB string) {
	a.t.Helper()
	a.in(func() {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(int(b.file.Fd()))}
		require.NoError(a.t, netlink.LinkAdd(link))
		l, err := netlink.LinkByName(nameA)
		require.NoError(a.t, err)
		require.NoError(a.t, netlink.LinkSetUp(l))
	})
}

// world is a host with a bridge, two sandboxes on it, and somebody outside:
//
//	web 10.88.0.2, fd88::2 ─ veth-web ┐
//	                                  caisson0 10.88.0.1, fd88::1 ─ host ─ uplink 192.0.2.1, 2001:db8::1 ─ outside 192.0.2.2, 2001:db8::2
//	db  10.88.0.3, fd88::3 ─ veth-db ─┘
type world struct {
	t                      testing.TB
	host, outside, web, db space
	dir                    string
	short                  bool // see wait
}

func newWorld(t testing.TB) *world {
	if t, ok := t.(*testing.T); ok {
		t.Parallel()
	}
	w := &world{t: t, host: newSpace(t, "host"), outside: newSpace(t, "outside"), dir: t.TempDir()}
	veth(w.host, "uplink", w.outside, "eth0")
	w.host.addr("uplink", "192.0.2.1/24", "2001:db8::1/64")
	w.outside.addr("eth0", "192.0.2.2/24", "2001:db8::2/64")
	w.host.in(func() {
		hw := net.HardwareAddr{2, 0x88, 0, 0, 0, 1}
		require.NoError(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "caisson0", HardwareAddr: hw}}))
	})
	w.host.addr("caisson0", "10.88.0.1/24", "fd88::1/64")
	w.web, w.db = w.sandbox("web", 2), w.sandbox("db", 3)
	w.host.ready("uplink")
	w.host.ready("caisson0")
	w.outside.ready("eth0")
	return w
}

// ready waits until the kernel has taken up IPv6 on an interface: it does so some time after the carrier is there, and gives it a link-local address then.
func (s space) ready(link string) {
	s.t.Helper()
	s.in(func() {
		l, err := netlink.LinkByName(link)
		require.NoError(s.t, err)
		for range 2000 {
			list, _ := netlink.AddrList(l, netlink.FAMILY_V6) // an interrupted dump is asked for again
			if slices.ContainsFunc(list, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 }) {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		s.t.Fatalf("%s of %s has no IPv6 after ten seconds", link, s.name)
	})
}

// sandbox puts one more on the bridge.
func (w *world) sandbox(name string, n int) space {
	s := newSpace(w.t, name)
	veth(w.host, "veth-"+name, s, "eth0")
	w.host.in(func() {
		l, err := netlink.LinkByName("veth-" + name)
		require.NoError(w.t, err)
		br, err := netlink.LinkByName("caisson0")
		require.NoError(w.t, err)
		require.NoError(w.t, netlink.LinkSetMaster(l, br))
	})
	s.addr("eth0", fmt.Sprintf("10.88.0.%d/24", n), fmt.Sprintf("fd88::%x/64", n))
	s.gateway("10.88.0.1", "fd88::1")
	s.ready("eth0")
	return s
}

func mac(s space) (hw net.HardwareAddr) {
	s.in(func() {
		l, err := netlink.LinkByName("eth0")
		require.NoError(s.t, err)
		hw = l.Attrs().HardwareAddr
	})
	return hw
}

func (w *world) card(s space, n int) firewall.Card {
	return firewall.Card{Name: "veth-" + s.name, Bridge: "caisson0", MAC: mac(s),
		Addrs: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.88.0.%d", n)), netip.MustParseAddr(fmt.Sprintf("fd88::%x", n))}}
}

func (w *world) webCard() []firewall.Card { return []firewall.Card{w.card(w.web, 2)} }
func (w *world) dbCard() []firewall.Card  { return []firewall.Card{w.card(w.db, 3)} }

// open opens the host's firewall. Kernels without nf_tables cannot.
func (w *world) open() (fw *firewall.Firewall) {
	w.t.Helper()
	w.host.in(func() {
		var err error
		fw, err = firewall.Host{Dir: w.dir, Forward: true}.Open()
		require.NoError(w.t, err)
	})
	w.t.Cleanup(func() { fw.Close() })
	return fw
}

func (w *world) add(fw *firewall.Firewall, id string, r firewall.Rules) *firewall.Held {
	w.t.Helper()
	held, err := fw.Add(id, r)
	require.NoError(w.t, err)
	return held
}

// serve answers each connection and each datagram with the caller's address, and what it says of itself.
func (s space) serve(port int, name string) {
	s.t.Helper()
	s.in(func() {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		require.NoError(s.t, err)
		s.t.Cleanup(func() { l.Close() })
		go answer(l, name)
		u, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		require.NoError(s.t, err)
		s.t.Cleanup(func() { u.Close() })
		go answerPackets(u, name)
	})
}

func answer(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		fmt.Fprintf(c, "%s %s\n", name, plain(host))
		c.Close()
	}
}

func answerPackets(u net.PacketConn, name string) {
	buf := make([]byte, 2048)
	for {
		_, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(from.String())
		fmt.Fprintf(writerTo{u, from}, "%s %s\n", name, plain(host))
	}
}

type writerTo struct {
	conn net.PacketConn
	to   net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.conn.WriteTo(b, w.to) }

func plain(host string) string { return netip.MustParseAddr(host).Unmap().WithZone("").String() }

// patience is how long a connection may take. What is dropped takes as long. Machines in software are slow.
var patience = map[bool]time.Duration{false: 300 * time.Millisecond, true: 1500 * time.Millisecond}[os.Getenv("VMRUN") != ""]

// ask connects and gives the answer, or the error.
func (s space) ask(network, to string) (text string, err error) {
	s.t.Helper()
	s.in(func() {
		var c net.Conn
		if c, err = (&net.Dialer{Timeout: patience}).Dial(network, to); err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if network == "udp" {
			io.WriteString(c, "who\n")
		}
		text, err = bufio.NewReader(c).ReadString('\n')
	})
	return strings.TrimSpace(text), err
}

func (s space) reaches(want, network, to string) {
	s.t.Helper()
	got, err := s.ask(network, to)
	require.NoErrorf(s.t, err, "%s asks %s %s", s.name, network, to)
	require.Equalf(s.t, want, got, "%s asks %s %s", s.name, network, to)
}

func (s space) cannot(network, to string) {
	s.t.Helper()
	got, err := s.ask(network, to)
	require.Errorf(s.t, err, "%s asks %s %s and is answered %q", s.name, network, to, got)
}

// ruleset is what nft shows.
func (s space) ruleset() string {
	s.t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		s.t.Skip("no nft in PATH: Debian's package nftables")
	}
	return s.run("nft", "list", "ruleset")
}
