package netstack_test

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack"
)

func TestInspect(t *testing.T) {
	host(t, func(h *world) {
		a := h.start("wait", nil, netstack.Bridge{State: h.state})
		b := h.start("wait", nil, netstack.Veth{Host: "cable", State: h.state, Card: netstack.Card{Addresses: prefixes("192.0.2.2/24")}})
		all, err := netstack.Inspect()
		require.NoError(t, err)
		find := func(pid int) (int, *netstack.Network) {
			for i := range all.Networks {
				for _, p := range all.Networks[i].PIDs {
					if p == pid {
						return i, &all.Networks[i]
					}
				}
			}
			t.Fatal(pid)
			return 0, nil
		}
		ours := all.Networks[0]
		for pid, name := range map[int]string{a.p.PID: "cs", b.p.PID: "cable"} {
			i, n := find(pid)
			require.Len(t, n.Devices, 2)
			eth := n.Devices[1]
			require.Equal(t, "eth0", eth.Name)
			require.True(t, eth.Up && eth.Works)
			require.Equal(t, "veth", eth.Kind)
			require.NotNil(t, eth.Parent)
			require.Equal(t, 0, eth.Parent.Network)
			cable := ours.Device(eth.Parent.Index)
			require.Equal(t, name, cable.Name[:len(name)])
			require.Equal(t, netstack.End{Network: i, Index: eth.Index}, *cable.Parent, "and back")
			if name == "cs" {
				require.Equal(t, "caisson0", ours.Device(cable.Bridge).Name)
				require.NotEmpty(t, cable.Owner)
				require.Contains(t, n.Routes, netstack.Path{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.77.0.1"), Device: eth.Index})
				require.Contains(t, eth.String(), "eth0 (veth) 10.77.0.2/16")
			}
		}
		one, err := netstack.InspectPID(a.p.PID)
		require.NoError(t, err)
		require.Equal(t, netip.MustParsePrefix("10.77.0.2/16"), one.Devices[1].Addresses[0])
		_, err = netstack.InspectPID(1 << 22)
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

// TestInspectNAT: rules by which addresses are changed, ours and those of others, from inside and from elsewhere.
func TestInspectNAT(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skipf("%v: it is in nftables", err)
	}
	host(t, func(h *world) {
		h.start("wait", nil, netstack.Bridge{State: h.state, Masquerade: true, Publish: []netstack.Port{{Port: 8080, To: 80}}})
		run(t, "nft", "table ip other { chain there { type nat hook prerouting priority 0; tcp dport 99 dnat to 192.0.2.7:80; }; chain from { type nat hook postrouting priority 0; ip daddr 192.0.2.8 snat to 192.0.2.9; }; }")
		same := h.start("wait", nil, netstack.Host{})
		boxed := h.start("wait", nil, netstack.None{})
		all, err := netstack.Inspect()
		require.NoError(t, err)
		elsewhere, err := netstack.InspectPID(same.p.PID)
		require.NoError(t, err)
		for i, n := range []netstack.Network{all.Networks[0], *elsewhere} {
			require.False(t, n.NATUnseen)
			var lines []string
			for _, r := range n.NAT {
				lines = append(lines, r.String())
			}
			text := strings.Join(lines, "\n")
			require.Contains(t, text, "to 192.0.2.7:80 at prerouting, by ip other there")
			require.Contains(t, text, "from 192.0.2.9 at postrouting, by ip other from")
			require.Contains(t, text, "masquerade")
			require.Regexp(t, []string{`to one of [1-9][0-9]* by map`, `to one by map`}[i], text)
		}
		none, err := netstack.InspectPID(boxed.p.PID)
		require.NoError(t, err)
		require.Empty(t, none.NAT)
		require.Equal(t, `"x\x1b" at input, by "ip \u00e9"  z`, netstack.Translation{Text: "x\x1b", Hook: "input", Table: "ip \u00e9", Chain: " z"}.String())
	})
}

// TestInspectOrdinary: an ordinary user sees its own network, and is told what it does not see.
func TestInspectOrdinary(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	all, err := netstack.Inspect()
	require.NoError(t, err)
	require.NotEmpty(t, all.Networks)
	require.Equal(t, "lo", all.Networks[0].Devices[0].Name)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err == nil {
		unix.Close(fd)
	}
	require.Equal(t, err == nil, all.Networks[0].NATUnseen, "rules are for those with CAP_NET_ADMIN")
	if _, err := os.Readlink("/proc/1/ns/net"); err != nil {
		require.Contains(t, all.Unseen, 1, "root's process")
	}
}
