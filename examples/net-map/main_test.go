//go:build linux

package main

import (
	"encoding/xml"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack"
)

// two are a host with a bridge and a sandbox on it.
var two = &netstack.Topology{Unseen: []int{7}, Networks: []netstack.Network{
	{Inode: 1, PIDs: []int{1, 2}, Devices: []netstack.Device{
		{Index: 1, Name: "lo", Kind: "device", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{Index: 2, Name: "br0", Kind: "bridge", Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}},
		{Index: 3, Name: "cs<&>", Kind: "veth", Up: true, Bridge: 2, Parent: &netstack.End{Network: 1, Index: 2}}},
		NAT: []netstack.Translation{{Table: "ip nat", Chain: "post", Hook: "postrouting", Text: "masquerade"}}},
	{Inode: 2, PIDs: []int{9}, NATUnseen: true, Devices: []netstack.Device{{Index: 2, Name: "eth0", Kind: "veth", Up: true, Parent: &netstack.End{Network: 0, Index: 3}}},
		Routes: []netstack.Path{{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.9.0.1"), Device: 2}}}}}

func drawn(f func(io.Writer, *netstack.Topology)) string {
	var b strings.Builder
	f(&b, two)
	return b.String()
}

func TestText(t *testing.T) {
	require.Equal(t, `this network
  lo (device) 127.0.0.1/8
  br0 (bridge) 10.9.0.1/24
  ├─ cs<&> (veth) ⇄ eth0 in network of process 9
  ~ masquerade at postrouting, by ip nat post

network of process 9
  eth0 (veth) ⇄ cs<&> in this network
  → 0.0.0.0/0 by 10.9.0.1 on eth0
  ~ its rules for NAT could not be looked at: that needs CAP_NET_ADMIN

1 processes could not be looked at: that needs root
`, drawn(text))
}

// TestHostileName: a sandbox's root names its devices, and the terminal is not its.
func TestHostileName(t *testing.T) {
	name := netstack.Device{Name: "x\x1b[2J", Kind: "veth", Up: true}.String()
	require.Equal(t, `"x\x1b[2J" (veth)`, name)
}

func TestGraph(t *testing.T) {
	g := drawn(graph)
	require.Contains(t, g, "n0_3 -- n0_2;")
	require.Contains(t, g, "n0_3 -- n1_2;")
	require.Contains(t, g, "masquerade at postrouting, by ip nat post")
	require.Equal(t, 2, strings.Count(g, " -- "), "each cable once")
	if _, err := exec.LookPath("dot"); err != nil {
		t.Logf("not read by Graphviz: %v", err)
		return
	}
	c := exec.Command("dot", "-Tplain")
	c.Stdin = strings.NewReader(g)
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestPicture(t *testing.T) {
	p := drawn(picture)
	d, paths := xml.NewDecoder(strings.NewReader(p)), 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err, p)
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "path" {
			paths++
		}
	}
	require.Equal(t, 2, paths)
	require.Contains(t, p, "cs&lt;&amp;&gt;")
	require.Contains(t, p, "~ masquerade at postrouting, by ip nat post")
}
