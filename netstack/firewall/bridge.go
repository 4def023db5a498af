//go:build linux

package firewall

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Types of ICMPv6 messages (icmpv6(7), RFC 4861, RFC 3810).
const (
	mldReport          = 131
	mldDone            = 132
	ndRouterSolicit    = 133
	ndRouterAdvert     = 134
	ndNeighbourSolicit = 135
	ndNeighbourAdvert  = 136
	ndRedirect         = 137
	mldReport2         = 143
)

// bridgeChains are the chains of the table of family bridge. The first three are no base chains: they have no hook.
func bridgeChains() []base {
	return []base{
		{name: "check", rules: checkRules()},
		{name: "check-mac", rules: []line{join(iifname(reg), payload(expr.PayloadBaseLLHeader, 6, 6, after), not(mac), drop()), jump("check")}},
		{name: "steer", rules: steerRules()},
		{"arrived", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -300, arrivedRules()},
		{"to-host", nftables.ChainTypeFilter, nftables.ChainHookInput, -300, controlRules()},
		{"forwarded", nftables.ChainTypeFilter, nftables.ChainHookForward, -300, bridgedRules()},
	}
}

// arrivedRules see each frame where it enters a bridge.
func arrivedRules() []line {
	rules := []line{
		join(iifname(reg), vmap(entry)),
		join(iifname(reg), etherDest(after), lookup(hosts), forHost()),
		discovery(ndNeighbourSolicit, accept()), discovery(ndNeighbourAdvert, accept()),
		join(payload(expr.PayloadBaseLLHeader, 0, 1, reg), line{&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{1}, Xor: []byte{0}}},
			equal(reg, []byte{1}), accept()), // multicast and broadcast, which [bridgedRules] look at
	}
	for _, f := range families() {
		rules = append(rules, join(f.isEther(), iifname(reg), lookup(steered), jump("steer")),
			join(f.isEther(), f.daddr(reg), lookup(steered+f.suffix), jump("steer")))
	}
	return rules
}

func discovery(kind byte, then line) line { return join(ipv6().isEther(), isICMPv6(kind), then) }

// checkRules see frames of sandboxes, which say whatever they like about where they come from.
func checkRules() []line {
	v4, v6 := ipv4(), ipv6()
	unspecified := make([]byte, 16)
	rules := []line{
		join(v4.isEther(), iifname(reg), v4.saddr(after), lookup(source+"4"), back()), // most frames are done with here
		// The sender's address of an ARP packet; a probe has none (RFC 5227).
		join(etherType(unix.ETH_P_ARP), iifname(reg), payload(expr.PayloadBaseNetworkHeader, 14, 4, after), lookup(source+"4"), back()),
		join(etherType(unix.ETH_P_ARP), payload(expr.PayloadBaseNetworkHeader, 14, 4, reg), equal(reg, unspecified[:4]), back()),
		discovery(ndRouterAdvert, drop()),
		discovery(ndRedirect, drop()),
		// The address that a neighbour advertisement is about.
		join(v6.isEther(), isICMPv6(ndNeighbourAdvert), iifname(reg), payload(expr.PayloadBaseTransportHeader, 8, 16, after), not(source+"6"), drop()),
		join(v6.isEther(), iifname(reg), v6.saddr(after), lookup(source+"6"), back()),
	}
	// Who has no address yet looks whether it is free, and joins groups.
	for _, kind := range []byte{ndNeighbourSolicit, mldReport, mldReport2, mldDone} {
		rules = append(rules, join(v6.isEther(), v6.saddr(reg), equal(reg, unspecified), isICMPv6(kind), back()))
	}
	return append(rules, drop())
}

// steerRules hand a frame to the host instead of its neighbour: it is routed, and comes by where policies are.
func steerRules() []line {
	return []line{join(iifname(reg), find(routers, reg),
		line{&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: reg, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: 6}}, forHost(), accept())}
}

func etherDest(to uint32) line { return payload(expr.PayloadBaseLLHeader, 0, 6, to) }

// forHost notes that the frame is for the host: else its IP stack would not take it, because the card that it came by has another MAC than the bridge.
func forHost() line {
	return line{&expr.Immediate{Register: reg, Data: []byte{unix.PACKET_HOST}},
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: reg}}
}

// isForHost matches frames that were noted so.
func isForHost() line {
	return join(line{&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: reg}}, equal(reg, []byte{unix.PACKET_HOST}))
}

// controlRules see what the bridge itself would take, such as frames of the spanning tree, which do not come by arrivedRules.
func controlRules() []line {
	rules := []line{}
	for _, t := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP} {
		rules = append(rules, join(etherType(t), accept()))
	}
	return append(rules, join(iifname(reg), lookup(cards), drop()))
}

// bridgedRules see what goes from one port of a bridge to another. Where br_netfilter is in force, which shows bridged frames to the filters of IP, a packet that was addressed to the host and is translated
// to a neighbour's address comes by here instead of being routed: for the host once, but no longer with its MAC. It comes by the chain forwarded of family inet, too.
func bridgedRules() []line {
	return []line{
		join(isForHost(), iifname(reg), etherDest(after), not(hosts), accept()),
		join(iifname(reg), oifname(after), lookup(echo), drop()),
		join(iifname(reg), lookup(isolated), oifname(reg), lookup(cards), drop()),
		join(oifname(reg), lookup(isolated), iifname(reg), lookup(cards), drop()),
		join(etherType(unix.ETH_P_ARP), accept()),
		discovery(ndNeighbourSolicit, accept()), discovery(ndNeighbourAdvert, accept()),
		join(iifname(reg), lookup(steered), drop()),
		join(oifname(reg), lookup(steered), drop()),
	}
}
