//go:build linux

package firewall_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// xhost is a host whose rules are kept by iptables. The kernel may have no ebtables of the old kind; then that of nf_tables, which has the same language, stands for it.
func (w *world) xhost() firewall.Host {
	w.t.Helper()
	ip, bridge := "legacy-", "legacy-"
	w.host.in(func() {
		for _, name := range []string{"iptables-legacy", "ip6tables-legacy", "ebtables-nft-restore"} {
			if _, err := exec.LookPath(name); err != nil {
				w.t.Skipf("no %s in PATH: Debian's package iptables", name)
			}
		}
		if out, err := exec.Command("iptables-legacy-save", "-t", "nat").CombinedOutput(); err != nil && strings.Contains(string(out), "able does not exist") {
			w.t.Skipf("a kernel without ip_tables: %s", out)
		}
		if bridge = ebtablesHere(); bridge == "nft-" {
			w.t.Log("no ebtables of the old kind (Debian's package, or the kernel's), so that of nf_tables is used")
		}
	})
	return firewall.WithPrograms(firewall.Host{Dir: w.dir, Forward: true, Backend: firewall.IPTables}, ip, bridge)
}

// ebtablesHere says which ebtables works in the namespace of the calling thread.
func ebtablesHere() string {
	if exec.Command("ebtables-legacy", "-t", "nat", "-L").Run() != nil {
		return "nft-"
	}
	return "legacy-"
}

func (w *world) xopen() (fw *firewall.Firewall) {
	w.t.Helper()
	host := w.xhost()
	w.host.in(func() {
		var err error
		fw, err = host.Open()
		require.NoError(w.t, err)
	})
	w.t.Cleanup(func() { fw.Close() })
	require.Equal(w.t, firewall.IPTables, fw.Backend())
	return fw
}

// notInSoftware leaves out what takes a minute in a machine in software, where each program takes a tenth of a second: what is left runs all the programs.
func notInSoftware(t *testing.T) {
	t.Helper()
	if os.Getenv("VMRUN") != "" {
		t.Skip("VMRUN is set: too many programs for a machine in software")
	}
}

// only4 is a card on the bridge with its IPv4 address alone.
func only4(cards []firewall.Card) []firewall.Card {
	cards[0].Addrs = cards[0].Addrs[:1]
	return cards
}

// xtables is all that the programs show, without counters and times.
func (w *world) xtables() string {
	w.t.Helper()
	var all strings.Builder
	for _, program := range []string{"iptables-legacy-save", "ip6tables-legacy-save"} {
		for line := range strings.Lines(w.host.run(program)) {
			if !strings.HasPrefix(line, "#") {
				name, _, _ := strings.Cut(line, " [")
				all.WriteString(strings.TrimSpace(name) + "\n")
			}
		}
	}
	for _, table := range []string{"nat", "filter"} {
		w.host.in(func() {
			out, err := exec.Command("ebtables-legacy", "-t", table, "-L").CombinedOutput()
			if err != nil {
				out, err = exec.Command("ebtables-nft", "-t", table, "-L").CombinedOutput()
			}
			require.NoErrorf(w.t, err, "%s", out)
			all.Write(out)
		})
	}
	return all.String()
}

// xload makes the kernel show all tables, also those that are still empty.
func (w *world) xload() {
	for _, table := range []string{"raw", "filter", "nat"} {
		w.host.run("iptables-legacy", "-t", table, "-S")
		w.host.run("ip6tables-legacy", "-t", table, "-S")
	}
}

