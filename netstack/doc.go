//go:build linux

// Package netstack gives each sandbox its own network: devices, addresses, routes, and the way to the world outside (network_namespaces(7), ip-link(8)).
//
// Each kind of network is a value, and a part of a sandbox. Several together give it several cards, eth0, eth1, ...:
//
//	Bridge    a card on a bridge of the host's, with an address from a pool         veth(4), Linux 4.18
//	Veth      a cable to the host, without a bridge                                veth(4)
//	Macvlan   a device of its own on the network of a device of the host's          ip-link(8)
//	Ipvlan    the same with the hardware address of the host's device               ip-link(8)
//	Vlan      one VLAN of a device of the host's                                   ip-link(8)
//	Move      a device of the host's, which has it back at the end                  ip-link(8)
//	Tap       a device whose packets a program reads and writes                     networking/tuntap.rst
//
// or is the sandbox's whole network:
//
//	None      nothing but loopback
//	Host      that of the caller
//	Join      that of another sandbox
//	Pool      one that was made ready before
//	Pasta     the host's, for ordinary users, by the program pasta
//	Slirp     the same by the program slirp4netns
//
// Each of them asks for the network namespace itself, and sets up loopback. [Card] says what the device is like inside; the zero value of all is of use:
//
//	netstack.Bridge{}                                                      // eth0 with an address of 10.77.0.0/16 and one of fd77:ca15:50::/64
//	netstack.Bridge{Masquerade: true, Publish: []netstack.Port{{Port: 8080, To: 80}}}
//
// Parameters of the network (net.ipv4...) are for package namespaces: its Sysctl finds the devices there.
//
// # When the program starts
//
// all is ready: addresses can be used, neighbours be asked, and the first packet is not lost. IPv6 addresses are not looked for on the network first (RFC 4862), which would take a second
// or two; they are from pools in which nobody has them twice.
//
// # Who may do what
//
// Everything on the host's side needs CAP_NET_ADMIN there. A sandbox with a user namespace and CAP_NET_ADMIN inside may change its own network as it likes: it is held to its addresses by rules on
// the host's side (package firewall), which are the default for [Bridge]. The other kinds have none, and say who checks there.
//
// [Bandwidth] limits and delays what passes a cable, also while the sandbox runs, and [Queues] counts it. [Vxlan] joins bridges of several hosts, encrypted by [WireGuard].
//
// # Clean-up
//
// What a sandbox has on the host goes when it ends: its cable, addresses, rules. A bridge stays. Where the host process is killed, the next start of whatever process removes what the dead one has left
// in the same network: names of devices carry an owner, "cs1a2b3c-7", who is a file in [StateDir] that a living process keeps locked. [Sweep] does it without a start. Programs of the dead that still run
// lose their network thereby.
//
// # To look
//
// [Inspect] gives the networks of the machine as values, [InspectPID] that of one sandbox; [Bridge.Names] who has which address. [Resolv], [Hosts] and [HostnameFile] are the contents of the files
// by which programs find names.
//
// # Errors
//
// A value that makes no sense is a [*ValueError], or an error of package ipam, with EINVAL, before anything is done. Everything else is an [*Error] with the errno, or one of the packages ipam and firewall:
// fs.ErrPermission without CAP_NET_ADMIN, fs.ErrExist for a bridge that is another one, ENOSPC for a pool that is exhausted, EADDRINUSE for an address or a port that somebody has, and
// errors.ErrUnsupported for what the kernel does not have. When a sandbox is started they stand inside a plan.Error, which names the step.
//
// # Example
//
// Two sandboxes, one of which the world reaches on port 8080:
//
//	web := caisson.New(netstack.Bridge{Hosts: []string{"web"}, Masquerade: true, Publish: []netstack.Port{{Port: 8080, To: 80}}})
//	db := caisson.New(netstack.Bridge{Hosts: []string{"db"}, Addresses: []netip.Addr{netip.MustParseAddr("10.77.3.1")}})
package netstack
