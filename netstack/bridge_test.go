package netstack_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/ipam"
	"github.com/caisson-dev/caisson/plan"
)

func TestBridge(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		v := h.look(b)
		require.Len(t, v.Devices, 2)
		require.Contains(t, v.Addresses["eth0"], "10.77.0.2/16")
		require.Contains(t, v.Addresses["eth0"], "fd77:ca15:50::2/64")
		require.Contains(t, v.Addresses["lo"], "127.0.0.1/8")
		require.NotContains(t, strings.Join(v.Addresses["eth0"], " "), "tentative")
		require.Contains(t, v.Routes, "0.0.0.0/0 via 10.77.0.1")
		require.Contains(t, v.Routes, "::/0 via fd77:ca15:50::1")
		require.Equal(t, []string{"caisson0"}, h.devices())
		held, err := b.Names()
		require.NoError(t, err)
		require.Empty(t, held)
		require.NoError(t, b.Delete())
		require.Empty(t, h.devices())
	})
}

// TestTwoTalk: over the bridge, with the first packet sent at once, in both families.
func TestTwoTalk(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		h.start("serve", []string{":80", "hello"}, b)
		require.Equal(t, "hello 10.77.0.3", withoutPort(h.run("dial", []string{"10.77.0.2:80"}, b)))
		require.Equal(t, "hello [fd77:ca15:50::4]", withoutPort(h.run("dial", []string{"[fd77:ca15:50::2]:80"}, b)))
		// The host is there, too.
		require.NoError(t, dialHost(h, "10.77.0.2:80"))
		require.NoError(t, dialHost(h, "[fd77:ca15:50::2]:80"))
	})
}

func withoutPort(s string) string {
	if i := strings.LastIndex(s, ":"); i >= 0 {
		return s[:i]
	}
	return s
}

// dialHost connects from the namespace that stands for the host: by a child of the thread.
func dialHost(h *world, address string) error {
	c := exec.Command(self(), address)
	c.Env = append(os.Environ(), "NETSTACK_TEST=dial")
	out, err := c.CombinedOutput()
	if err != nil {
		return errors.New(string(out))
	}
	return nil
}

// TestBelievesNobody: no card takes what a router says, and one on a bridge does not repeat what groups it listens to.
func TestBelievesNobody(t *testing.T) {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("a kernel without IPv6: ", err)
	}
	host(t, func(h *world) {
		const often = "600000\n"
		b, v := netstack.Bridge{State: h.state}, netstack.Veth{State: h.state, Card: netstack.Card{Addresses: []netip.Prefix{netip.MustParsePrefix("fd00::2/64")}}}
		p, err := netstack.NewPool(1, b)
		require.NoError(t, err)
		defer p.Close()
		for _, c := range []struct {
			quiet bool
			parts []plan.Primitive
		}{{true, []plan.Primitive{b}}, {true, []plan.Primitive{p}}, {false, []plan.Primitive{v}}, {false, []plan.Primitive{b, v}}} {
			read := func(name string) string {
				return h.run("read", []string{"/proc/sys/net/ipv6/conf/eth0/" + name}, c.parts...)
			}
			require.Equal(t, "0\n", read("accept_ra"))
			require.Equal(t, c.quiet, read("mldv2_unsolicited_report_interval") == often)
		}
		text, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/mldv2_unsolicited_report_interval")
		require.NoError(t, err)
		require.NotEqual(t, often, string(text), "of the host")
	})
}

func TestIsolated(t *testing.T) {
	bothBackends(t, func(h *world, by netstack.Backend) {
		slowPrograms(h.t, by)
		b := netstack.Bridge{State: h.state, Backend: by, Isolated: true}
		h.start("serve", []string{":80", "hello"}, b)
		require.Contains(h.t, h.run("dial", []string{"10.77.0.2:80", "400ms"}, b), "error: dial tcp 10.77.0.2:80")
		require.Contains(h.t, h.run("dial", []string{"[fd77:ca15:50::2]:80", "400ms"}, b), "error: dial tcp")
		b.Isolated = false
		require.Contains(h.t, h.run("dial", []string{"10.77.0.2:80", "400ms"}, b), "error: dial tcp 10.77.0.2:80")
		require.NoError(h.t, dialHost(h, "10.77.0.2:80"))
		b.Isolated, b.Unchecked, b.Backend = true, true, 0
		h.start("serve", []string{":80", "hello"}, b)
		require.Contains(h.t, h.run("dial", []string{"10.77.0.6:80", "400ms"}, b), "error: dial tcp 10.77.0.6:80")
		b.Isolated = false
		require.Contains(h.t, h.run("dial", []string{"10.77.0.6:80"}, b), "hello")
	})
}

