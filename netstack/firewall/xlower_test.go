//go:build linux

package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGoldenIPTables: what rules become, as the programs read it.
func TestGoldenIPTables(t *testing.T) {
	r := example()
	require.ErrorIs(t, xrefuse(r), errors.ErrUnsupported)
	r.Cards = append(r.Cards, Card{Name: "veth-r", Addrs: []netip.Addr{netip.MustParseAddr("10.89.0.2"), netip.MustParseAddr("fd89::2")}})
	r.Policy.Egress.Rules = append(r.Policy.Egress.Rules[1:], Rule{Peers: Prefixes("10.0.0.0/8", "fd00::/8"), Protocol: SCTP, Ports: []PortRange{{1, 9}, {70, 70}}})
	r.Services = append(r.Services, Service{Addr: netip.MustParseAddr("fd96::1"), Port: 7, Backends: []netip.AddrPort{netip.MustParseAddrPort("[fd89::2]:1"), netip.MustParseAddrPort("[fd89::3]:1")}},
		Service{Addr: netip.MustParseAddr("10.96.0.2"), Port: 7})
	require.NoError(t, r.check())
	require.NoError(t, xrefuse(r))
	lines, local := xlower("web", r)
	var got strings.Builder
	for _, tool := range []string{ebtables, ip4tables, ip6tables} {
		for _, table := range tablesOf(tool) {
			fmt.Fprintf(&got, "# %s\n%s", tool, xscript(tool, table, listed{}, nil, only(lines, tool, table)))
		}
	}
	fmt.Fprintf(&got, "# localnet %v\n", local)
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile("testdata/web.iptables", []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile("testdata/web.iptables")
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
	for line := range strings.Lines(got.String()) {
		if f := strings.Fields(line); len(f) > 1 && f[0] != "#" {
			require.LessOrEqual(t, len(f[1]), 28, "iptables takes no longer names: %s", line)
		}
	}
}

// FuzzParseSave: what is read is removed by a script, and nothing else than that.
func FuzzParseSave(f *testing.F) {
	f.Add("*filter\n:FORWARD DROP [0:0]\n:caisson-v1-fwd - [0:0]\n-A FORWARD -j caisson-v1-fwd\n-A caisson-v1-fwd -s 10.0.0.1/32 -m comment --comment \"a.b\" -j DROP\nCOMMIT\n")
	f.Add("Bridge table: nat\n\nBridge chain: caisson-v1-check, entries: 1, policy: RETURN\n-i v0 -j caisson-0123456789ab-c0\n")
	f.Fuzz(func(t *testing.T, text string) {
		all := parseSave(text)
		all["filter of a bridge"] = parseList(text)
		for table, l := range all {
			hashes, _ := l.owners()
			for line := range strings.Lines(xscript(ebtables, table, l, hashes, nil)) {
				f := strings.Fields(line)
				if len(f) == 0 || strings.HasPrefix(line, "*") || line == "COMMIT\n" {
					continue
				}
				if len(f) < 2 || !ours(f[1]) || !strings.Contains(text, f[1]) || f[0] != "-D" && f[0] != "-F" && f[0] != "-X" {
					t.Fatalf("%q from %q", line, text)
				}
			}
		}
	})
}

func TestOwnerOfLine(t *testing.T) {
	for line, want := range map[string]string{
		`-s 10.0.0.1/32 -m comment --comment "a.b" -j DROP`:  xhash("a.b"),
		`-s 10.0.0.1/32 -m comment --comment web -j DROP`:    xhash("web"),
		`-i x -m comment --comment ".off" -j DROP`:           "",
		`-i veth -j caisson-0123456789ab-c0`:                 "0123456789ab",
		`-j caisson-v1-check`:                                "",
		`-j caisson-mine`:                                    "",
		`-m conntrack --ctstate RELATED,ESTABLISHED -j DROP`: "",
	} {
		got, _ := ownerOfLine(line)
		require.Equal(t, want, got, line)
	}
}