func TestIPTablesPublish(t *testing.T) {
	w := newWorld(t)
	fw := w.xopen()
	held := w.add(fw, "web", firewall.Rules{Cards: only4(w.webCard()), Masquerade: true, Isolated: true, Publish: []firewall.Port{
		{Port: 8080, To: 80}, {Protocol: firewall.UDP, Port: 8080, To: 80}, {Port: 9000, Last: 9002, To: 79}, {Addr: netip.MustParseAddr("192.0.2.1"), Port: 80}}})
	w.add(fw, "db", firewall.Rules{Cards: only4(w.dbCard()), Masquerade: true, Isolated: true})
	w.web.serve(80, "web")
	w.db.serve(80, "db")
	w.outside.serve(99, "outside")
	networks := []string{"tcp", "udp"}
	if os.Getenv("VMRUN") != "" {
		networks = networks[:1]
	}
	for _, network := range networks {
		w.outside.reaches("web 192.0.2.2", network, "192.0.2.1:8080")
		w.host.reaches("web 10.88.0.1", network, "127.0.0.1:8080")
		w.host.reaches("web 192.0.2.1", network, "192.0.2.1:8080")
		w.db.reaches("web 10.88.0.1", network, "192.0.2.1:8080")
		w.web.reaches("web 10.88.0.1", network, "192.0.2.1:8080")
		w.web.reaches("outside 192.0.2.1", network, "192.0.2.2:99")
		w.host.reaches("web 10.88.0.1", network, "10.88.0.2:80")
	}
	w.outside.reaches("web 192.0.2.2", "tcp", "192.0.2.1:80")
	w.outside.reaches("web 192.0.2.2", "tcp", "192.0.2.1:9001")
	w.db.cannot("tcp", "10.88.0.2:80")
	w.outside.cannot("tcp", "192.0.2.1:9000")
	w.outside.cannot("tcp", "192.0.2.1:9002")
	w.outside.run("ip", "route", "add", "10.88.0.0/24", "via", "192.0.2.1")
	w.outside.cannot("tcp", "10.88.0.2:80")
	require.Equal(t, "1", w.host.readSysctl("net/ipv4/conf/caisson0/route_localnet"))
	w.web.cannot("tcp", "[fd88::1]:80") // what cannot be checked does not pass
	require.NoError(t, held.Remove())
	w.outside.cannot("tcp", "192.0.2.1:8080")
	w.host.cannot("tcp", "127.0.0.1:8080")
}

// TestIPTablesRouted: a card that is no port of a bridge, in both families.
func TestIPTablesRouted(t *testing.T) {
	notInSoftware(t)
	w := newWorld(t)
	fw := w.xopen()
	s := newSpace(t, "routed")
	veth(w.host, "veth-r", s, "eth0")
	w.host.addr("veth-r", "10.89.0.1/24", "fd89::1/64")
	s.addr("eth0", "10.89.0.2/24", "fd89::2/64")
	s.gateway("10.89.0.1", "fd89::1")
	s.ready("eth0")
	w.host.ready("veth-r")
	for _, o := range []space{s, w.outside, w.host} {
		o.serve(80, o.name)
		o.serve(81, o.name)
	}
	rules := firewall.Rules{Masquerade: true, Publish: []firewall.Port{{Port: 8080, To: 80}, {Protocol: firewall.UDP, Port: 8080, To: 80}},
		Cards: []firewall.Card{{Name: "veth-r", Addrs: []netip.Addr{netip.MustParseAddr("10.89.0.2"), netip.MustParseAddr("fd89::2")}}}}
	held := w.add(fw, "routed", rules)
	pairs := func(f func(uplink, outside, own string)) {
		f("192.0.2.1", "192.0.2.2", "10.89.0.2")
		f("[2001:db8::1]", "[2001:db8::2]", "[fd89::2]")
	}
	pairs(func(uplink, outside, own string) {
		for _, network := range []string{"tcp", "udp"} {
			w.outside.reaches("routed "+plainText(outside), network, uplink+":8080")
			s.reaches("outside "+plainText(uplink), network, outside+":80")
		}
	})
	w.host.cannot("tcp", "[::1]:8080")
	rules.Policy = firewall.Policy{
		Egress: firewall.Direction{Otherwise: firewall.Reject, Rules: []firewall.Rule{{Verdict: firewall.Drop, Protocol: firewall.TCP, Ports: firewall.Ports(80)},
			{Peers: firewall.Prefixes("192.0.2.2", "2001:db8::2"), Protocol: firewall.TCP, Ports: []firewall.PortRange{{First: 80, Last: 90}}}}},
		Ingress: firewall.Direction{Rules: []firewall.Rule{{Verdict: firewall.Reject, Peers: firewall.Prefixes("192.0.2.0/24", "2001:db8::/32")}}}}
	require.NoError(t, held.Set(rules))
	pairs(func(uplink, outside, own string) {
		s.cannot("tcp", outside+":80")
		s.cannot("udp", outside+":81")
		s.cannot("tcp", uplink+":81") // the host is somebody, too
		s.reaches("outside "+plainText(uplink), "tcp", outside+":81")
		w.outside.cannot("tcp", uplink+":8080")
	})
	// Other sources than its own do not come in.
	s.run("ip", "addr", "del", "10.89.0.2/24", "dev", "eth0")
	s.run("ip", "addr", "add", "10.89.0.9/24", "dev", "eth0")
	s.run("ip", "route", "replace", "default", "via", "10.89.0.1")
	s.cannot("tcp", "192.0.2.2:81")
}

