package netstack_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

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

// TestInspectOrdinary: an ordinary user sees its own network, and is told what it does not see.
func TestInspectOrdinary(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	all, err := netstack.Inspect()
	require.NoError(t, err)
	require.NotEmpty(t, all.Networks)
	require.Equal(t, "lo", all.Networks[0].Devices[0].Name)
	if _, err := os.Readlink("/proc/1/ns/net"); err != nil {
		require.Contains(t, all.Unseen, 1, "root's process")
	}
}