func TestBridgeValues(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{Name: "br-x", State: h.state, MTU: 1400, Internal: true,
			Subnets:   []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.254")}},
			Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.77")}, Hosts: []string{"web"},
			Card: netstack.Card{Name: "net7", MAC: []byte{2, 1, 2, 3, 4, 5}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")},
				Routes:     []netstack.Route{{To: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("10.9.0.254")}, {To: netip.MustParsePrefix("203.0.113.0/24"), Table: 100}},
				Rules:      []netstack.Rule{{From: netip.MustParsePrefix("192.0.2.7/32"), Table: 100, Priority: 1000}},
				Neighbours: []netstack.Neighbour{{Addr: netip.MustParseAddr("10.9.0.9"), MAC: []byte{2, 9, 9, 9, 9, 9}}}},
		}
		run := h.start("wait", nil, b)
		held, err := b.Names()
		require.NoError(t, err)
		require.Len(t, held, 1)
		require.Equal(t, []string{"web"}, held[0].Names)
		err = netstack.Bridge.Delete(b)
		require.ErrorIs(t, err, syscall.EBUSY)
		run.stop()
		v := h.look(b)
		d := v.Devices["net7"]
		require.Equal(t, "02:01:02:03:04:05", d.HardwareAddr.String())
		require.Equal(t, 1400, d.MTU)
		require.Equal(t, []string{"10.9.0.77/24", "192.0.2.7/32"}, v.Addresses["net7"], "no IPv6, since nobody asked for it")
		require.Contains(t, v.Routes, "198.51.100.0/24 via 10.9.0.254")
		require.NotContains(t, strings.Join(v.Routes, ";"), "0.0.0.0/0")
		require.Contains(t, v.Neigh, "10.9.0.9 02:09:09:09:09:09")
		require.Equal(t, 4, v.Rules)
	})
}

// TestSeveralNetworks: two bridges and a cable.
func TestSeveralNetworks(t *testing.T) {
	host(t, func(h *world) {
		second := netstack.Bridge{Name: "second", State: h.state, Internal: true, Subnets: []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24")}}}
		v := h.look(netstack.Bridge{State: h.state}, second, netstack.Veth{State: h.state, HostAddresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/31")},
			Card: netstack.Card{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/31")}}})
		require.Len(t, v.Devices, 4)
		require.Contains(t, v.Addresses["eth1"], "10.9.0.2/24")
		require.Contains(t, v.Addresses["eth2"], "192.0.2.0/31")
		require.ElementsMatch(t, []string{"caisson0", "second"}, h.devices())
	})
}

// TestDeaf: a sandbox that advertises itself as a router is not heard by the host (CVE-2020-13401).
func TestDeaf(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		h.start("wait", nil, b, netstack.Veth{Host: "cable", State: h.state})
		for _, device := range []string{"caisson0", "cable"} {
			for _, name := range []string{"ipv6/conf/" + device + "/accept_ra", "ipv6/conf/" + device + "/accept_redirects", "ipv4/conf/" + device + "/accept_redirects"} {
				text, err := os.ReadFile("/proc/sys/net/" + name)
				require.NoError(t, err)
				require.Equal(t, "0\n", string(text), name)
			}
		}
	})
}

func TestBridgeThatIsThere(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		require.NoError(t, b.Create())
		require.NoError(t, b.Create(), "again")
		other := b
		other.Subnets = []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24")}}
		_, err := h.try("look", nil, other)
		require.ErrorIs(t, err, syscall.EEXIST)
		require.ErrorContains(t, err, "with the address 10.77.0.1/16, not 10.9.0.1/24")
		other = b
		other.MTU = 1300
		require.ErrorIs(t, other.Create(), syscall.EEXIST)
		other = b
		other.Card.MTU = 9000
		_, err = h.try("look", nil, other)
		require.ErrorContains(t, err, "drops what is larger than its MTU of 1500")
		other = netstack.Bridge{Name: "lap", State: h.state, Subnets: []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.77.3.0/24")}}}
		err = other.Create()
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		require.ErrorContains(t, err, "caisson0")
		require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "one"}, PeerName: "two"}))
		require.ErrorContains(t, netstack.Bridge{Name: "one", State: h.state}.Create(), "it is a veth")
	})
}

