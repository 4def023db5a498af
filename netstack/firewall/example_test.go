//go:build linux

package firewall_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

func Example() {
	fw, err := firewall.Host{Forward: true}.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fw.Close()
	web, err := fw.Add("web", firewall.Rules{
		Cards:      []firewall.Card{{Name: "veth3", Bridge: "caisson0", Addrs: []netip.Addr{netip.MustParseAddr("10.88.0.2")}}},
		Masquerade: true,
		Isolated:   true,
		Publish:    []firewall.Port{{Port: 8080, To: 80}},
	})
	if err != nil {
		fmt.Println(err) // firewall: tcp port 8080 is taken by process 4711 (nginx)
		return
	}
	defer web.Remove()
}

// A policy with addresses and ports.
func ExamplePolicy() {
	_ = firewall.Policy{
		Egress: firewall.Direction{
			Rules: []firewall.Rule{
				{Verdict: firewall.Reject, Peers: firewall.Prefixes("10.0.0.0/8", "fd00::/8")},
				{Protocol: firewall.TCP, Ports: firewall.Ports(80, 443)},
			},
			Otherwise: firewall.Reject,
		},
		Ingress: firewall.Direction{Otherwise: firewall.Drop},
	}
}

// Only two names can be reached, also by programs that know no proxy.
func ExampleResolver() {
	serve := func(ctx context.Context, fw *firewall.Firewall) error {
		packets, err := net.ListenPacket("udp", "10.88.0.1:53")
		if err != nil {
			return err
		}
		streams, err := net.Listen("tcp", "10.88.0.1:53")
		if err != nil {
			return err
		}
		return firewall.Resolver{Upstream: []netip.AddrPort{netip.MustParseAddrPort("9.9.9.9:53")}}.Serve(ctx, fw, packets, streams)
	}
	_ = serve
	_ = firewall.Policy{
		Resolver: []netip.AddrPort{netip.MustParseAddrPort("10.88.0.1:53")},
		Egress: firewall.Direction{
			Rules:     []firewall.Rule{{Names: []string{"proxy.golang.org", "*.debian.org"}, Protocol: firewall.TCP, Ports: firewall.Ports(80, 443)}},
			Otherwise: firewall.Reject,
		},
	}
}

// Sandboxes on one bridge find each other by names.
func ExampleRules_names() {
	_ = firewall.Rules{
		Cards:  []firewall.Card{{Name: "veth3", Bridge: "caisson0", Addrs: []netip.Addr{netip.MustParseAddr("10.88.0.2")}}},
		Names:  []string{"db"},
		Policy: firewall.Policy{Resolver: []netip.AddrPort{netip.MustParseAddrPort("10.88.0.1:53")}},
	}
	_ = firewall.Resolver{Upstream: []netip.AddrPort{netip.MustParseAddrPort("9.9.9.9:53")}, Forward: true} // all other names, too
}

// A host that may have an old kernel.
func ExampleFirewall_Backend() {
	fw, err := firewall.Host{Forward: true}.Open() // asks the kernel
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fw.Close()
	fmt.Println(fw.Backend()) // nftables
}

// A service whose members change while it runs.
func ExampleHeld_Set() {
	change := func(svc *firewall.Held, members []netip.AddrPort) error {
		rules := svc.Rules()
		rules.Services[0].Backends = members
		return svc.Set(rules)
	}
	_ = change
}

func ExamplePrefixes() {
	fmt.Println(firewall.Prefixes("192.0.2.0/24", "2001:db8::1"), firewall.Ports(80, 443))
	// Output: [192.0.2.0/24 2001:db8::1/128] [{80 80} {443 443}]
}