func TestIPTablesPolicy(t *testing.T) {
	notInSoftware(t)
	w := newWorld(t)
	fw := w.xopen()
	for _, s := range []space{w.outside, w.db, w.web} {
		s.serve(80, s.name)
		s.serve(81, s.name)
	}
	w.add(fw, "db", firewall.Rules{Cards: only4(w.dbCard()), Masquerade: true})
	rules := firewall.Rules{Cards: only4(w.webCard()), Masquerade: true, Policy: firewall.Policy{
		Egress: firewall.Direction{Otherwise: firewall.Reject, Rules: []firewall.Rule{
			{Peers: firewall.Prefixes("10.88.0.3"), Protocol: firewall.UDP, Ports: []firewall.PortRange{{First: 70, Last: 80}, {First: 75, Last: 90}}},
			{Peers: firewall.Prefixes("192.0.2.0/24"), Protocol: firewall.TCP}}},
		Ingress: firewall.Direction{Otherwise: firewall.Drop, Rules: []firewall.Rule{{Protocol: firewall.TCP, Ports: firewall.Ports(81)}}}}}
	held := w.add(fw, "web", rules)
	w.web.reaches("db 10.88.0.2", "udp", "10.88.0.3:80") // a neighbour on the bridge, by way of the host
	w.web.cannot("tcp", "10.88.0.3:80")
	w.web.reaches("outside 192.0.2.1", "tcp", "192.0.2.2:80")
	w.web.cannot("udp", "192.0.2.2:80")
	w.db.reaches("web 10.88.0.3", "tcp", "10.88.0.2:81")
	w.db.cannot("tcp", "10.88.0.2:80")
	require.NoError(t, held.Set(firewall.Rules{Cards: rules.Cards, Masquerade: true}))
	w.web.reaches("db 10.88.0.2", "tcp", "10.88.0.3:80")
	w.db.reaches("web 10.88.0.3", "tcp", "10.88.0.2:80")
}

func TestIPTablesSpoof(t *testing.T) {
	w := newWorld(t)
	fw := w.xopen()
	w.add(fw, "web", firewall.Rules{Cards: only4(w.webCard()), Masquerade: true})
	w.add(fw, "db", firewall.Rules{Cards: only4(w.dbCard()), Masquerade: true})
	w.db.serve(80, "db")
	w.oddFrames(t)
	w.web.reaches("db 10.88.0.2", "tcp", "10.88.0.3:80")
	w.web.addr("eth0", "10.88.0.77/24")
	w.web.run("ip", "addr", "del", "10.88.0.2/24", "dev", "eth0")
	w.web.cannot("tcp", "10.88.0.3:80")
}

