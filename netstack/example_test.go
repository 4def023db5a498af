package netstack_test

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/ipam"
	"github.com/caisson-dev/caisson/plan"
)

// What a start does for a card on a bridge.
func ExampleBridge() {
	p := plan.Build(namespaces.PID|namespaces.Mount, netstack.Bridge{Masquerade: true, Publish: []netstack.Port{{Port: 8080, To: 80}}})
	for _, step := range append(p.Steps(nil), p.AfterSteps()...) {
		if step.Primitive == "netstack.Bridge" {
			fmt.Println(step)
		}
	}
	// Output:
	// open netlink
	// keep account of "eth0"
	// $0 = socket(AF_UNIX, SOCK_DGRAM|SOCK_CLOEXEC, 0)
	// ioctl($0, SIOCSIFFLAGS, {"lo", IFF_UP})
	// bridge "caisson0" with addresses of 10.77.0.0/16, fd77:ca15:50::/64; veth "cs*", "eth0" inside; its own addresses only; masquerade; publish 80 as 8080
	// close netlink
}

// A bridge with its own addresses, for a sandbox that reaches nothing else.
func ExampleBridge_internal() {
	b := netstack.Bridge{Name: "inner0", Internal: true, Subnets: []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24")}}}
	fmt.Println(plan.Build(b).Err())
	b.Addresses = []netip.Addr{netip.MustParseAddr("10.9.0.1")}
	fmt.Println(plan.Build(b).Err())
	// Output:
	// <nil>
	// caisson: netstack.Bridge: 10.9.0.1: the gateway's own
}

func ExampleVeth() {
	v := netstack.Veth{Host: "to-web", HostAddresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/31")},
		Card: netstack.Card{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/31")}, Routes: []netstack.Route{{Via: netip.MustParseAddr("192.0.2.0")}}}}
	fmt.Println(plan.Build(v).Err())
	// Output: <nil>
}

func ExampleMacvlan() {
	fmt.Println(plan.Build(netstack.Macvlan{Parent: "eth0", Mode: netstack.MacvlanPrivate, Card: netstack.Card{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}}).Err())
	// Output: <nil>
}

func ExampleIpvlan() {
	fmt.Println(plan.Build(netstack.Ipvlan{Parent: "eth0", Mode: netstack.IpvlanL3, Card: netstack.Card{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}}).Err())
	// Output: <nil>
}

func ExampleVlan() {
	fmt.Println(plan.Build(netstack.Vlan{Parent: "eth0", ID: 4095}).Err())
	// Output: caisson: netstack.Vlan: ID "4095": not between 1 and 4094
}

func ExampleMove() {
	fmt.Println(plan.Build(netstack.Move{Device: "eth1", Card: netstack.Card{Name: "wan"}}).Err())
	// Output: <nil>
}

// A network stack written in Go gets the sandbox's packets.
func ExampleTap() {
	t := netstack.Tap{Packet: true, Attach: func(f *os.File) error {
		defer f.Close() // a stack would keep it, and read
		return nil
	}, Card: netstack.Card{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}}}
	fmt.Println(plan.Build(t).Err())
	// Output: <nil>
}

// The child sets up loopback itself, in two system calls.
func ExampleNone() {
	for _, step := range plan.Build(netstack.None{}).Steps(nil) {
		if step.Primitive == "netstack.None" {
			fmt.Println(step)
		}
	}
	// Output:
	// $0 = socket(AF_UNIX, SOCK_DGRAM|SOCK_CLOEXEC, 0)
	// ioctl($0, SIOCSIFFLAGS, {"lo", IFF_UP})
}

func ExampleHost() {
	fmt.Println(plan.Build(netstack.Host{}, namespaces.Net).Err())
	// Output: caisson: netstack.Host: the network is given by netstack.Host and by a part that makes or joins a network namespace
}

func ExampleJoin() {
	fmt.Println(plan.Build(netstack.Join{PID: os.Getpid()}, netstack.Bridge{}).Err())
	// Output: caisson: netstack.Bridge: the network is given by netstack.Join and by netstack.Bridge
}

func ExamplePasta() {
	fmt.Println(plan.Build(namespaces.User, netstack.Pasta{Publish: []netstack.Port{{Port: 8080, To: 80}}}).Err())
	// Output: <nil>
}

func ExampleSlirp() {
	fmt.Println(plan.Build(namespaces.User, netstack.Slirp{MTU: 1500}).Err())
	// Output: <nil>
}

func ExampleHosts() {
	b, err := netstack.Hosts(netstack.HostEntry{Addr: netip.MustParseAddr("10.77.3.1"), Names: []string{"db", "db.internal"}})
	fmt.Printf("%s%v", b, err)
	// Output:
	// 127.0.0.1	localhost
	// ::1	localhost ip6-localhost ip6-loopback
	// 10.77.3.1	db db.internal
	// <nil>
}

func ExampleParseResolv() {
	r := netstack.ParseResolv([]byte("# of a VPN\nnameserver 10.8.0.1\nsearch corp.example\noptions ndots:2\n"))
	r.Nameservers = append(r.Nameservers, netip.MustParseAddr("9.9.9.9"))
	b, err := r.Bytes()
	fmt.Printf("%s%v", b, err)
	// Output:
	// nameserver 10.8.0.1
	// nameserver 9.9.9.9
	// search corp.example
	// options ndots:2
	// <nil>
}

// A stock of networks: needs root, so it is only compiled here.
func ExampleNewPool() {
	stock, err := netstack.NewPool(8, netstack.Bridge{Masquerade: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stock.Close()
	fmt.Print(plan.Build(stock))
}

// Where the sandbox with a pid has its card.
func ExampleInspectPID() {
	n, err := netstack.InspectPID(os.Getpid())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range n.Devices {
		fmt.Println(d.Name, d.Addresses)
	}
}

// All networks, as far as they can be seen.
func ExampleInspect() {
	all, err := netstack.Inspect()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range all.Networks {
		for _, d := range n.Devices {
			if d.Parent != nil && d.Parent.Network >= 0 {
				fmt.Println(d.Name, "is connected with", all.Networks[d.Parent.Network].Device(d.Parent.Index))
			}
		}
	}
}

// The limit of a sandbox that runs is changed.
func ExampleBandwidth() {
	b := netstack.Bridge{Bandwidth: netstack.Bandwidth{Receive: netstack.Rate{Bytes: 10_000_000}, Send: netstack.Rate{Bytes: 2_000_000}}}
	fmt.Println(plan.Build(b).Err())
	fmt.Println(netstack.Bandwidth{Receive: netstack.Rate{Bytes: 10}}.Set(4242))
	// Output:
	// <nil>
	// Bytes "10": not between 1000 and 2^32-1 bytes per second
}

// The near one of two hosts whose sandboxes are on one network.
func ExampleVxlan() {
	v := netstack.Vxlan{Name: "vx0", ID: 1 << 24, Local: netip.MustParseAddr("192.0.2.1"), Peers: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, Bridge: "caisson0"}
	fmt.Println(v.Create())
	// Output: ID "16777216": not between 1 and 2^24-1
}

// The near one of two hosts whose sandboxes are on one network, encrypted: near.Create() makes it. Each host keeps its private key to itself.
func ExampleWireGuard() {
	here, there := netstack.NewPrivateKey(), netstack.NewPrivateKey()
	near := netstack.Vxlan{Name: "over0", ID: 7, Bridge: "caisson0", Peers: []netip.Addr{netip.MustParseAddr("192.0.2.2")},
		WireGuard: netstack.WireGuard{Private: here, Public: []netstack.PublicKey{there.Public()}}}
	fmt.Println(near.WireGuard.Private, near.WireGuard.Public[0] == there.Public())
	// Output: (private key) true
}
