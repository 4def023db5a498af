//go:build linux

package firewall_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

func TestPublish(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	held := w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Masquerade: true, Isolated: true, Publish: []firewall.Port{
		{Port: 8080, To: 80}, {Protocol: firewall.UDP, Port: 8080, To: 80}}})
	w.add(fw, "db", firewall.Rules{Cards: w.dbCard(), Masquerade: true, Isolated: true})
	w.web.serve(80, "web")
	for _, network := range []string{"tcp", "udp"} {
		w.outside.reaches("web 192.0.2.2", network, "192.0.2.1:8080")
		w.outside.reaches("web 2001:db8::2", network, "[2001:db8::1]:8080")
		w.host.reaches("web 10.88.0.1", network, "127.0.0.1:8080")
		w.host.reaches("web 2001:db8::1", network, "[2001:db8::1]:8080")
		w.host.reaches("web 192.0.2.1", network, "192.0.2.1:8080")
		w.db.reaches("web 10.88.0.1", network, "192.0.2.1:8080")
		w.db.reaches("web fd88::1", network, "[2001:db8::1]:8080")
		w.web.reaches("web 10.88.0.1", network, "192.0.2.1:8080")
		w.web.reaches("web fd88::1", network, "[2001:db8::1]:8080")
	}
	began := time.Now()
	w.host.cannot("tcp", "[::1]:8080")
	require.Less(t, time.Since(began), patience/2, "it is refused, not lost")
	require.NoError(t, held.Remove())
	w.outside.cannot("tcp", "192.0.2.1:8080")
	w.host.cannot("tcp", "127.0.0.1:8080")
}

func TestMasquerade(t *testing.T) {
	w := newWorld(t)
	fw := w.open()
	w.outside.serve(99, "outside")
	w.web.cannot("tcp", "192.0.2.2:99")
	held := w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Masquerade: true})
	w.web.reaches("outside 192.0.2.1", "tcp", "192.0.2.2:99")
	w.web.reaches("outside 2001:db8::1", "tcp", "[2001:db8::2]:99")
	w.web.reaches("outside 192.0.2.1", "udp", "192.0.2.2:99")
	w.db.cannot("tcp", "192.0.2.2:99")
	require.NoError(t, held.Remove())
	w.web.cannot("tcp", "192.0.2.2:99")
}
