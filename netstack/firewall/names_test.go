//go:build linux

package firewall_test

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// TestNeighbourNames: a sandbox finds another one on its bridge, which starts later, and belongs to another process or this one.
func TestNeighbourNames(t *testing.T) {
	w := newWorld(t)
	mine, other := w.open(), w.open() // as two processes have it
	w.resolverAt(mine, "10.88.0.1:5300", true)
	w.resolverAt(other, "10.88.0.1:5301", false)
	var asked atomic.Int64
	w.outside.nameserver(zone{"example.com.": {a("example.com.", 60, "192.0.2.2")}}, &asked)
	resolver := func(port string) []netip.AddrPort {
		return []netip.AddrPort{netip.MustParseAddrPort("10.88.0.1:" + port)}
	}
	w.db.serve(80, "db")
	web := firewall.Rules{Cards: w.webCard(), Masquerade: true, Names: []string{"web"}, Policy: firewall.Policy{Resolver: resolver("5300")}}
	heldWeb := w.add(mine, "web", web)
	ask := func(s space, name string, kind dnsmessage.Type, want ...string) {
		t.Helper()
		rcode, addrs := s.resolve("udp", name, kind)
		if len(want) == 1 && want[0] == "none" {
			require.Equal(t, dnsmessage.RCodeNameError, rcode, name)
			want = nil
		} else {
			require.Equal(t, dnsmessage.RCodeSuccess, rcode, name)
		}
		require.Equal(t, want, addrs, name)
	}
	ask(w.web, "db.", dnsmessage.TypeA, "none")
	ask(w.web, "web.", dnsmessage.TypeA, "10.88.0.2")

	rules := firewall.Rules{Cards: w.dbCard(), Masquerade: true, Names: []string{"db", "Store"},
		Policy: firewall.Policy{Resolver: resolver("5301"), Egress: firewall.Direction{Otherwise: firewall.Reject, Rules: []firewall.Rule{{Names: []string{"web"}}}}}}
	held := w.add(other, "db", rules)
	ask(w.web, "db.", dnsmessage.TypeA, "10.88.0.3")
	ask(w.web, "STORE.", dnsmessage.TypeAAAA, "fd88::3")
	ask(w.web, "db.", dnsmessage.TypeMX)
	w.web.reaches("db 10.88.0.2", "tcp", "10.88.0.3:80")
	require.Zero(t, asked.Load(), "nobody outside hears of names of neighbours")
	ask(w.web, "example.com.", dnsmessage.TypeA, "192.0.2.2")
	rcode, _ := w.db.resolve("udp", "example.com.", dnsmessage.TypeA)
	require.Equal(t, dnsmessage.RCodeRefused, rcode, "a policy with names")

	// A name opens nothing but what the policy has under it.
	w.web.serve(80, "web")
	w.db.cannot("tcp", "10.88.0.2:80")
	ask(w.db, "web.", dnsmessage.TypeA, "10.88.0.2")
	w.db.reaches("web 10.88.0.3", "tcp", "10.88.0.2:80")

	rules.Isolated = true
	require.NoError(t, held.Set(rules))
	ask(w.web, "db.", dnsmessage.TypeA, "none")
	ask(w.db, "web.", dnsmessage.TypeA) // it is asked for outside, because the policy has the name
	rules.Isolated, rules.Names = false, nil
	require.NoError(t, held.Set(rules))
	ask(w.web, "db.", dnsmessage.TypeA, "none")
	rules.Names = []string{"db"}
	require.NoError(t, held.Set(rules))
	ask(w.web, "db.", dnsmessage.TypeA, "10.88.0.3")
	require.NoError(t, held.Remove())
	ask(w.web, "db.", dnsmessage.TypeA, "none")
	require.NoError(t, heldWeb.Remove())

	for _, bad := range []string{"", "a.b", "*", "a b", "é"} {
		_, err := mine.Add("bad", firewall.Rules{Cards: w.webCard(), Names: []string{bad}})
		require.ErrorIs(t, err, unix.EINVAL, bad)
	}
}