func TestIPTablesService(t *testing.T) {
	notInSoftware(t)
	w := newWorld(t)
	fw := w.xopen()
	w.outside.gateway("192.0.2.1")
	w.web.serve(80, "web")
	w.db.serve(80, "db")
	w.add(fw, "web", firewall.Rules{Cards: only4(w.webCard()), Masquerade: true, Isolated: true})
	w.add(fw, "db", firewall.Rules{Cards: only4(w.dbCard()), Masquerade: true})
	rules := func(s firewall.Spread, n int) firewall.Rules {
		list := []netip.AddrPort{netip.MustParseAddrPort("10.88.0.2:80"), netip.MustParseAddrPort("10.88.0.3:80")}
		return firewall.Rules{Services: []firewall.Service{{Addr: netip.MustParseAddr("10.96.0.1"), Port: 7, Spread: s, Backends: list[:n]}}}
	}
	held := w.add(fw, "service", rules(firewall.RoundRobin, 2))
	seen := map[string]int{}
	ask := func(n int) {
		clear(seen)
		for range n {
			text, err := w.outside.ask("tcp", "10.96.0.1:7")
			require.NoError(t, err)
			seen[text]++
		}
	}
	ask(8)
	require.Equal(t, map[string]int{"web 192.0.2.2": 4, "db 192.0.2.2": 4}, seen)
	require.NoError(t, held.Set(rules(firewall.Random, 2)))
	ask(40)
	require.Len(t, seen, 2, "40 times the same has a chance of 2 in a million million")
	require.NoError(t, held.Set(rules(firewall.RoundRobin, 1)))
	text, err := w.web.ask("tcp", "10.96.0.1:7")
	require.NoError(t, err)
	require.Equal(t, "web 10.88.0.1", text, "from the backend itself")
	require.NoError(t, held.Set(rules(firewall.RoundRobin, 0)))
	w.outside.cannot("tcp", "10.96.0.1:7")
}

// xeverything uses all that iptables can express.
func xeverything(c []firewall.Card) firewall.Rules {
	r := everything(c)
	r.Policy.Egress.Rules = r.Policy.Egress.Rules[1:]
	return r
}

// TestIPTablesOthers: the lines of others are the same while ours are there, and all is the same afterwards.
func TestIPTablesOthers(t *testing.T) {
	notInSoftware(t)
	w := newWorld(t)
	host := w.xhost()
	w.xload()
	w.host.run("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "172.17.0.0/16", "!", "-o", "docker0", "-j", "MASQUERADE")
	w.host.run("iptables-legacy", "-N", "caisson-mine")
	w.host.run("iptables-legacy", "-A", "FORWARD", "-p", "tcp", "--dport", "4242", "-m", "comment", "--comment", "web", "-j", "caisson-mine")
	w.host.run("ip6tables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "4242", "-j", "DROP")
	w.host.run("iptables-legacy", "-P", "FORWARD", "DROP")
	before := w.xtables()
	var fw *firewall.Firewall
	w.host.in(func() {
		var err error
		fw, err = host.Open()
		require.NoError(t, err)
	})
	defer fw.Close()
	blockers, err := fw.Blockers()
	require.NoError(t, err)
	require.Equal(t, []string{"ip filter FORWARD"}, blockers)
	a := w.add(fw, "web", xeverything(w.shown(w.webCard())))
	w.host.run("iptables-legacy", "-I", "FORWARD", "-p", "tcp", "--dport", "4243", "-j", "ACCEPT") // before ours
	w.host.run("iptables-legacy", "-D", "FORWARD", "-p", "tcp", "--dport", "4243", "-j", "ACCEPT")
	b := w.add(fw, "db", firewall.Rules{Cards: only4(w.dbCard()), Masquerade: true})
	during := w.xtables()
	require.Equal(t, plainLines(before), plainLines(during))
	require.NoError(t, a.Set(a.Rules()))
	require.Equal(t, during, w.xtables(), "the same again changes nothing")
	w.host.run("iptables-legacy", "-I", "FORWARD", "-j", "ACCEPT")
	require.NoError(t, a.Set(a.Rules()))
	w.host.run("iptables-legacy", "-C", "FORWARD", "-j", "ACCEPT")
	first, _, _ := strings.Cut(strings.TrimPrefix(w.host.run("iptables-legacy", "-S", "FORWARD"), "-P FORWARD DROP\n"), "\n")
	require.Equal(t, "-A FORWARD -j caisson-v1-fwd", first, "ours come first again")
	w.host.run("iptables-legacy", "-D", "FORWARD", "-j", "ACCEPT")
	require.NoError(t, a.Remove())
	require.NoError(t, a.Remove(), "twice")
	require.Contains(t, w.xtables(), "caisson-v1-")
	require.NoError(t, b.Remove())
	require.Equal(t, before, w.xtables())
	require.Equal(t, "0", w.host.readSysctl("net/ipv4/conf/caisson0/route_localnet"))
	left, err := filepath.Glob(w.dir + "/*/[^.]*")
	require.NoError(t, err)
	require.Empty(t, left)
}

// plainLines leaves out what is ours; "entries" and the blank lines of ebtables count what is there.
func plainLines(text string) (kept []string) {
	ours := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Bridge ") {
			ours = strings.Contains(line, "caisson-")
			line, _, _ = strings.Cut(line, ",")
		}
		mine := strings.Contains(line, "caisson-") && !strings.Contains(line, "caisson-mine")
		if line != "" && !ours && !mine && !strings.HasPrefix(line, "#") {
			kept = append(kept, line)
		}
	}
	return kept
}

