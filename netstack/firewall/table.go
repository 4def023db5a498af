//go:build linux

package firewall

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName has the version of the layout in it: rules of another version of this package are in a table of their own.
const tableName = "caisson-v1"

// The names of sets. Those whose names end in 4 in the text have a twin that ends in 6.
const (
	// in both families
	cards    = "cards"    // interfaces of sandboxes
	source   = "source"   // interface and address: what may come from where
	isolated = "isolated" // inet: addresses; bridge: interfaces

	// inet
	inside   = "inside"   // addresses of sandboxes
	owner    = "owner"    // the same with a mark that is their owner's; Linux before 6.4 does not look into a map as if it were a set
	masq     = "masq"     // addresses that are masqueraded
	pools    = "pools"    // networks that are masqueraded
	address  = "address"  // published ports by address, protocol, port
	anywhere = "anywhere" // published ports by protocol, port
	services = "services" // virtual services
	egress   = "egress"   // the policy for packets from an address
	ingress  = "ingress"  // the policy for packets to an address
	resolve  = "resolve"  // who answers the questions of an address
	routed   = "routed"   // interfaces that are no port of a bridge
	localnet = "localnet" // interfaces over which 127.0.0.1 is translated

	// bridge
	entry   = "entry"   // interface: the chain that checks its frames
	mac     = "mac"     // interface and MAC
	steered = "steered" // interfaces and addresses whose packets go by way of the host
	routers = "routers" // interface: MAC of its bridge
	hosts   = "hosts"   // interface and MAC of its bridge
	echo    = "echo"    // interface and the same interface: what would come back to who has sent it
)

// tables are our two tables.
type tables struct{ inet, bridge *nftables.Table }

func newTables() tables {
	return tables{&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}, &nftables.Table{Family: nftables.TableFamilyBridge, Name: tableName}}
}

// setID names a set of one of the tables.
type setID struct {
	bridge bool
	name   string
}

// sets makes all sets that are always there.
func (t tables) sets() map[setID]*nftables.Set {
	all := map[setID]*nftables.Set{}
	add := func(table *nftables.Table, name string, key []nftables.SetDatatype, data ...nftables.SetDatatype) *nftables.Set {
		s := &nftables.Set{Table: table, Name: name, KeyType: concat(key), IsMap: len(data) > 0, ID: uint32(len(all) + 1)}
		if s.IsMap {
			s.DataType = concat(data)
		}
		if key[0] == nftables.TypeIFName { // for nft(8), which would print the name backwards
			s.KeyByteOrder = binaryutil.NativeEndian
		}
		all[setID{table == t.bridge, name}] = s
		return s
	}
	type types = []nftables.SetDatatype
	ifname, proto, port, ether := nftables.TypeIFName, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeEtherAddr
	add(t.inet, cards, types{ifname}, nftables.TypeMark)
	add(t.inet, routed, types{ifname})
	add(t.inet, localnet, types{ifname})
	for i, addr := range []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr} {
		f := families()[i].suffix
		add(t.inet, inside+f, types{addr})
		add(t.inet, owner+f, types{addr}, nftables.TypeMark)
		add(t.inet, isolated+f, types{addr})
		add(t.inet, masq+f, types{addr})
		add(t.inet, pools+f, types{addr}).Interval = true
		add(t.inet, address+f, types{addr, proto, port}, addr, port)
		add(t.inet, anywhere+f, types{proto, port}, addr, port)
		add(t.inet, services+f, types{addr, proto, port}, nftables.TypeVerdict)
		add(t.inet, egress+f, types{addr}, nftables.TypeVerdict)
		add(t.inet, ingress+f, types{addr}, nftables.TypeVerdict)
		add(t.inet, resolve+f, types{addr}, addr, port)
		add(t.inet, source+f, types{ifname, addr})
		add(t.bridge, source+f, types{ifname, addr})
		add(t.bridge, steered+f, types{addr})
	}
	add(t.bridge, cards, types{ifname})
	add(t.bridge, isolated, types{ifname})
	add(t.bridge, steered, types{ifname})
	add(t.bridge, entry, types{ifname}, nftables.TypeVerdict)
	add(t.bridge, mac, types{ifname, ether})
	add(t.bridge, echo, types{ifname, ifname})
	add(t.bridge, hosts, types{ifname, ether})
	add(t.bridge, routers, types{ifname}, ether)
	return all
}

func concat(types []nftables.SetDatatype) nftables.SetDatatype {
	if len(types) == 1 {
		return types[0]
	}
	return nftables.MustConcatSetType(types...) // panics with more than five only
}

// base is a base chain with its rules.
type base struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    []line
}

// before is a little before the priority of others' filters, so that what is rejected is rejected by us, and their counters see what is left.
const before = -10

