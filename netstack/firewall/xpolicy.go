//go:build linux

package firewall

import (
	"fmt"
	"slices"
)

// policies makes a chain for each direction that has rules, to which packets from and to the addresses come.
func (x *xlowering) policies() {
	p := x.r.Policy
	for _, c := range x.r.Cards {
		for _, a := range c.sources() {
			for _, to := range p.Resolver {
				if slices.Contains(c.Addrs, a) && a.Is4() == to.Addr().Is4() {
					x.ip(toolOf(a), "nat", "dns", "-s "+a.String()+" -p udp --dport 53", "DNAT --to-destination "+to.String())
					x.ip(toolOf(a), "nat", "dns", "-s "+a.String()+" -p tcp --dport 53", "DNAT --to-destination "+to.String())
				}
			}
			if p.Egress.any() {
				x.ip(toolOf(a), "filter", "fwd", "-s "+a.String(), xown(x.id, "e"))
				x.ip(toolOf(a), "filter", "input", "-s "+a.String(), xown(x.id, "e"))
			}
			if p.Ingress.any() {
				x.ip(toolOf(a), "filter", "fwd", "-d "+a.String(), xown(x.id, "i"))
			}
		}
	}
	if p.Egress.any() {
		x.direction("e", "-d ", Direction{append(resolverRules(p.Resolver), p.Egress.Rules...), p.Egress.Otherwise})
	}
	if p.Ingress.any() {
		x.direction("i", "-s ", p.Ingress)
	}
}

func (x *xlowering) direction(what, side string, d Direction) {
	for _, tool := range []string{ip4tables, ip6tables} {
		x.own(tool, "filter", what, "-p 6 ! --syn -j DROP") // see lowering.direction
		for _, r := range d.Rules {
			for _, peer := range r.xpeers(tool, side) {
				for _, ports := range r.xports() {
					x.own(tool, "filter", what, peer+ports+"-j "+r.Verdict.xtarget(tool))
				}
			}
		}
		x.own(tool, "filter", what, "-j "+d.Otherwise.xtarget(tool))
	}
}

// xpeers are the matches for the other side, of one family: one empty one if it may be anybody.
func (r Rule) xpeers(tool, side string) (list []string) {
	for _, p := range r.Peers {
		if toolOf(p.Addr()) == tool {
			list = append(list, side+p.Masked().String()+" ")
		}
	}
	if len(r.Peers) == 0 {
		return []string{""}
	}
	return list
}

func (r Rule) xports() (list []string) {
	if r.Protocol == 0 {
		return []string{""}
	}
	for _, p := range r.Ports {
		list = append(list, fmt.Sprintf("-p %d --dport %d:%d ", r.Protocol, p.First, p.Last))
	}
	if len(r.Ports) == 0 {
		return []string{fmt.Sprintf("-p %d ", r.Protocol)}
	}
	return list
}

func (v Verdict) xtarget(tool string) string {
	switch {
	case v == Allow:
		return "RETURN"
	case v == Drop:
		return "DROP"
	case tool == ip4tables:
		return "REJECT --reject-with icmp-admin-prohibited"
	}
	return "REJECT --reject-with icmp6-adm-prohibited"
}
