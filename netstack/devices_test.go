package netstack_test

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/ipam"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// outside makes a device of the host's, "up0", whose other end is in a network namespace that stands for the world outside, with a server there.
func outside(h *world, server string) {
	t := h.t
	ns := namespace(h)
	h.world = ns
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0", TxQLen: -1}, PeerName: "out0", PeerNamespace: netlink.NsFd(int(ns.Fd())), PeerTxQLen: -1}))
	link, err := netlink.LinkByName("up0")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(link))
	in(t, ns, func() error {
		out, err := netlink.LinkByName("out0")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetUp(out), netlink.AddrAdd(out, &netlink.Addr{IPNet: mustIPNet(t, "192.0.2.1/24")}),
			netlink.AddrAdd(out, &netlink.Addr{IPNet: mustIPNet(t, "2001:db8::1/64"), Flags: unix.IFA_F_NODAD})); err != nil {
			return err
		}
		for _, address := range []string{"192.0.2.1:80", "[2001:db8::1]:80"} {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			go serve(l, server)
			t.Cleanup(func() { l.Close() })
		}
		return nil
	})
}

// namespace makes a further network namespace.
func namespace(h *world) (ns *os.File) {
	done := make(chan error)
	go func() {
		lockThread() // which ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	require.NoError(h.t, <-done)
	h.t.Cleanup(func() { ns.Close() })
	return ns
}

// in calls f on a thread in a namespace.
func in(t testing.TB, ns *os.File, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		err := errors.New("the function has ended early")
		defer func() { done <- err }()
		lockThread()
		if e := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); e != nil {
			err = e
			return
		}
		err = f()
	}()
	require.NoError(t, <-done)
}

func TestVeth(t *testing.T) {
	host(t, func(h *world) {
		h.start("serve", []string{":80", "hi"}, netstack.Veth{Host: "cable", State: h.state, HostAddresses: prefixes("192.0.2.1/24", "fd01::1/64"),
			HostRoutes: []netstack.Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("192.0.2.2")}},
			Card:       netstack.Card{Addresses: prefixes("192.0.2.2/24", "fd01::2/64", "198.51.100.1/32")}})
		require.NoError(t, dialHost(h, "192.0.2.2:80"))
		require.NoError(t, dialHost(h, "[fd01::2]:80"))
		require.NoError(t, dialHost(h, "198.51.100.1:80"))
		_, err := h.try("look", nil, netstack.Veth{Host: "cable", State: h.state})
		require.ErrorIs(t, err, fs.ErrExist)
		require.Equal(t, []string{"cable"}, h.devices(), "that of the other is still there")
	})
}

func TestMacvlan(t *testing.T) {
	host(t, func(h *world) {
		outside(h, "world")
		m := netstack.Macvlan{Parent: "up0", Card: netstack.Card{Addresses: prefixes("192.0.2.7/24", "2001:db8::7/64"), Routes: []netstack.Route{{Via: netip.MustParseAddr("192.0.2.1")}}}}
		require.Equal(t, "world 192.0.2.7", withoutPort(h.run("dial", []string{"192.0.2.1:80"}, m)))
		require.Equal(t, "world [2001:db8::7]", withoutPort(h.run("dial", []string{"[2001:db8::1]:80"}, m)))
		m.Card.MTU = 9000
		_, err := h.try("look", nil, m)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.ErrorContains(t, err, `"up0" has 1500`)
		m.Parent = "none"
		_, err = h.try("look", nil, m)
		require.ErrorIs(t, err, syscall.ENODEV)
		require.Equal(t, []string{"up0"}, h.devices())
	})
}

// lacks reports whether the kernel lacks a kind of device, which it is asked itself.
func lacks(t *testing.T, link netlink.Link) bool {
	t.Helper()
	err := netlink.LinkAdd(link)
	if err == nil {
		require.NoError(t, netlink.LinkDel(link))
	}
	return errors.Is(err, syscall.EOPNOTSUPP)
}