// TestHalfBridge: what a killed process has left of a bridge is completed.
func TestHalfBridge(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		require.NoError(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "caisson0"}}))
		require.Contains(t, h.look(b).Addresses["eth0"], "10.77.0.2/16")
		link, err := netlink.LinkByName("caisson0")
		require.NoError(t, err)
		require.NoError(t, netlink.AddrDel(link, &netlink.Addr{IPNet: mustIPNet(t, "fd77:ca15:50::1/64")}))
		require.Contains(t, h.look(b).Routes, "::/0 via fd77:ca15:50::1")
		list, err := netlink.AddrList(link, netlink.FAMILY_V6)
		require.NoError(t, err)
		require.Contains(t, list[0].IPNet.String()+list[len(list)-1].IPNet.String(), "fd77:ca15:50::1/64")
	})
}

func TestVLANsAndSTP(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state, VLANFiltering: true, VLAN: 7}
		if err := b.Create(); errors.Is(err, errors.ErrUnsupported) {
			require.Error(t, netlink.LinkAdd(bridgeWithVLANs()), "the kernel can")
			t.Skipf("the kernel has no VLAN filtering: %v", err)
		} else {
			require.NoError(t, err)
		}
		h.start("serve", []string{":80", "hello"}, b)
		require.Contains(t, h.run("dial", []string{"10.77.0.2:80"}, b), "hello")
		b.VLAN = 8
		require.Contains(t, h.run("dial", []string{"10.77.0.2:80", "400ms"}, b), "error")
	})
}

func bridgeWithVLANs() *netlink.Bridge {
	yes := true
	return &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe"}, VlanFiltering: &yes}
}

func TestSTP(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state, STP: true}
		require.NoError(t, b.Create())
		// A port that is asked for listens first, for 15 seconds.
		h.start("wait", nil, b)
		var cable string
		for _, d := range h.devices() {
			if strings.HasPrefix(d, "cs") {
				cable = d
			}
		}
		require.NotEmpty(t, cable)
		out := h.run("dial", []string{"10.77.0.1:80", "400ms"}, b)
		require.Contains(t, out, "error")
		require.NotContains(t, out, "refused", "nothing passes yet")
	})
}

// TestFaults fails each step in turn: nothing is left, and the addresses are free.
func TestFaults(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		q := plan.Build(b, netstack.Veth{State: h.state})
		require.NoError(t, b.Create())
		n := len(q.Steps(nil)) + len(q.AfterSteps())
		for i := 1; i <= n; i++ {
			box, err := h.tryPlan(q, launch.Options{Fault: i}, "wait", nil)
			if err == nil {
				box.stop()
				continue
			}
			require.ErrorIs(t, err, syscall.EBADF, "step %d", i)
			require.Equal(t, []string{"caisson0"}, h.devices(), "step %d: %v", i, err)
			held, err := b.Names()
			require.NoError(t, err)
			require.Empty(t, held)
		}
	})
}

func TestExhausted(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state, Subnets: []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/30")}}}
		h.start("wait", nil, b)
		_, err := h.try("wait", nil, b)
		require.ErrorIs(t, err, syscall.ENOSPC)
		b.Addresses = []netip.Addr{netip.MustParseAddr("10.9.0.2")}
		_, err = h.try("wait", nil, b)
		require.ErrorIs(t, err, syscall.EADDRINUSE)
	})
}

// TestFirstPacket: the first packet of a program is not lost. If it were, the kernel would ask for the neighbour again after a second. A busy machine may take as long once, but not each time.
func TestFirstPacket(t *testing.T) {
	host(t, func(h *world) {
		b := netstack.Bridge{State: h.state}
		h.start("serve", []string{":80", "hello"}, b)
		for _, address := range []string{"10.77.0.2:80", "[fd77:ca15:50::2]:80"} {
			quick := 0
			for range 3 {
				if !strings.Contains(h.run("dial", []string{address, "900ms"}, b), "error") {
					quick++
				}
			}
			require.NotZero(t, quick, address)
		}
	})
}