func TestIPTablesConflicts(t *testing.T) {
	notInSoftware(t)
	w := newWorld(t)
	fw := w.xopen()
	web := xeverything(only4(w.webCard()))
	held := w.add(fw, "web", web)
	before := w.xtables()
	db := only4(w.dbCard())
	for what, r := range map[string]firewall.Rules{
		"tcp port 8080":           {Cards: db, Publish: []firewall.Port{{Port: 8080}}},
		"udp port 9010":           {Cards: db, Publish: []firewall.Port{{Protocol: firewall.UDP, Port: 9010, Last: 9020}}},
		"tcp port 7 of 10.96.0.1": {Services: web.Services},
		"pool 10.99.7.0/24":       {Pools: firewall.Prefixes("10.99.7.0/24")},
		"address 10.88.0.2":       {Cards: []firewall.Card{{Name: "veth-db", Bridge: "caisson0", Addrs: web.Cards[0].Addrs}}},
		"interface veth-web":      {Cards: []firewall.Card{{Name: "veth-web", Bridge: "caisson0", Addrs: db[0].Addrs}}},
	} {
		_, err := fw.Add("db", r)
		var c *firewall.ConflictError
		require.ErrorAs(t, err, &c, what)
		require.Equal(t, firewall.ConflictError{What: what, Owner: "web"}, *c)
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		require.Equal(t, before, w.xtables(), "nothing is half done")
	}
	for what, change := range map[string]func(*firewall.Rules){
		"names":      func(r *firewall.Rules) { *r = everything(r.Cards) },
		"SourceHash": func(r *firewall.Rules) { r.Services[0].Spread = firewall.SourceHash },
		"interface":  func(r *firewall.Rules) { r.Cards[0].Name = "veth+" },
	} {
		r := held.Rules()
		change(&r)
		require.ErrorIs(t, held.Set(r), errors.ErrUnsupported, what)
		require.Equal(t, before, w.xtables(), what)
	}
	// Somebody has flushed all.
	for _, table := range []string{"raw", "filter", "nat"} {
		for _, verb := range []string{"-F", "-X"} {
			w.host.run("iptables-legacy", "-t", table, verb)
		}
	}
	require.NotEqual(t, before, w.xtables())
	require.NoError(t, held.Set(held.Rules()))
	// Who had route_localnet on before is forgotten with the lines that said so.
	require.True(t, before == strings.ReplaceAll(w.xtables(), `".on"`, `".off"`), "all is there again")
	require.NoError(t, held.Remove())
}