func TestIpvlanAndVlan(t *testing.T) {
	host(t, func(h *world) {
		outside(h, "world")
		up, err := netlink.LinkByName("up0")
		require.NoError(t, err)
		a := netlink.LinkAttrs{Name: "probe", ParentIndex: up.Attrs().Index, TxQLen: -1}
		card := netstack.Card{Addresses: prefixes("192.0.2.7/24")}
		if v := (netstack.Ipvlan{Parent: "up0", Card: card}); lacks(t, &netlink.IPVlan{LinkAttrs: a}) {
			_, err := h.try("look", nil, v)
			require.ErrorIs(t, err, errors.ErrUnsupported)
		} else {
			require.Equal(t, "world 192.0.2.7", withoutPort(h.run("dial", []string{"192.0.2.1:80"}, v)))
		}
		if v := (netstack.Vlan{Parent: "up0", ID: 7, Card: card}); lacks(t, &netlink.Vlan{LinkAttrs: a, VlanId: 7}) {
			_, err := h.try("look", nil, v)
			require.ErrorIs(t, err, errors.ErrUnsupported)
		} else {
			require.Equal(t, []string{"192.0.2.7/24"}, h.look(v).Addresses["eth0"])
		}
	})
}

// TestMove: the sandbox has the device and the host has it back as it was, whatever the sandbox has done to it.
func TestMove(t *testing.T) {
	host(t, func(h *world) {
		outside(h, "world")
		up, err := netlink.LinkByName("up0")
		require.NoError(t, err)
		require.NoError(t, netlink.AddrAdd(up, &netlink.Addr{IPNet: mustIPNet(t, "192.0.2.99/24")}))
		mac := up.Attrs().HardwareAddr.String()
		m := netstack.Move{Device: "up0", Card: netstack.Card{Name: "wan", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, MTU: 1400, Addresses: prefixes("192.0.2.7/24")}}
		b := h.start("serve", []string{":80", "x"}, m)
		require.Empty(t, h.devices())
		b.stop()
		back, err := netlink.LinkByName("up0")
		require.NoError(t, err)
		require.Equal(t, mac, back.Attrs().HardwareAddr.String())
		require.Equal(t, 1500, back.Attrs().MTU)
		require.NotZero(t, back.Attrs().RawFlags&unix.IFF_UP)
		list, err := netlink.AddrList(back, netlink.FAMILY_V4)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, "192.0.2.99/24", list[0].IPNet.String())
		require.Equal(t, "world 192.0.2.7", withoutPort(h.run("dial", []string{"192.0.2.1:80"}, netstack.Move{Device: "up0", Card: netstack.Card{Addresses: prefixes("192.0.2.7/24")}})))
		require.Equal(t, []string{"up0"}, h.devices())
		_, err = h.try("look", nil, netstack.Move{Device: "up9"})
		require.ErrorIs(t, err, syscall.ENODEV)
	})
}

// TestMoveFaults: whatever fails, the host has its device.
func TestMoveFaults(t *testing.T) {
	host(t, func(h *world) {
		outside(h, "world")
		q := plan.Build(netstack.Move{Device: "up0", Card: netstack.Card{Name: "wan"}})
		for i := 1; i <= len(q.Steps(nil))+len(q.AfterSteps()); i++ {
			b, err := h.tryPlan(q, launch.Options{Fault: i}, "wait", nil)
			if err == nil {
				b.stop()
			}
			require.Equal(t, []string{"up0"}, h.devices(), "step %d: %v", i, err)
		}
	})
}

func TestTap(t *testing.T) {
	if _, err := os.Stat("/dev/net/tun"); errors.Is(err, fs.ErrNotExist) {
		host(t, func(h *world) {
			_, err := h.try("look", nil, netstack.Tap{})
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.ErrorContains(t, err, "tun")
		})
		t.Skip("no /dev/net/tun here: the kernel's module tun makes it")
	}
	host(t, func(h *world) {
		var tap *os.File
		got := make(chan []byte, 1)
		part := netstack.Tap{Attach: func(f *os.File) error { tap = f; return nil }, Card: netstack.Card{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Addresses: prefixes("192.0.2.2/24"), MTU: 1400}}
		b, err := h.try("dial", []string{"192.0.2.1:80"}, part)
		require.NoError(t, err)
		defer tap.Close()
		go func() {
			frame := make([]byte, 2000)
			n, _ := tap.Read(frame)
			got <- frame[:n]
		}()
		frame := <-got
		require.Greater(t, len(frame), 40)
		require.Equal(t, "020000000009", strings.ReplaceAll(net.HardwareAddr(frame[6:12]).String(), ":", ""))
		require.Equal(t, []byte{8, 6}, frame[12:14], "it asks who has the address (ARP)")
		b.stop()
		v := h.look(netstack.Tap{Owner: 12345, Card: netstack.Card{Name: "vm0", Addresses: prefixes("192.0.2.2/24")}}, netstack.Tap{Packet: true, Card: netstack.Card{Addresses: prefixes("192.0.2.3/32")}})
		require.Contains(t, v.Addresses["vm0"], "192.0.2.2/24")
		require.Equal(t, []string{"192.0.2.3/32"}, v.Addresses["eth0"])
		refused := errors.New("no, thanks")
		_, err = h.try("look", nil, netstack.Tap{Attach: func(f *os.File) error { return errors.Join(f.Close(), refused) }})
		require.ErrorIs(t, err, refused)
	})
}

