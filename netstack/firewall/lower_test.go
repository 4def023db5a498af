//go:build linux

package firewall

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// text shows a state.
func (s state) text() string {
	var lines []string
	for e := range s.elements {
		table := "inet"
		if e.set.bridge {
			table = "bridge"
		}
		line := fmt.Sprintf("%s %s %x", table, e.set.name, e.key)
		if i := strings.IndexByte(e.key, 0); i > 1 && unix.ByteSliceToString([]byte(e.key)) == "veth-web" {
			line = fmt.Sprintf("%s %s veth-web %x", table, e.set.name, e.key[16:])
		}
		switch {
		case e.chain != "":
			line += " : jump " + e.chain
		case e.end:
			line += " end"
		case e.val != "":
			line += fmt.Sprintf(" : %x", e.val)
		}
		lines = append(lines, line)
	}
	for name, c := range s.chains {
		for l := range strings.Lines(c.text) {
			lines = append(lines, fmt.Sprintf("chain %s (%d rules): %s", name, len(c.rules), strings.TrimSpace(l)))
		}
	}
	for name, n := range s.names {
		lines = append(lines, fmt.Sprintf("names %s %v", name, n.pattern))
	}
	for _, l := range s.local {
		lines = append(lines, "localnet "+l)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func example() Rules {
	return Rules{
		Cards: []Card{{Name: "veth-web", Bridge: "br0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7},
			Addrs: []netip.Addr{netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("fd88::2")}}},
		Masquerade: true, Isolated: true, Pools: Prefixes("10.99.0.0/16"),
		Publish: []Port{{Port: 8080, Last: 8081, To: 80}, {Protocol: UDP, Addr: netip.MustParseAddr("192.0.2.1"), Port: 53}},
		Services: []Service{{Addr: netip.MustParseAddr("10.96.0.1"), Port: 7, Spread: RoundRobin,
			Backends: []netip.AddrPort{netip.MustParseAddrPort("10.88.0.2:80")}}},
		Policy: Policy{Resolver: []netip.AddrPort{netip.MustParseAddrPort("10.88.0.1:53")}, Egress: Direction{Otherwise: Reject,
			Rules: []Rule{{Names: []string{"example.com"}, Protocol: TCP, Ports: Ports(443)}, {Verdict: Drop, Peers: Prefixes("192.0.2.0/24")}}}},
	}
}

// TestGolden: what rules become, without a kernel.
func TestGolden(t *testing.T) {
	r := example()
	require.NoError(t, r.check())
	got := lower("web", r, map[string]net.HardwareAddr{"br0": {2, 0x88, 0, 0, 0, 1}}).text()
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile("testdata/web.golden", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/web.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
	require.Equal(t, got, lower("web", r.clone(), map[string]net.HardwareAddr{"br0": {2, 0x88, 0, 0, 0, 1}}).text())
	require.Empty(t, lower("web", Rules{}, nil).elements)
}

func TestRefusedValues(t *testing.T) {
	addr := netip.MustParseAddr
	card := func(c Card) Rules { return Rules{Cards: []Card{c}} }
	with := func(change func(*Rules)) Rules {
		r := example()
		change(&r)
		return r
	}
	for field, r := range map[string]Rules{
		"Cards[0].Name":                    card(Card{}),
		"Cards[0].Name ":                   card(Card{Name: "sixteen-bytes-xx"}),
		"Cards[0].Name  ":                  card(Card{Name: "a/b"}),
		"Cards[0].Bridge":                  card(Card{Name: "a", Bridge: "b c"}),
		"Cards[0].MAC":                     card(Card{Name: "a", Bridge: "b", MAC: net.HardwareAddr{1, 0, 0, 0, 0, 0}}),
		"Cards[0].MAC ":                    card(Card{Name: "a", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 0}}),
		"Cards[0].Addrs[0]":                card(Card{Name: "a", Addrs: []netip.Addr{{}}}),
		"Cards[0].Addrs[0] ":               card(Card{Name: "a", Addrs: []netip.Addr{addr("::ffff:10.0.0.1")}}),
		"Cards[0].Addrs[0]  ":              card(Card{Name: "a", Addrs: []netip.Addr{addr("127.0.0.1")}}),
		"Cards[0].Addrs[0]   ":             card(Card{Name: "a", Addrs: []netip.Addr{addr("fe80::1%eth0")}}),
		"Cards[0].Addrs[0]    ":            card(Card{Name: "a", Addrs: []netip.Addr{addr("255.255.255.255")}}),
		"Cards[1].Name":                    with(func(r *Rules) { r.Cards = append(r.Cards, Card{Name: "veth-web"}) }),
		"Cards[1].Addrs":                   with(func(r *Rules) { r.Cards = append(r.Cards, Card{Name: "b", Addrs: r.Cards[0].Addrs}) }),
		"Pools[1]":                         {Pools: Prefixes("10.0.0.0/8", "10.1.0.0/16")},
		"Pools[0]":                         {Pools: make([]netip.Prefix, 1)},
		"Cards":                            {Masquerade: true},
		"Publish[0]":                       {Publish: []Port{{Port: 80}}},
		"Publish[0].Protocol":              with(func(r *Rules) { r.Publish[0].Protocol = ICMP }),
		"Publish[0] ":                      with(func(r *Rules) { r.Publish[0].Last = 1 }),
		"Publish[0].To":                    with(func(r *Rules) { r.Publish[0].To = 65535 }),
		"Publish[0].Target":                with(func(r *Rules) { r.Publish[0].Target = addr("10.88.0.3") }),
		"Publish[0].Target ":               with(func(r *Rules) { r.Publish[0].Addr, r.Publish[0].Target = addr("::"), addr("10.88.0.2") }),
		"Publish[0].Addr":                  with(func(r *Rules) { r.Publish[0].Addr = addr("224.0.0.1") }),
		"Services[0].Addr":                 {Services: []Service{{}}},
		"Services[0]":                      with(func(r *Rules) { r.Services[0].Port = 0 }),
		"Services[0] ":                     with(func(r *Rules) { r.Services[0].Spread = 3 }),
		"Services[0].Backends[0]":          with(func(r *Rules) { r.Services[0].Backends[0] = netip.MustParseAddrPort("[fd88::2]:80") }),
		"Services[1]":                      with(func(r *Rules) { r.Services = append(r.Services, r.Services[0]) }),
		"Policy.Resolver[0]":               with(func(r *Rules) { r.Policy.Resolver[0] = netip.MustParseAddrPort("127.0.0.1:53") }),
		"Policy.Egress.Rules[0].Names":     with(func(r *Rules) { r.Policy.Resolver = nil }),
		"Policy.Egress.Rules[0].Names ":    with(func(r *Rules) { r.Policy.Egress.Rules[0].Verdict = Drop }),
		"Policy.Egress.Rules[0].Names[0]":  with(func(r *Rules) { r.Policy.Egress.Rules[0].Names = []string{"*"} }),
		"Policy.Egress.Rules[0].Names[0] ": with(func(r *Rules) { r.Policy.Egress.Rules[0].Names = []string{"a..b"} }),
		"Policy.Egress.Rules[0].Protocol":  with(func(r *Rules) { r.Policy.Egress.Rules[0].Protocol = 0 }),
		"Policy.Egress.Rules[0].Ports[0]":  with(func(r *Rules) { r.Policy.Egress.Rules[0].Ports[0].Last = 1 }),
		"Policy.Egress.Rules[1].Verdict":   with(func(r *Rules) { r.Policy.Egress.Rules[1].Verdict = 3 }),
		"Policy.Egress.Rules[1].Peers[0]":  with(func(r *Rules) { r.Policy.Egress.Rules[1].Peers[0] = netip.Prefix{} }),
		"Policy.Egress.Otherwise":          with(func(r *Rules) { r.Policy.Egress.Otherwise = 3 }),
		"Policy.Ingress.Rules[0].Names":    with(func(r *Rules) { r.Policy.Ingress.Rules = r.Policy.Egress.Rules[:1] }),
	} {
		err := r.check()
		var e *RuleError
		require.ErrorAs(t, err, &e, field)
		require.Equal(t, strings.TrimSpace(field), e.Field)
		require.ErrorIs(t, err, unix.EINVAL)
	}
	for _, id := range []string{"", ".", "..", ".off", "a/b", "a b", "é", strings.Repeat("x", 65), "a\x00"} {
		require.ErrorIs(t, checkID(id), unix.EINVAL, id)
	}
	require.NoError(t, checkID("Web-1_a.b"))
}

func TestMerge(t *testing.T) {
	text := func(ports ...PortRange) (s string) {
		for _, r := range portSet(ports).ranges {
			s += fmt.Sprintf("%x-%x ", r.first, r.end)
		}
		return s
	}
	require.Equal(t, "0046-005b ", text(PortRange{70, 80}, PortRange{75, 90}))
	require.Equal(t, "0001-0004 ", text(PortRange{3, 3}, PortRange{1, 2}))
	require.Equal(t, "0001-0002 0003- ", text(PortRange{3, 65535}, PortRange{1, 1}, PortRange{9, 9}))
	require.Equal(t, "0000- ", text(PortRange{0, 65535}, PortRange{1, 1}))
	for p, want := range map[string]string{"10.0.0.0/8": "0b000000", "0.0.0.0/0": "", "255.255.255.0/24": "", "192.0.2.7/32": "c0000208", "10.255.0.0/16": "0b000000"} {
		require.Equal(t, want, fmt.Sprintf("%x", past(netip.MustParsePrefix(p))), p)
	}
}

// FuzzMerge compares with a look at each port.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{0, 1, 0, 5, 0, 6, 0, 9, 255, 0, 255, 255})
	f.Add([]byte{0, 0, 255, 255, 1, 1, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		var list []PortRange
		for ; len(b) >= 4 && len(list) < 50; b = b[4:] {
			p := PortRange{uint16(b[0])<<8 | uint16(b[1]), uint16(b[2])<<8 | uint16(b[3])}
			list = append(list, PortRange{min(p.First, p.Last), max(p.First, p.Last)})
		}
		if len(list) == 0 {
			return
		}
		ranges := portSet(list).ranges
		for i, r := range ranges {
			if r.end == nil && i != len(ranges)-1 || i > 0 && string(ranges[i-1].end) >= string(r.first) {
				t.Fatalf("%x are not apart", ranges)
			}
		}
		for port := range 65536 {
			want := slices.ContainsFunc(list, func(p PortRange) bool { return int(p.First) <= port && port <= int(p.Last) })
			key := string(big16(uint16(port)))
			got := slices.ContainsFunc(ranges, func(r interval) bool { return string(r.first) <= key && (r.end == nil || key < string(r.end)) })
			if got != want {
				t.Fatalf("port %d of %v: %v in %x", port, list, got, ranges)
			}
		}
	})
}

func TestListening(t *testing.T) {
	const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
`
	const eps = ` ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
ffff8800 ffff8801 2   10  29   8080      0 4713 0.0.0.0
`
	require.Equal(t, []string{"4711"}, listening(tcp, 8080))
	require.Empty(t, listening(tcp, 8081))
	require.Equal(t, []string{"4713"}, listening(eps, 8080))
}

func FuzzListening(f *testing.F) {
	f.Add("   0: 00000000:1F90 00000000:0000 0A 0:0 0:0 0 0 0 4711 1\n", uint16(8080))
	f.Add("ffff8800 ffff8801 2   10  29   8080      0 4713 0.0.0.0\n", uint16(8080))
	f.Fuzz(func(t *testing.T, text string, port uint16) {
		for _, inode := range listening(text, port) {
			if !strings.Contains(text, inode) || inode == "" {
				t.Fatalf("%q is not in %q", inode, text)
			}
		}
	})
}