// TestIPTablesHalf: what the kernel refuses in a later table takes back what was done in those before.
func TestIPTablesHalf(t *testing.T) {
	notInSoftware(t)
	w := newWorld(t)
	fw := w.xopen()
	w.xload()
	before := w.xtables()
	met := false
	firewall.OnStep(fw, func(step string) {
		if step == "change ip6tables" && !met { // a chain of this name is there already
			met = true
			w.host.run("ip6tables-legacy", "-t", "nat", "-N", "caisson-v1-dns")
		}
	})
	rules := xeverything(only4(w.webCard()))
	rules.Pools = firewall.Prefixes("fd99::/64")
	_, err := fw.Add("web", rules)
	var e *firewall.Error
	require.ErrorAs(t, err, &e)
	firewall.OnStep(fw, func(string) {})
	_, err = fw.Sweep()
	require.NoError(t, err)
	require.Equal(t, before, w.xtables())
	w.add(fw, "web", rules)
}

// TestIPTablesDead kills a process at each step, as TestDead does.
func TestIPTablesDead(t *testing.T) {
	notInSoftware(t)
	w := newWorld(t)
	host := w.xhost()
	w.xload()
	var fw *firewall.Firewall
	open := func() {
		w.host.in(func() {
			var err error
			fw, err = host.Open()
			require.NoError(t, err)
		})
	}
	before := w.xtables()
	open()
	living := w.add(fw, "living", firewall.Rules{Cards: only4(w.dbCard()), Masquerade: true, Publish: []firewall.Port{{Port: 7000}}})
	alone := w.xtables()
	steps := 0
	for k := 1; ; k++ {
		out := w.xvictim(k, host)
		if out == "done" {
			break
		}
		require.True(t, strings.HasPrefix(out, "killed at "), out)
		steps++
		next := fw
		open()
		require.Equal(t, plainLines(alone), plainLines(w.xtables()), out)
		require.Equal(t, ownedLines(alone), ownedLines(w.xtables()), out)
		require.NoError(t, fw.Close())
		fw = next
	}
	require.Greater(t, steps, 8)
	require.NoError(t, living.Remove())
	require.Equal(t, before, w.xtables())
	require.NoError(t, fw.Close())
}

// ownedLines are those that belong to somebody: by a comment, or by a chain of his own.
func ownedLines(text string) map[string]int {
	seen := map[string]int{}
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(line, "caisson-")
		if ok && !strings.HasPrefix(rest, "v1-") || strings.Contains(line, "--comment") {
			seen[strings.TrimSpace(line)]++
		}
	}
	return seen
}

func (w *world) xvictim(k int, host firewall.Host) (last string) {
	w.host.in(func() {
		cmd := exec.Command("/proc/self/exe")
		bridge := ebtablesHere()
		cmd.Env = append(os.Environ(), "FIREWALL_TEST=xvictim", "FIREWALL_DIR="+w.dir, fmt.Sprint("FIREWALL_STEP=", k), "FIREWALL_MAC="+mac(w.web).String(), "FIREWALL_EBTABLES="+bridge)
		out, err := cmd.CombinedOutput()
		last = strings.TrimSpace(string(out))
		if err != nil && !strings.Contains(err.Error(), "killed") {
			last += " " + err.Error()
		}
	})
	return last
}

func xvictim() error {
	host := firewall.WithPrograms(firewall.Host{Dir: os.Getenv("FIREWALL_DIR"), Forward: true, Backend: firewall.IPTables}, "legacy-", os.Getenv("FIREWALL_EBTABLES"))
	fw, err := host.Open()
	if err != nil {
		return err
	}
	card, err := condemned(fw)
	if err != nil {
		return err
	}
	rules := xeverything(only4([]firewall.Card{card}))
	held, err := fw.Add("victim", rules)
	if err != nil {
		return err
	}
	return held.Remove()
}