func TestNoneHostJoin(t *testing.T) {
	host(t, func(h *world) {
		v := h.look(netstack.None{})
		require.Len(t, v.Devices, 1)
		require.Equal(t, []string{"127.0.0.1/8", "::1/128"}, v.Addresses["lo"])
		require.NotZero(t, v.Devices["lo"].Flags&net.FlagUp)
		outside(h, "world")
		require.Contains(t, h.look(netstack.Host{}).Devices, "up0")

		b := netstack.Bridge{State: h.state}
		first := h.start("serve", []string{"127.0.0.1:80", "pod"}, b)
		require.Contains(t, h.run("dial", []string{"127.0.0.1:80"}, netstack.Join{PID: first.p.PID}), "pod")
		require.Contains(t, h.run("dial", []string{"127.0.0.1:80"}, netstack.Join{PIDFD: first.p.PIDFD}, namespaces.PID|namespaces.Mount), "pod")
		f, err := os.Open("/proc/" + itoa(first.p.PID) + "/ns/net")
		require.NoError(t, err)
		defer f.Close()
		require.Contains(t, h.run("dial", []string{"127.0.0.1:80"}, netstack.Join{File: f}), "pod")
		_, err = h.try("look", nil, netstack.Join{PID: 1 << 22})
		require.ErrorIs(t, err, syscall.ESRCH)
	})
}

// TestUserNamespace: root of a sandbox with a user namespace has a network as well.
func TestUserNamespace(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		h.start("serve", []string{":80", "hello"}, b, namespaces.User|namespaces.PID|namespaces.Mount, namespaces.Sysctl{Name: "net/ipv4/conf/eth0/arp_notify", Value: "1"})
		require.Contains(t, h.run("dial", []string{"10.77.0.2:80"}, namespaces.User|namespaces.Net, b, caps.Drop(caps.All)), "hello")
	})
}

// TestOrdinary: an ordinary user has loopback, and nothing of the host's.
func TestOrdinary(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	h := &world{t: t, state: t.TempDir()}
	b, err := h.try("look", nil, namespaces.User, netstack.None{})
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this system forbids user namespaces to ordinary users")
	}
	require.NoError(t, err)
	b.stop()
	v := h.look(namespaces.User, netstack.Loopback{})
	require.Equal(t, []string{"127.0.0.1/8", "::1/128"}, v.Addresses["lo"])
	_, err = h.try("look", nil, netstack.Loopback{})
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = h.try("look", nil, namespaces.User, netstack.Bridge{State: h.state})
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "CAP_NET_ADMIN")
	_, err = h.try("look", nil, namespaces.User, netstack.Macvlan{Parent: "eth0"})
	require.Error(t, err)
	_, err = h.try("look", nil, netstack.Join{PID: 1})
	require.ErrorIs(t, err, fs.ErrPermission)
	require.Error(t, netstack.Bridge{State: "/run/caisson-nobody/x"}.Create())
}

func TestContract(t *testing.T) {
	for _, p := range []plan.Primitive{netstack.Loopback{}, netstack.None{}, netstack.Host{}, netstack.Join{PID: os.Getpid()}, netstack.Join{}, netstack.Bridge{}, netstack.Veth{},
		netstack.Macvlan{Parent: "x"}, netstack.Ipvlan{Parent: "x"}, netstack.Vlan{Parent: "x", ID: 1}, netstack.Move{Device: "x"}, netstack.Tap{}, netstack.Bridge{Name: "a/b"}} {
		plantest.Check(t, p)
	}
	plantest.Check(t, netstack.Bridge{}, netstack.Bridge{Name: "other"}, namespaces.All&^namespaces.Time)
}

