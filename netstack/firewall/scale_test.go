//go:build linux

package firewall_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// crowd puts n cards on the bridge, whose other ends are all in one namespace, and gives what each of them is to have.
func (w *world) crowd(n int, policy bool) []firewall.Rules {
	far := newSpace(w.t, "crowd")
	list := make([]firewall.Rules, n)
	w.host.in(func() {
		br, err := netlink.LinkByName("caisson0")
		require.NoError(w.t, err)
		for i := range list {
			name := fmt.Sprint("v", i)
			link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: br.Attrs().Index}, PeerName: name, PeerNamespace: netlink.NsFd(int(far.file.Fd()))}
			require.NoError(w.t, netlink.LinkAdd(link))
			addr := netip.AddrFrom4([4]byte{10, 88, byte(4 + i/250), byte(1 + i%250)})
			v6 := addr.As4()
			list[i] = firewall.Rules{Masquerade: true, Isolated: true, Publish: []firewall.Port{{Port: uint16(10000 + i), To: 80}},
				Cards: []firewall.Card{{Name: name, Bridge: "caisson0", MAC: []byte{2, 0, v6[0], v6[1], v6[2], v6[3]}, Addrs: []netip.Addr{addr}}}}
			if policy {
				list[i].Policy.Egress = firewall.Direction{Rules: []firewall.Rule{{Peers: firewall.Prefixes("192.0.2.0/24"), Protocol: firewall.TCP, Ports: firewall.Ports(80, 443)}}, Otherwise: firewall.Reject}
			}
		}
	})
	return list
}

// TestCrowd: the last of many sandboxes on one bridge costs no more than the first, in time to set it up and in the time of a packet.
func TestCrowd(t *testing.T) {
	if os.Getenv("CAISSON_SLOW") == "" {
		t.Skip("CAISSON_SLOW is not set: a crowd takes a while")
	}
	n := 1000
	if os.Getenv("VMRUN") != "" {
		n = 100 // in a machine in software; times mean nothing there
	}
	for _, policy := range []bool{false, true} {
		t.Run(fmt.Sprint("policy=", policy), func(t *testing.T) {
			w := newWorld(t)
			fw := w.open()
			w.web.serve(80, "web")
			w.add(fw, "web", firewall.Rules{Cards: w.webCard(), Masquerade: true, Publish: []firewall.Port{{Port: 8080, To: 80}}})
			var helds []*firewall.Held
			var times []time.Duration
			for i, r := range w.crowd(n, policy) {
				began := time.Now()
				helds = append(helds, w.add(fw, fmt.Sprint("crowd", i), r))
				times = append(times, time.Since(began))
			}
			few := n / 10
			first, last := median(times[:few]), median(times[n-few:])
			began := time.Now()
			w.outside.reaches("web 192.0.2.2", "tcp", "192.0.2.1:8080")
			t.Logf("the first %d took %v each, the last %v; a connection takes %v", few, first, last, time.Since(began))
			if most := map[bool]time.Duration{false: 150, true: 300}[policy]; os.Getenv("VMRUN") == "" { // the kernel looks through all chains whenever one is added
				require.Less(t, last, first*most/100)
			}
			times = times[:0]
			for _, h := range helds {
				began := time.Now()
				require.NoError(t, h.Remove())
				times = append(times, time.Since(began))
			}
			t.Logf("removing: the first %v, the last %v", median(times[:few]), median(times[n-few:]))
		})
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
