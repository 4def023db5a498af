//go:build linux

package firewall_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// everything uses all that there is.
func everything(c []firewall.Card) firewall.Rules {
	return firewall.Rules{Cards: c, Masquerade: true, Isolated: true,
		Pools:   firewall.Prefixes("10.99.0.0/16", "fd99::/64"),
		Publish: []firewall.Port{{Port: 8080, To: 80}, {Protocol: firewall.UDP, Port: 9000, Last: 9010}},
		Services: []firewall.Service{{Addr: netip.MustParseAddr("10.96.0.1"), Port: 7,
			Backends: []netip.AddrPort{netip.MustParseAddrPort("10.88.0.2:80")}}},
		Policy: firewall.Policy{Resolver: []netip.AddrPort{netip.MustParseAddrPort("10.88.0.1:53")},
			Egress: firewall.Direction{Otherwise: firewall.Reject, Rules: []firewall.Rule{
				{Names: []string{"example.com"}, Protocol: firewall.TCP, Ports: firewall.Ports(443)},
				{Peers: firewall.Prefixes("192.0.2.0/24")}}},
			Ingress: firewall.Direction{Rules: []firewall.Rule{{Verdict: firewall.Drop, Protocol: firewall.UDP}}}}}
}

// TestOthers: tables of other owners, made by nft and by iptables, are the same afterwards, and none of ours is left.
func TestOthers(t *testing.T) {
	w := newWorld(t)
	if _, err := exec.LookPath("iptables-nft"); err != nil {
		t.Skip("no iptables-nft in PATH, Debian's package iptables")
	}
	w.host.ruleset() // skips without nft
	w.host.run("nft", `table inet firewalld {
		set s { type ipv4_addr; elements = { 192.0.2.77 }; }
		chain f { type filter hook forward priority 0; policy accept; ip saddr @s drop; }
	}`)
	w.host.run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "172.17.0.0/16", "!", "-o", "docker0", "-j", "MASQUERADE")
	w.host.run("iptables-nft", "-A", "FORWARD", "-p", "tcp", "--dport", "4242", "-j", "DROP")
	w.host.run("ip6tables-nft", "-A", "FORWARD", "-p", "tcp", "--dport", "4242", "-j", "DROP")
	w.host.run("iptables-nft", "-P", "FORWARD", "DROP")
	before := w.host.ruleset()
	fw := w.open()
	blockers, err := fw.Blockers()
	require.NoError(t, err)
	require.Equal(t, []string{"ip filter FORWARD"}, blockers)
	a := w.add(fw, "web", everything(w.webCard()))
	b := w.add(fw, "db", firewall.Rules{Cards: w.dbCard(), Masquerade: true})
	during := w.host.ruleset()
	require.Contains(t, during, "caisson-v1")
	require.Equal(t, before, withoutOurs(during))
	require.NoError(t, a.Set(firewall.Rules{}))
	require.NoError(t, a.Remove())
	require.NoError(t, a.Remove(), "twice")
	require.Contains(t, w.host.ruleset(), "caisson-v1")
	require.NoError(t, b.Remove())
	require.Equal(t, before, w.host.ruleset())
	left, err := filepath.Glob(w.dir + "/*/[^.]*")
	require.NoError(t, err)
	require.Empty(t, left)
}