func TestValues(t *testing.T) {
	for text, p := range map[string]plan.Primitive{
		`Name "abcdefghijklmnop": 16 bytes`:       netstack.Bridge{Name: "abcdefghijklmnop"},
		`Name "a/b"`:                              netstack.Bridge{Name: "a/b"},
		`Name "lo"`:                               netstack.Veth{Card: netstack.Card{Name: "lo"}},
		`Name "x%d"`:                              netstack.Veth{Card: netstack.Card{Name: "x%d"}},
		"looks like a sandbox's cable":            netstack.Bridge{Name: "cs012345-1"},
		"looks like a name that says":             netstack.Veth{Host: "csabcdef-zz"},
		"not between 68":                          netstack.Bridge{MTU: 67},
		"IPv6 needs 1280":                         netstack.Bridge{MTU: 1000},
		"the bridge drops":                        netstack.Bridge{MTU: 1400, Card: netstack.Card{MTU: 1500}},
		"not between 1 and 4094":                  netstack.Bridge{VLAN: 4095, VLANFiltering: true},
		"without VLANFiltering":                   netstack.Bridge{VLAN: 7},
		"in no subnet of the pool":                netstack.Bridge{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		"overlaps":                                netstack.Bridge{Subnets: append(netstack.DefaultSubnets(), ipam.Subnet{Prefix: netip.MustParsePrefix("10.77.1.0/24")})},
		"not a host name":                         netstack.Bridge{Hosts: []string{"a b"}},
		"not an absolute path":                    netstack.Bridge{State: "x"},
		"not 6 bytes":                             netstack.Veth{Card: netstack.Card{MAC: net.HardwareAddr{1}}},
		"not the address of one device":           netstack.Veth{Card: netstack.Card{MAC: net.HardwareAddr{1, 0, 0, 0, 0, 0}}},
		"not the address of one host":             netstack.Veth{Card: netstack.Card{Addresses: prefixes("224.0.0.1/4")}},
		"neither a destination nor":               netstack.Veth{Card: netstack.Card{Routes: []netstack.Route{{}}}},
		"of different families":                   netstack.Veth{Card: netstack.Card{Routes: []netstack.Route{{To: prefixes("10.0.0.0/8")[0], Via: netip.MustParseAddr("fd00::1")}}}},
		"table or priority":                       netstack.Veth{Card: netstack.Card{Rules: []netstack.Rule{{From: prefixes("10.0.0.0/8")[0]}}}},
		"needs an address and a hardware address": netstack.Veth{Card: netstack.Card{Neighbours: []netstack.Neighbour{{}}}},
		"not a mode":                              netstack.Macvlan{Parent: "x", Mode: 9},
		"an ipvlan device has its parent's":       netstack.Ipvlan{Parent: "x", Card: netstack.Card{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}},
		`Parent ""`:                               netstack.Macvlan{},
		`ID "0"`:                                  netstack.Vlan{Parent: "x"},
		"exactly one of PID, PIDFD and File":      netstack.Join{PID: 1, File: os.Stdin},
		"a device of packets has no hardware":     netstack.Tap{Packet: true, Card: netstack.Card{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}},
		`Device ""`:                               netstack.Move{},
	} {
		err := plan.Build(p).Err()
		require.Error(t, err, text)
		require.ErrorContains(t, err, text)
		require.True(t, errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EADDRNOTAVAIL), "%v", err)
	}
}

func TestConflicts(t *testing.T) {
	card := netstack.Card{Name: "net0"}
	for _, parts := range [][]plan.Primitive{
		{netstack.None{}, netstack.Bridge{}}, {netstack.Bridge{}, netstack.None{}}, {netstack.Host{}, netstack.Bridge{}}, {netstack.Host{}, namespaces.Net},
		{netstack.Host{}, netstack.None{}}, {netstack.Join{PID: 1}, netstack.Veth{}}, {netstack.Join{PID: 1}, namespaces.Net}, {netstack.Bridge{Card: card}, netstack.Veth{Card: card}},
		{netstack.Bridge{State: "/a"}, netstack.Veth{State: "/b"}}, {netstack.Tap{}, netstack.Join{PID: 1}},
	} {
		require.Error(t, plan.Build(parts...).Err(), "%T and %T", parts[0], parts[1])
	}
	for _, parts := range [][]plan.Primitive{{netstack.Bridge{}, netstack.Loopback{}, namespaces.Net}, {netstack.None{}, namespaces.All &^ namespaces.Time}, {netstack.Host{}, namespaces.PID}} {
		require.NoError(t, plan.Build(parts...).Err())
	}
}
