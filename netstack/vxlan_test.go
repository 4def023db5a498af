package netstack_test

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/ipam"
)

// TestVxlan: sandboxes of two hosts, which are namespaces with a cable between them, are on one network.
func TestVxlan(t *testing.T) {
	host(t, func(near *world) {
		if lacks(t, &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "probe", TxQLen: -1}, VxlanId: 1}) {
			t.Skip("the kernel has no vxlan")
		}
		host(t, func(far *world) {
			require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0", TxQLen: -1}, PeerName: "up0", PeerNamespace: netlink.NsFd(int(near.ns.Fd())), PeerTxQLen: -1}))
			b, v := hostOfTwo(t, far, "192.0.2.2", "192.0.2.1")
			far.start("serve", []string{":80", "far away"}, b)
			in(t, near.ns, func() error {
				h := &world{t: t, ns: near.ns, state: t.TempDir()}
				defer h.end()
				b, w := hostOfTwo(t, h, "192.0.2.1", "192.0.2.2")
				require.Equal(t, "far away 10.9.1.2", withoutPort(h.run("dial", []string{"10.9.2.2:80"}, b)))
				require.Error(t, w.Create(), "it is there")
				return errors.Join(w.Delete(), w.Delete())
			})
			require.NoError(t, v.Delete())
			require.ErrorIs(t, netstack.Vxlan{Name: "up0", ID: 7, Local: v.Local, Bridge: "over0"}.Delete(), syscall.EINVAL)
		})
	})
}

// hostOfTwo sets up one of two hosts: its bridge, and the overlay.
func hostOfTwo(t *testing.T, h *world, local, peer string) (netstack.Bridge, netstack.Vxlan) {
	up, err := netlink.LinkByName("up0")
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(up, &netlink.Addr{IPNet: mustIPNet(t, local+"/24")}))
	require.NoError(t, netlink.LinkSetUp(up))
	third := netip.MustParseAddr(local).As4()[3]
	at := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, third, last}) }
	b := netstack.Bridge{Name: "over0", State: h.state, MTU: 1400, Internal: true,
		Subnets: []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Gateway: at(1), First: at(2), Last: at(254)}}}
	require.NoError(t, b.Create())
	v := netstack.Vxlan{Name: "vx0", ID: 7, Local: netip.MustParseAddr(local), Peers: []netip.Addr{netip.MustParseAddr(peer)}, Bridge: "over0"}
	require.NoError(t, v.Create())
	return b, v
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
