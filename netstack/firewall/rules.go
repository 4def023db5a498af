//go:build linux

package firewall

import (
	"net"
	"net/netip"
)

// Rules is what one owner, most often a sandbox, has in the firewall. The zero value is nothing at all. Fields that are empty leave alone what they are about.
type Rules struct {
	// Cards are the network cards of the sandbox, as the host sees them. Needed for everything but Pools and Services.
	Cards []Card

	// Masquerade lets what the cards' addresses send outside leave with the host's address (masquerade of nft(8)), and makes them private: from outside only published ports reach
	// them. Addresses of other sandboxes and of Pools are not outside.
	Masquerade bool

	// Pools does the same for whole networks, whoever is in them. A network may not overlap with another owner's.
	Pools []netip.Prefix

	// Isolated forbids all traffic between this sandbox and others, on the same bridge or by way of the host, except to
	// what they have published or offer as a [Service]. False: they can speak where their policies let them.
	Isolated bool

	// Publish makes ports of the sandbox ports of the host.
	Publish []Port

	// Services are virtual addresses that stand for several sandboxes.
	Services []Service

	// Policy says whom the sandbox may speak to, and who to it.
	Policy Policy

	// Names are what sandboxes on the same bridge call this one, if a [Resolver] answers their questions (Policy.Resolver): "db". One label each, in upper or lower case. It does not matter who starts first,
	// nor in which process. A sandbox that is Isolated has no name for others, and knows none. Names open nothing: whether they may speak, policies say.
	Names []string
}

// Card is a network card of a sandbox.
type Card struct {
	// Name is the interface at the host's end: "veth3". At most 15 bytes.
	Name string

	// Bridge is the bridge that the interface is a port of. "": it is none, and packets are routed.
	Bridge string

	// MAC is the hardware address of the sandbox's end. Frames with another one are dropped, and the IPv6 link-local address that the kernel derives from it is
	// one of the card's. Nil: any MAC, which on a bridge lets the sandbox take frames that are meant for its neighbours. Only for cards with a Bridge.
	MAC net.HardwareAddr

	// Later says that the interface may not be there yet when the rules are added. Who makes it sets the port's hairpin mode (IFLA_BRPORT_MODE of ip-link(8)) before it is up, which else is done here: without, what a
	// sandbox sends to a port that it has itself published does not come back to it where br_netfilter is in force.
	Later bool

	// Addrs are the addresses of the sandbox's end. Packets with other sources are dropped. No two sandboxes have the same.
	Addrs []netip.Addr
}

// Protocol is a transport protocol by its number (IPPROTO_...). The zero value means any in a [Rule], and TCP in a [Port] and a [Service].
type Protocol uint8

// The protocols.
const (
	TCP    Protocol = 6
	UDP    Protocol = 17
	SCTP   Protocol = 132
	ICMP   Protocol = 1
	ICMPv6 Protocol = 58
)

// Port publishes one port of a sandbox, or a range, on the host: from outside, from the host itself by any of its addresses, 127.0.0.1 among them (route_localnet of
// ip-sysctl.rst is set for the bridge or card, and what would come in by it is dropped), and from sandboxes, its own included. The kernel cannot translate ::1:
// connections to it are refused, and as Addr it is errors.ErrUnsupported.
type Port struct {
	// Protocol is TCP, UDP or SCTP. The zero value is TCP.
	Protocol Protocol

	// Addr is the address of the host on which the port is published. The zero value, and 0.0.0.0 and :: which then mean one family, are all addresses of the host. Where one port
	// is published on one address and on all, the one address is the more specific, and wins.
	Addr netip.Addr

	// Port is the first port on the host, and Last the last one of a range. Port 0 chooses a free one ([Held.Rules] shows which), and Last 0 is no range.
	Port, Last uint16

	// To is the port in the sandbox that Port becomes; the others follow it. 0: the same number.
	To uint16

	// Target is the address in the sandbox. The zero value is the first of the cards' addresses, of each family that Addr allows.
	Target netip.Addr
}

// Service is an address and a port behind which there are several backends. The address should be nobody's; packets to it must come by way of the host, from the host itself, from sandboxes, or from
// outside where that is routed to the host.
type Service struct {
	Addr     netip.Addr
	Protocol Protocol // TCP, UDP or SCTP; the zero value is TCP
	Port     uint16
	Spread   Spread

	// Backends are who answers, each in the same share. A backend that stands there twice gets two shares. While there is none, new connections are dropped.
	Backends []netip.AddrPort
}

// Spread says which backend gets a new connection.
type Spread uint8

// The ways to spread.
const (
	Random     Spread = iota // any, with equal chances
	RoundRobin               // one after another
	SourceHash               // the same one for the same source address, as long as the backends stay the same
)

// Policy says what a sandbox may do. One that has a policy does not speak over its bridge directly: its packets to neighbours, and theirs to it, go by way of the host, which must forward. Answers to what is allowed are always allowed, and
// when the policy changes, the connections that the new one forbids end (those to a name whose answer is forgotten, too). A TCP connection begins with its first segment: what looks like the middle of one that the kernel does not know is dropped. The host itself may always
// speak to the sandbox; when the sandbox speaks to the host, Egress decides.
type Policy struct {
	Egress  Direction // to whom the sandbox may open connections
	Ingress Direction // who may open connections to it

	// Resolver is the address of the host at which a [Resolver] listens for this sandbox. All its questions to port 53 (UDP and TCP) are sent there, and are
	// allowed. One of IPv4, IPv6 or both. Nil: nothing is redirected, and a Rule with Names is an error.
	Resolver []netip.AddrPort
}

// Direction is a list of rules; the first one that matches decides. The zero value allows all.
type Direction struct {
	Rules     []Rule
	Otherwise Verdict // what happens to what no rule matches
}

// Rule is one line of a [Direction]. Fields that are empty match everything.
type Rule struct {
	Verdict  Verdict
	Peers    []netip.Prefix // the other side; for a published port the client, for a service the backend
	Names    []string       // the other side, by names: "example.com", or "*.example.com" for all below it; Egress only, with Allow only
	Protocol Protocol
	Ports    []PortRange // destination ports, as the sandbox's own program knows them; Protocol must be TCP, UDP or SCTP
}

// Verdict is what happens to a packet. The zero value is Allow.
type Verdict uint8

// The verdicts.
const (
	Allow  Verdict = iota // goes on to the other side's policy
	Drop                  // is lost
	Reject                // is answered with an ICMP error: administratively prohibited
)

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// Ports makes a list of single ports.
func Ports(ports ...uint16) []PortRange {
	var list []PortRange
	for _, p := range ports {
		list = append(list, PortRange{p, p})
	}
	return list
}

// Prefixes parses networks, as netip.MustParsePrefix does; a plain address is a network of one. It panics on what is neither: it is for networks that stand in the program.
func Prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			list = append(list, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}
