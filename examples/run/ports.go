//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/firewall"
)

// parsePort reads docker run's [ADDRESS:][PORT[-LAST]:]PORT[-LAST][/PROTOCOL]. Without a port of the host, or with 0, the host chooses one.
func parsePort(s string) (p netstack.Port, err error) {
	rest, proto, given := strings.Cut(s, "/")
	if given {
		if p.Protocol, err = parseProtocol(proto); err != nil {
			return p, err
		}
	}
	host, inside := "", rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, inside = rest[:i], rest[i+1:]
	}
	if p.Addr, host, err = hostAddress(host); err != nil {
		return p, err
	}
	to, toLast, err := parseRange(inside)
	if err != nil || to == 0 {
		return p, errors.Join(err, invalidIf(to == 0 && err == nil, "a port of the sandbox is missing"))
	}
	p.To = to
	if host == "" {
		return p, invalidIf(toLast != 0, "a range needs one of the host, too")
	}
	if p.Port, p.Last, err = parseRange(host); err != nil {
		return p, err
	}
	return p, invalidIf(length(p.Port, p.Last) != length(to, toLast), "the ranges are not of the same length")
}

// expose reads docker run's PORT[-LAST][/PROTOCOL].
func (n *network) expose(s string) error {
	ports, proto, given := strings.Cut(s, "/")
	p, err := firewall.TCP, error(nil)
	if given {
		if p, err = parseProtocol(proto); err != nil {
			return err
		}
	}
	first, last, err := parseRange(ports)
	if err != nil || first == 0 {
		return errors.Join(err, invalidIf(err == nil, "port 0"))
	}
	for to := int(first); to <= int(max(first, last)); to++ {
		n.exposed = append(n.exposed, netstack.Port{Protocol: p, To: uint16(to)})
	}
	return nil
}

// published is all that the sandbox publishes: with --publish-all also what is exposed, but for what has a port of the host's already.
func (n *network) published() []netstack.Port {
	all := slices.Clone(n.publish)
	if !n.all {
		return all
	}
	for _, p := range n.exposed {
		if !slices.ContainsFunc(all, func(q netstack.Port) bool { return leadsTo(q, p) }) {
			all = append(all, p)
		}
	}
	return all
}

// leadsTo reports whether a published port, or one of a range, is the exposed one inside.
func leadsTo(q, exposed netstack.Port) bool {
	first := q.To
	if first == 0 {
		first = q.Port
	}
	in := exposed.To >= first && int(exposed.To) <= int(first)+length(q.Port, q.Last)
	return in && max(q.Protocol, firewall.TCP) == exposed.Protocol
}

func parseProtocol(s string) (firewall.Protocol, error) {
	for name, p := range map[string]firewall.Protocol{"tcp": firewall.TCP, "udp": firewall.UDP, "sctp": firewall.SCTP} {
		if name == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("not one of tcp, udp, sctp: %q", s)
}

// hostAddress takes the address off what is said of the host; left is the port.
func hostAddress(s string) (addr netip.Addr, port string, err error) {
	i := strings.LastIndexByte(s, ':')
	if strings.HasSuffix(s, "]") {
		i = len(s)
	}
	if i < 0 {
		return addr, s, nil
	}
	addr, err = netip.ParseAddr(strings.Trim(s[:i], "[]"))
	return addr, s[min(i+1, len(s)):], err
}

// parseRange reads PORT or PORT-LAST; last is 0 without one.
func parseRange(s string) (first, last uint16, err error) {
	a, b, given := strings.Cut(s, "-")
	if first, err = parsePortNumber(a); err != nil || !given {
		return first, 0, err
	}
	last, err = parsePortNumber(b)
	return first, last, errors.Join(err, invalidIf(err == nil && last < first, "a range that ends before it begins"))
}

func parsePortNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || s != strconv.FormatUint(n, 10) {
		return 0, fmt.Errorf("not a port: %q", s)
	}
	return uint16(n), nil
}

func length(first, last uint16) int { return max(int(last)-int(first), 0) }

func invalidIf(bad bool, text string) error {
	if bad {
		return errors.New(text)
	}
	return nil
}