func withoutOurs(ruleset string) string {
	var kept []string
	ours := false
	for line := range strings.Lines(ruleset) {
		if strings.HasPrefix(line, "table ") {
			ours = strings.Contains(line, "caisson-v1")
		}
		if !ours {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// TestSame: the same rules again change nothing, not even what was counted or pinned.
func TestSame(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	held := w.add(fw, "web", everything(w.webCard()))
	before := w.host.run("nft", "-a", "list", "table", "inet", "caisson-v1")
	require.NoError(t, held.Set(held.Rules()))
	require.Equal(t, before, w.host.run("nft", "-a", "list", "table", "inet", "caisson-v1"), "handles included")
}

// TestFlushed: somebody has flushed all rules of the host, as Debian's nftables.service does.
func TestFlushed(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	w.web.serve(80, "web")
	rules := firewall.Rules{Cards: w.webCard(), Masquerade: true, Publish: []firewall.Port{{Port: 8080, To: 80}}}
	web := w.add(fw, "web", rules)
	w.host.ruleset()
	for _, other := range []bool{false, true} {
		w.host.run("nft", "flush", "ruleset")
		w.outside.cannot("tcp", "192.0.2.1:8080")
		if other { // the tables are there again, and not our elements
			w.add(fw, "db", firewall.Rules{Cards: w.dbCard(), Masquerade: true})
			rules.Publish[0].Port++
		}
		require.NoError(t, web.Set(rules))
		w.outside.reaches("web 192.0.2.2", "tcp", fmt.Sprintf("192.0.2.1:%d", rules.Publish[0].Port))
	}
	require.NoError(t, web.Remove())
}

func TestConflicts(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	web := everything(w.webCard())
	w.add(fw, "web", web)
	conflict := func(id string, r firewall.Rules) *firewall.ConflictError {
		before := w.host.ruleset()
		_, err := fw.Add(id, r)
		var c *firewall.ConflictError
		require.ErrorAs(t, err, &c)
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		require.Equal(t, before, w.host.ruleset(), "nothing is half done")
		files, err := filepath.Glob(w.dir + "/*/db")
		require.NoError(t, err)
		require.Empty(t, files)
		return c
	}
	require.Equal(t, "id web", conflict("web", firewall.Rules{}).What)
	for what, r := range map[string]firewall.Rules{
		"tcp port 8080":           {Cards: w.dbCard(), Publish: []firewall.Port{{Port: 8080}}},
		"udp port 9010":           {Cards: w.dbCard(), Publish: []firewall.Port{{Protocol: firewall.UDP, Port: 9010, Last: 9020}}},
		"tcp port 7 of 10.96.0.1": {Services: web.Services},
		"pool 10.99.0.0/16":       {Pools: firewall.Prefixes("10.99.0.0/16")},
		"pool 10.0.0.0/8":         {Pools: firewall.Prefixes("10.0.0.0/8")},
		"pool fd99::8:0/112":      {Pools: firewall.Prefixes("fd99::8:0/112")},
		"address 10.88.0.2":       {Cards: []firewall.Card{{Name: "veth-db", Addrs: []netip.Addr{netip.MustParseAddr("10.88.0.2")}}}},
		"interface veth-web":      {Cards: []firewall.Card{{Name: "veth-web", Addrs: []netip.Addr{netip.MustParseAddr("10.88.0.9")}}}},
	} {
		c := conflict("db", r)
		require.Equal(t, what, c.What)
		require.Equal(t, "web", c.Owner)
	}
	w.add(fw, "db", firewall.Rules{Cards: w.dbCard(), Pools: firewall.Prefixes("10.100.0.0/16", "10.98.0.0/16"), Publish: []firewall.Port{{Port: 9000, Last: 9020}}})
}

// TestListener: a process has the port.
func TestListener(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	for _, c := range []struct{ network, addr, what string }{
		{"tcp", ":8080", "tcp port 8080"}, {"tcp", "127.0.0.1:8080", "tcp port 8080"}, {"tcp", "[2001:db8::1]:8080", "tcp port 8080"}, {"udp", ":8080", "udp port 8080"},
	} {
		var close func() error
		w.host.in(func() {
			if c.network == "udp" {
				l, err := net.ListenPacket(c.network, c.addr)
				require.NoError(t, err)
				close = l.Close
				return
			}
			l, err := net.Listen(c.network, c.addr)
			require.NoError(t, err)
			close = l.Close
		})
		protocol := map[string]firewall.Protocol{"tcp": firewall.TCP, "udp": firewall.UDP}[c.network]
		rules := firewall.Rules{Cards: w.webCard(), Publish: []firewall.Port{{Protocol: protocol, Port: 8080}}}
		_, err := fw.Add("web", rules)
		var taken *firewall.ConflictError
		require.ErrorAs(t, err, &taken)
		require.Equal(t, c.what, taken.What)
		require.Equal(t, os.Getpid(), taken.PID)
		require.Equal(t, "", taken.Owner)
		require.NotContains(t, w.host.ruleset(), "caisson-v1")
		require.NoError(t, close())
		var held *firewall.Held
		for range 100 { // a program that another test starts just now has a copy until it is executed
			if held, err = fw.Add("web", rules); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		require.NoError(t, err)
		require.NoError(t, held.Remove())
	}
	_, err := fw.Add("web", firewall.Rules{Cards: w.webCard(), Publish: []firewall.Port{{Addr: netip.MustParseAddr("192.0.2.99"), Port: 80}}})
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
}

// TestInherited: who gets the address next does not get the connections.
func TestInherited(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	w.web.serve(80, "web")
	tracked := func() (n int) {
		w.host.in(func() {
			for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
				list, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
				if err != nil {
					t.Logf("no nf_conntrack_netlink: %v", err)
				}
				for _, f := range list {
					if s := f.Reverse.SrcIP.String(); s == "10.88.0.2" || s == "fd88::2" {
						n++
					}
				}
			}
		})
		return n
	}
	held := w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Masquerade: true, Publish: []firewall.Port{{Protocol: firewall.UDP, Port: 8080, To: 80}}})
	w.outside.reaches("web 192.0.2.2", "udp", "192.0.2.1:8080")
	w.outside.reaches("web 2001:db8::2", "udp", "[2001:db8::1]:8080")
	require.Equal(t, 2, tracked())
	require.NoError(t, held.Remove())
	w.add(fw, "other", firewall.Rules{Cards: w.webCard()})
	require.Equal(t, 0, tracked())
}

func TestChosenPort(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	w.web.serve(80, "web")
	held := w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Publish: []firewall.Port{{To: 80}, {To: 80}}})
	for _, p := range held.Rules().Publish {
		require.NotZero(t, p.Port)
		w.outside.reaches("web 192.0.2.2", "tcp", fmt.Sprintf("192.0.2.1:%d", p.Port))
		w.outside.reaches("web 2001:db8::2", "tcp", fmt.Sprintf("[2001:db8::1]:%d", p.Port))
	}
}

