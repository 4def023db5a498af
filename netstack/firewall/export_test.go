//go:build linux

package firewall

import (
	"net/netip"
	"time"
)

// OnStep has f called before each step that changes something.
func OnStep(fw *Firewall, f func(string)) { fw.step = f }

// WithPrograms chooses programs: "legacy-" is iptables-legacy-restore and so on.
func WithPrograms(h Host, ip, bridge string) Host {
	h.variants = map[string][]string{ip4tables: {ip}, ip6tables: {ip}, ebtables: {bridge}}
	return h
}

// Pin does what a Resolver does that has heard an address for a name.
func Pin(h *Held, name string, a netip.Addr, d time.Duration) error {
	_, sets, _ := h.f.setsFor(first1(h.rules), name, a.Is4())
	return h.pin(sets, []netip.Addr{a}, d)
}

func first1(r Rules) netip.Addr { return r.Cards[0].Addrs[0] }

// WithoutBridgeNetfilter has the firewall find no br_netfilter.
func WithoutBridgeNetfilter(fw *Firewall) { fw.x.shown = "sys/net/bridge/missing" }