// inetChains are the base chains of the table of family inet.
func inetChains() []base {
	return []base{
		{"raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw, rawRules()},
		{"translate", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest, translateRules(true)},
		{"translate-own", nftables.ChainTypeNAT, nftables.ChainHookOutput, *nftables.ChainPriorityNATDest, translateRules(false)},
		{"masquerade", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource, masqueradeRules()},
		{"forwarded", nftables.ChainTypeFilter, nftables.ChainHookForward, before, forwardRules()},
		{"to-host", nftables.ChainTypeFilter, nftables.ChainHookInput, before, inputRules()},
	}
}

// rawRules see packets first of all. A reply to a translated packet still has the host's address here, so nothing honest has a loopback address.
func rawRules() (rules []line) {
	v4 := ipv4()
	for _, offset := range []uint32{v4.source, v4.dest} {
		rules = append(rules, join(v4.is(), v4.in(offset, v4.loopback), iifname(reg), lookup(localnet), drop()))
	}
	// All packets come by here: what concerns a few is behind one look.
	rules = append(rules, join(iifname(reg), not(routed), accept()))
	for _, kind := range []byte{ndRouterSolicit, ndNeighbourSolicit, ndNeighbourAdvert} {
		rules = append(rules, join(isICMPv6(kind), accept())) // with link-local addresses, for the card alone
	}
	for _, f := range families() {
		rules = append(rules, join(f.is(), iifname(reg), f.saddr(after), not(source+f.suffix), drop()))
	}
	return rules
}

// translateRules change destinations. What comes from outside with a loopback address does so in order to reach what is published for the host alone. ::1 is
// left alone altogether: the kernel takes answers to it from the interface lo only, so that a translated connection would wait for ever instead of being refused.
func translateRules(outside bool) (rules []line) {
	for _, f := range families() {
		if outside || f.proto == unix.NFPROTO_IPV6 {
			rules = append(rules, join(f.is(), f.in(f.dest, f.loopback), accept()))
		}
		if outside {
			for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
				rules = append(rules, join(f.is(), l4proto(reg), equal(reg, []byte{p}), dport(reg), equal(reg, big16(53)), f.saddr(reg), find(resolve+f.suffix, reg), f.dnat(reg)))
			}
		}
		whole := join(f.is(), f.daddr(reg), l4proto(reg+f.size/4), dport(reg+f.size/4+1))
		rules = append(rules, join(whole, vmap(services+f.suffix)),
			join(whole, find(address+f.suffix, reg), f.dnat(reg)),
			join(f.is(), local(), l4proto(reg), dport(reg+1), find(anywhere+f.suffix, reg), f.dnat(reg)))
	}
	return rules
}

// masqueradeRules change sources: of what comes back over the card on which it arrived (the answer would not come by way of the host, or not be for it), and of
// what leaves.
func masqueradeRules() (rules []line) {
	for _, f := range families() {
		in := inside + f.suffix
		rules = append(rules,
			join(f.is(), f.in(f.source, f.loopback), f.daddr(reg), lookup(in), masquerade()),
			join(f.is(), f.saddr(reg), lookup(in), f.daddr(reg), lookup(in), dnatted(true), masquerade()))
		for _, set := range []string{masq + f.suffix, pools + f.suffix} {
			rules = append(rules, join(f.is(), f.saddr(reg), lookup(set), f.daddr(reg), not(in), not(pools+f.suffix), f.notMulticast(), masquerade()))
		}
	}
	return rules
}

// notMulticast compares the first byte of the destination.
func (f family) notMulticast() line {
	first := f.multicast.Addr().AsSlice()[:1]
	return join(payload(expr.PayloadBaseNetworkHeader, f.dest, 1, reg), line{&expr.Cmp{Op: expr.CmpOpLt, Register: reg, Data: first}})
}

// forwardRules see what the host forwards.
func forwardRules() (rules []line) {
	rules = append(rules, join(established(), accept()))
	// Of bridged packets, which br_netfilter shows here, neighbour discovery is looked at by the bridge's own rules. A routed one has less than 255 hops left.
	for _, kind := range []byte{ndNeighbourSolicit, ndNeighbourAdvert} {
		rules = append(rules, join(isICMPv6(kind), ipv6().is(), payload(expr.PayloadBaseNetworkHeader, 7, 1, reg), equal(reg, []byte{255}), accept()))
	}
	for _, f := range families() {
		in, iso := inside+f.suffix, isolated+f.suffix
		rules = append(rules,
			// Without a state it would leave with the source address that it has.
			join(f.is(), f.saddr(reg), lookup(in), invalidState(), drop()),
			join(f.is(), f.saddr(reg), lookup(iso), f.daddr(reg), lookup(in), dnatted(false), drop()),
			join(f.is(), f.daddr(reg), lookup(iso), f.saddr(reg), lookup(in), dnatted(false), drop()))
		for _, set := range []string{masq + f.suffix, pools + f.suffix} {
			rules = append(rules, join(f.is(), f.daddr(reg), lookup(set), f.saddr(reg), not(in), not(pools+f.suffix), dnatted(false), drop()))
		}
		rules = append(rules, join(f.is(), f.saddr(reg), vmap(egress+f.suffix)), join(f.is(), f.daddr(reg), vmap(ingress+f.suffix)))
	}
	return rules
}

// inputRules see what is for the host itself.
func inputRules() (rules []line) {
	rules = append(rules, join(established(), accept()))
	for _, kind := range []byte{ndRouterSolicit, ndNeighbourSolicit, ndNeighbourAdvert} {
		rules = append(rules, join(isICMPv6(kind), accept()))
	}
	for _, f := range families() {
		rules = append(rules, join(f.is(), f.saddr(reg), vmap(egress+f.suffix)))
	}
	return rules
}
