package netstack_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/caisson-dev/caisson/netstack"
)

// TestKeys: the keys of RFC 7748, 6.1; what wg(8) writes is read; and no private key is printed by accident.
func TestKeys(t *testing.T) {
	const secret = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo="
	k, err := netstack.ParsePrivateKey(secret)
	require.NoError(t, err)
	require.Equal(t, "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", k.Public().String())
	require.Equal(t, secret, k.Secret())
	p, err := netstack.ParsePublicKey(k.Public().String())
	require.NoError(t, err)
	require.Equal(t, k.Public(), p)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		require.Equal(t, "{(private key)}", strings.TrimPrefix(fmt.Sprintf("{"+verb+"}", k), "struct"), verb)
		require.NotContains(t, fmt.Sprintf(verb, netstack.Vxlan{WireGuard: netstack.WireGuard{Private: k}}), "119 7 109") // its first bytes
	}
	require.NotEqual(t, netstack.NewPrivateKey(), netstack.NewPrivateKey())
	require.Zero(t, netstack.PrivateKey{}.Public())
	for _, text := range []string{"", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", secret[:43], secret + "\n", strings.Replace(secret, "d", "\n", 1), strings.Replace(secret, "o=", "p=", 1), "x" + secret, secret[:40]} {
		_, err := netstack.ParsePrivateKey(text)
		require.ErrorIs(t, err, syscall.EINVAL, text)
		if text != "" {
			require.NotContains(t, err.Error(), text)
		}
		_, err = netstack.ParsePublicKey(text)
		require.ErrorIs(t, err, syscall.EINVAL, text)
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=")
	f.Add("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmp=")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := netstack.ParsePublicKey(text)
		if err == nil && k.String() != text {
			t.Fatalf("%q is read as %v", text, k)
		}
		s, err := netstack.ParsePrivateKey(text)
		if err == nil && s.Secret() != text {
			t.Fatalf("%q is read as another", text)
		}
	})
}

func TestWireGuardValues(t *testing.T) {
	a, b := netstack.NewPrivateKey(), netstack.NewPrivateKey()
	good := func() netstack.Vxlan {
		return netstack.Vxlan{Name: "vx0", ID: 1, Bridge: "br0", Peers: []netip.Addr{peerAddr}, WireGuard: netstack.WireGuard{Private: a, Public: []netstack.PublicKey{b.Public()}}}
	}
	for i, change := range []func(*netstack.Vxlan){
		func(v *netstack.Vxlan) { v.WireGuard.Private = netstack.PrivateKey{} }, func(v *netstack.Vxlan) { v.WireGuard.Public = nil }, func(v *netstack.Vxlan) { v.Peers = nil },
		func(v *netstack.Vxlan) { v.WireGuard.Public[0] = a.Public() }, func(v *netstack.Vxlan) { v.WireGuard.Public[0] = netstack.PublicKey{} },
		func(v *netstack.Vxlan) {
			v.Peers, v.WireGuard.Public = append(v.Peers, peerAddr), append(v.WireGuard.Public, v.WireGuard.Public[0])
		},
		func(v *netstack.Vxlan) { v.Local = peerAddr }, func(v *netstack.Vxlan) { v.WireGuard.Port = 65536 }, func(v *netstack.Vxlan) { v.WireGuard.Device = "a/b" },
		func(v *netstack.Vxlan) { v.WireGuard.Device = "cs012345-1" }, func(v *netstack.Vxlan) { v.Name = "thirteenbytes" },
	} {
		v := good()
		change(&v)
		require.ErrorIs(t, v.Create(), syscall.EINVAL, i)
		require.ErrorIs(t, v.Delete(), syscall.EINVAL, i)
	}
}

// TestWireGuardPortTaken: nothing is left of one whose port another one has.
func TestWireGuardPortTaken(t *testing.T) {
	host(t, func(h *world) {
		if lacks(t, &netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "probe", TxQLen: -1}}) {
			t.Skip("the kernel has no WireGuard")
		}
		require.NoError(t, netstack.Bridge{Name: "over0", State: h.state}.Create())
		v := netstack.Vxlan{Name: "vx0", ID: 1, Bridge: "over0", WireGuard: netstack.WireGuard{Private: netstack.NewPrivateKey()}}
		require.NoError(t, v.Create())
		w := v
		w.Name, w.ID, w.Port, w.WireGuard.Private = "vx1", 2, 4790, netstack.NewPrivateKey()
		require.ErrorIs(t, w.Create(), syscall.EADDRINUSE)
		require.ElementsMatch(t, []string{"over0", "vx0", "wg-vx0"}, h.devices())
		w.WireGuard.Port = 51821
		require.NoError(t, w.Create())
		require.NoError(t, errors.Join(v.Delete(), w.Delete()))
		require.Equal(t, []string{"over0"}, h.devices())
	})
}
