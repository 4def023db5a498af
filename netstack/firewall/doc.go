//go:build linux

// Package firewall gives sandboxes their part of the packet filter (nftables, or iptables where the kernel has nothing else): masquerading, published ports, policies, virtual services.
//
// What one sandbox has in it is one value, [Rules]. A [Firewall] is that of one network namespace, most often the host's; [Firewall.Add] puts rules
// into it under an id, [Held.Set] replaces them while the sandbox runs, [Held.Remove] takes them away:
//
//	fw, err := firewall.Host{Forward: true}.Open()
//	if err != nil {
//		return err
//	}
//	defer fw.Close()
//	held, err := fw.Add("web", firewall.Rules{
//		Cards:      []firewall.Card{{Name: "veth3", Bridge: "caisson0", MAC: mac, Addrs: []netip.Addr{netip.MustParseAddr("10.88.0.2")}}},
//		Masquerade: true,
//		Isolated:   true,
//		Publish:    []firewall.Port{{Port: 8080, To: 80}},
//		Policy: firewall.Policy{Egress: firewall.Direction{
//			Rules:     []firewall.Rule{{Verdict: firewall.Allow, Peers: firewall.Prefixes("192.0.2.0/24"), Protocol: firewall.TCP, Ports: firewall.Ports(443)}},
//			Otherwise: firewall.Reject,
//		}},
//	})
//	if err != nil {
//		return err
//	}
//	defer held.Remove()
//
// Each of the three is one transaction of the kernel: all of it is in force, or nothing. What a changed policy forbids ends, also what had begun before.
//
// # Whose packet is it
//
// Everything hangs on the source address, and a sandbox with CAP_NET_RAW or CAP_NET_ADMIN over its own namespace chooses it freely. So a packet from a [Card] must have
// one of the card's addresses, and its MAC if one is given; ARP and neighbour discovery may speak for those addresses only, routers are not advertised, and
// what is neither IPv4, IPv6 nor ARP is dropped. On a bridge this is checked where the frame enters the bridge, else where the packet enters the host.
//
// # What comes from outside
//
// A sandbox that is masqueraded is private: from outside only its published ports reach it, also for somebody on the same wire who sets a route to its
// address. Ports published on 127.0.0.0/8 cannot be reached from outside either. The host itself may always speak to its sandboxes.
//
// # Names
//
// A [Rule] may give names instead of addresses. They hold for programs that know nothing of it: all questions of the sandbox to port 53, whomever they are
// addressed to, come to a [Resolver], which answers for the names that are allowed, and pins the addresses it has answered for as long as the answer is valid.
// The packet filter knows addresses only: where many names live on one address, all of them are reached.
//
// The same Resolver tells sandboxes on one bridge where the others are that have [Rules].Names, whoever has started first and in whatever process.
//
// # Others
//
// Two tables are ours: "caisson-v1" of the families inet and bridge. No other one is read or written, with one exception: [Firewall.Blockers] looks for those that drop all that is forwarded, as
// Docker's do. Verdicts of others hold beside ours: what one drops is dropped. The tables are made with the first rules and
// removed with the last. Tables of a sandbox do not grow the way of a packet: it is found in maps, whether there are ten sandboxes or ten thousand.
//
// # Without nf_tables
//
// A kernel that has iptables alone keeps the same rules in chains of our own, each line with its owner's id: see [IPTables] for what is weaker then, and what is refused. [Firewall.Backend] tells which it is.
//
// # The dead
//
// Each id is a locked file in [Host].Dir, and the kernel drops the lock with whoever holds it, however he ends. All elements in the tables carry the id. [Host.Open] removes the rules
// of those whose file nobody holds. Pass [Held.File] to another process, and the rules live as long as it does.
//
// # Errors
//
// A value that makes no sense is a [*RuleError] (EINVAL) before anything is done. A port, an address or an id that somebody has is a [*ConflictError], which names the other sandbox or the
// process that listens. A parameter of the kernel that forbids forwarding is a [*SysctlError]. Everything else is an [*Error] with the errno: fs.ErrPermission without CAP_NET_ADMIN,
// errors.ErrUnsupported where the kernel has neither nf_tables nor iptables, or not what the rules need.
//
// # Needs
//
// CAP_NET_ADMIN in the user namespace that owns the network namespace, a writable directory for the locks, and Linux 5.2 with nf_tables and its parts nft_nat, nft_masq, nft_fib_inet,
// nft_ct, nft_numgen, nft_hash and nft_reject_inet (nft(8)). Ports below 1024 need CAP_NET_BIND_SERVICE to look whether they are free.
//
// A bridge must have a MAC that was set, and not one that it takes from its ports, which changes: frames that are to go by way of the host are sent to it. Hairpin mode is set
// for its ports, and everything dropped that would come back by it unchanged (bridge(8)). br_netfilter may be in force or not.
package firewall