func TestForwarding(t *testing.T) {
	w := newWorld(t)
	var fw *firewall.Firewall
	w.host.in(func() {
		var err error
		fw, err = firewall.Host{Dir: w.dir}.Open()
		require.NoError(t, err)
	})
	defer fw.Close()
	for _, name := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		_, err := fw.Add("web", firewall.Rules{Cards: w.webCard(), Masquerade: true})
		var s *firewall.SysctlError
		require.ErrorAs(t, err, &s)
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.Equal(t, firewall.SysctlError{Name: name, Have: "0", Want: "1", Err: s.Err, Hint: s.Hint}, *s)
		require.NotContains(t, w.host.ruleset(), "caisson-v1")
		w.host.sysctl(strings.ReplaceAll(name, ".", "/"), "1")
	}
	w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Masquerade: true})
}

// TestWithoutPrivilege: the thread gives up its capabilities.
func TestWithoutPrivilege(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	before := w.host.ruleset()
	w.host.in(func() {
		// CAP_NET_ADMIN is 12. Whoever has opened the firewall may have lost it since.
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		require.NoError(t, unix.Capget(&hdr, &data[0]))
		data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		require.NoError(t, unix.Capset(&hdr, &data[0]))
		_, err := fw.Add("web", firewall.Rules{Cards: w.webCard()})
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, "CAP_NET_ADMIN")
		_, err = firewall.Host{Dir: t.TempDir()}.Open()
		require.ErrorIs(t, err, fs.ErrPermission)
	})
	require.Equal(t, before, w.host.ruleset())
}

func TestOpenAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root")
	}
	_, err := firewall.Host{Dir: t.TempDir()}.Open()
	require.ErrorIs(t, err, fs.ErrPermission)
	if _, err := os.Stat("/proc/net/ip_tables_names"); err != nil {
		t.Skipf("no ip_tables in the kernel: %v", err)
	}
	_, err = firewall.WithPrograms(firewall.Host{Dir: t.TempDir(), Backend: firewall.IPTables}, "legacy-", "legacy-").Open()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("no iptables-legacy in PATH: Debian's package iptables")
	}
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "CAP_NET_ADMIN")
}

