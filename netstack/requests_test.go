//go:build linux

package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	sameAddresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("10.9.1.2/31"), netip.MustParsePrefix("fd09::2/64"), netip.MustParsePrefix("fe80::9/64")}
	sameRoutes    = []Route{{Via: netip.MustParseAddr("10.9.0.1")}, {Via: netip.MustParseAddr("fd09::1")}, {To: netip.MustParsePrefix("192.0.2.0/24")},
		{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("10.10.0.1"), OnLink: true, Metric: 7, MTU: 1300, Source: netip.MustParseAddr("10.9.0.2")},
		{To: netip.MustParsePrefix("fd0a::/64"), Via: netip.MustParseAddr("fd09::1"), Table: 1000}, {To: netip.MustParsePrefix("203.0.113.0/24"), Table: 200}}
)

// TestRequestsAsNetlink: what requests make is what package netlink makes, as that reads it: a cable and its port, addresses, routes.
func TestRequestsAsNetlink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	made := madeBy(t, false)
	require.Equal(t, madeBy(t, true), made)
	require.Greater(t, len(made), 3+len(sameAddresses)+len(sameRoutes), "%q", made)
}

// madeBy makes all in a network namespace of its own, whose thread is thrown away, and tells what there is.
func madeBy(t *testing.T, library bool) (seen []string) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			s, err := newSpeaker()
			if err != nil {
				return err
			}
			defer s.Close()
			if err := fill(s, library); err != nil {
				return err
			}
			seen, err = dumped(s.Handle)
			return err
		}()
	}()
	require.NoError(t, <-done)
	return seen
}

func fill(s speaker, library bool) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge", HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}}
	if err := s.LinkAdd(bridge); err != nil {
		return err
	}
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port", MTU: 1400, NumTxQueues: 1, NumRxQueues: 1, MasterIndex: bridge.Index}, PeerName: "card", PeerMTU: 1300,
		PeerHardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 2}, PeerNumTxQueues: 1, PeerNumRxQueues: 1}
	if library {
		if err := s.LinkAdd(v); err != nil {
			return err
		}
	} else if _, err := s.do("port", newCable(v, "card")); err != nil {
		return err
	}
	port, err := s.LinkByName("port")
	if err != nil {
		return err
	}
	card, err := s.LinkByName("card")
	if err != nil {
		return err
	}
	if library {
		return byLibrary(s.Handle, port, card)
	}
	index := port.Attrs().Index
	if _, err := s.do("port", quiet(index), setUp(index), bridgePort(index, 33, "isolate")); err != nil { // IFLA_BRPORT_ISOLATED
		return err
	}
	index = card.Attrs().Index
	list := []request{quiet(index), setUp(index)}
	for _, a := range sameAddresses {
		list = append(list, newAddress(index, a))
	}
	for _, r := range sameRoutes {
		list = append(list, r.request(index))
	}
	_, err = s.do("card", list...)
	return err
}

func byLibrary(h *netlink.Handle, port, card netlink.Link) error {
	for _, l := range []netlink.Link{port, card} {
		if err := h.LinkSetIP6AddrGenMode(l, 1); err != nil {
			return err
		}
		if err := h.LinkSetUp(l); err != nil {
			return err
		}
	}
	if err := h.LinkSetIsolated(port, true); err != nil {
		return err
	}
	for _, a := range sameAddresses {
		if err := addAddress(h, card, a); err != nil {
			return err
		}
	}
	for _, r := range sameRoutes {
		route := &netlink.Route{LinkIndex: card.Attrs().Index, Priority: r.Metric, MTU: r.MTU, Table: r.Table, Src: r.Source.AsSlice(), Gw: r.Via.AsSlice()}
		if r.To.IsValid() {
			route.Dst = ipNet(r.To)
		}
		if !r.Via.IsValid() {
			route.Scope = netlink.SCOPE_LINK
		}
		if r.OnLink {
			route.Flags = int(netlink.FLAG_ONLINK)
		}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("%v: %w", r, err)
		}
	}
	return nil
}

// dumped tells what the kernel says of devices, addresses and routes.
func dumped(h *netlink.Handle) (seen []string, err error) {
	for _, name := range []string{"port", "card"} {
		l, err := h.LinkByName(name)
		if err != nil {
			return nil, err
		}
		a := l.Attrs()
		seen = append(seen, fmt.Sprintln(name, a.Index, a.ParentIndex, a.MasterIndex, a.MTU, a.Flags&net.FlagUp, a.NumTxQueues, a.NumRxQueues))
		if name == "card" {
			seen = append(seen, a.HardwareAddr.String())
		} else if p, err := h.LinkGetProtinfo(l); err == nil {
			seen = append(seen, p.String())
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			addrs, err := retried(func() ([]netlink.Addr, error) { return h.AddrList(l, family) })
			if err != nil {
				return nil, err
			}
			for _, a := range addrs {
				seen = append(seen, fmt.Sprintln(a.IPNet, a.Scope, a.Flags&^(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED), a.Broadcast, a.Peer))
			}
			routes, err := retried(func() ([]netlink.Route, error) {
				return h.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
			})
			if err != nil {
				return nil, err
			}
			for _, r := range routes {
				if r.Type == unix.RTN_UNICAST && r.Protocol == unix.RTPROT_BOOT {
					seen = append(seen, fmt.Sprintf("%v metric %d mtu %d scope %v", r, r.Priority, r.MTU, r.Scope))
				}
			}
		}
	}
	return seen, nil
}

// TestLook asks the kernel for loopback, which needs no privilege, and for what is not there.
func TestLook(t *testing.T) {
	s, err := newSpeaker()
	require.NoError(t, err)
	defer s.Close()
	lo, err := s.look("lo")
	require.NoError(t, err)
	require.Equal(t, "lo", lo.name)
	require.Equal(t, 1, lo.index)
	require.NotZero(t, lo.mtu)
	require.Empty(t, lo.kind)
	_, err = s.look("no-such-dev")
	require.ErrorIs(t, err, syscall.ENODEV)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "no-such-dev", e.Device)
	require.Equal(t, "find", e.Op)
	_, err = s.do("lo", look(1, ""), look(1<<30, ""))
	require.ErrorIs(t, err, syscall.ENODEV)
}

// TestBroadcast: as ip(8) chooses it.
func TestBroadcast(t *testing.T) {
	for prefix, want := range map[string]string{"10.77.3.4/16": "10.77.255.255", "192.0.2.1/30": "192.0.2.3", "10.0.0.1/0": "255.255.255.255"} {
		a, ok := netip.AddrFromSlice(broadcast(netip.MustParsePrefix(prefix)))
		require.True(t, ok)
		require.Equal(t, want, a.String())
	}
}

// FuzzFacts: whatever comes is read without a panic.
func FuzzFacts(f *testing.F) {
	s, err := newSpeaker()
	require.NoError(f, err)
	defer s.Close()
	answers, err := s.do("lo", look(1, ""))
	require.NoError(f, err)
	f.Add(answers[0])
	f.Add(answers[0][:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		read(b)
		isLocal(b)
	})
}