// TestDir: others could say who is alive.
func TestDir(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	_, err := firewall.Host{Dir: dir}.Open()
	require.Error(t, err)
}

// TestElsewhere: the methods act in the namespace in which the firewall was opened, on whatever thread.
func TestElsewhere(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	w.host.ruleset() // skips without nft
	w.outside.in(func() {
		held, err := fw.Add("web", firewall.Rules{Cards: w.webCard(), Masquerade: true})
		require.NoError(t, err)
		defer held.Remove()
		require.Contains(t, w.host.ruleset(), "caisson-v1")
	})
	require.NotContains(t, w.outside.ruleset(), "caisson-v1")
}

// TestDead kills a process at each step that it makes, and looks at what the next one does.
func TestDead(t *testing.T) {
	w := newWorld(t)
	before := w.host.ruleset()
	fw := w.open()
	living := w.add(fw, "living", firewall.Rules{Cards: w.dbCard(), Masquerade: true, Publish: []firewall.Port{{Port: 7000}}})
	alone := w.host.ruleset()
	var steps []string
	for k := 1; ; k++ {
		out := w.victim(k)
		if out == "done" {
			break
		}
		require.True(t, strings.HasPrefix(out, "killed at "), out)
		steps = append(steps, strings.TrimPrefix(out, "killed at "))
		w.host.in(func() {
			next, err := firewall.Host{Dir: w.dir, Forward: true}.Open()
			require.NoError(t, err, out)
			defer next.Close()
		})
		require.Equal(t, alone, w.host.ruleset(), out)
		ids, err := filepath.Glob(w.dir + "/*/[^.]*")
		require.NoError(t, err)
		require.Len(t, ids, 1, out)
	}
	for _, s := range []string{"take the id", "change the tables", "route_localnet of caisson0", "drop the id"} {
		require.True(t, slices.Contains(steps, s), "%q is not among %q", s, steps)
	}
	require.NoError(t, living.Remove())
	require.Equal(t, before, w.host.ruleset())
}

// victim starts this program in the host's namespace; it kills itself at its k-th step.
func (w *world) victim(k int) (last string) {
	w.host.in(func() {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "FIREWALL_TEST=victim", "FIREWALL_DIR="+w.dir, fmt.Sprint("FIREWALL_STEP=", k), "FIREWALL_MAC="+mac(w.web).String())
		out, err := cmd.CombinedOutput()
		last = strings.TrimSpace(string(out))
		if err != nil && !strings.Contains(err.Error(), "killed") {
			last += " " + err.Error()
		}
	})
	return last
}

// TestMain is the victim, too.
func TestMain(m *testing.M) {
	if os.Getenv("FIREWALL_TEST") == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	act := map[string]func() error{"victim": victim, "xvictim": xvictim, "withoutNFTables": withoutNFTables}[os.Getenv("FIREWALL_TEST")]
	if err := act(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("done")
}

// condemned has the process killed at the step that its environment names, and gives the card of which it makes rules.
func condemned(fw *firewall.Firewall) (firewall.Card, error) {
	var k, n int
	fmt.Sscan(os.Getenv("FIREWALL_STEP"), &k)
	firewall.OnStep(fw, func(step string) {
		if n++; n == k {
			fmt.Println("killed at", step)
			unix.Kill(os.Getpid(), unix.SIGKILL)
		}
	})
	hw, err := net.ParseMAC(os.Getenv("FIREWALL_MAC"))
	return firewall.Card{Name: "veth-web", Bridge: "caisson0", MAC: hw, Addrs: []netip.Addr{netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("fd88::2")}}, err
}

func victim() error {
	fw, err := firewall.Host{Dir: os.Getenv("FIREWALL_DIR"), Forward: true}.Open()
	if err != nil {
		return err
	}
	card, err := condemned(fw)
	if err != nil {
		return err
	}
	rules := everything([]firewall.Card{card})
	held, err := fw.Add("victim", rules)
	if err != nil {
		return err
	}
	rules.Services, rules.Policy.Ingress = nil, firewall.Direction{}
	rules.Policy.Egress.Rules[0].Names = []string{"example.org"}
	if err := held.Set(rules); err != nil {
		return err
	}
	return held.Remove()
}
