//go:build linux

package main

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caisson-dev/caisson/cgroups"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/firewall"
)

// parseBandwidth reads RATE for both directions, bytes in a second, and what follows by name: in=RATE, out=RATE, latency=TIME, delay=TIME, jitter=TIME and loss=PERCENT.
func parseBandwidth(s string) (b netstack.Bandwidth, err error) {
	for i, part := range strings.Split(s, ",") {
		name, text, named := strings.Cut(part, "=")
		if i == 0 && !named {
			name, text = "both", part
		}
		if err := setTraffic(&b, name, text); err != nil {
			return b, err
		}
	}
	if b.Receive.Bytes == 0 {
		b.Receive.Latency = 0
	}
	if b.Send.Bytes == 0 {
		b.Send.Latency = 0
	}
	return b, invalidIf(strings.Contains(s, "latency=") && b.Receive.Bytes == 0 && b.Send.Bytes == 0, "latency goes with a rate")
}

// setTraffic sets what has a name.
func setTraffic(b *netstack.Bandwidth, name, text string) (err error) {
	switch name {
	case "in", "out", "both":
		n, err := cgroups.ParseBytes(text)
		if err != nil || n <= 0 {
			return errors.Join(errors.New("not a rate: "+strconv.Quote(text)), err)
		}
		if name != "out" {
			b.Receive.Bytes = n
		}
		if name != "in" {
			b.Send.Bytes = n
		}
	case "latency":
		b.Receive.Latency, err = positive(text)
		b.Send.Latency = b.Receive.Latency
	case "delay":
		b.ReceiveDelay.Time, err = positive(text)
		b.SendDelay.Time = b.ReceiveDelay.Time
	case "jitter":
		b.ReceiveDelay.Jitter, err = positive(text)
		b.SendDelay.Jitter = b.ReceiveDelay.Jitter
	case "loss":
		percent, e := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
		if e != nil || !(percent > 0 && percent <= 100) {
			return errors.New("not a percentage: " + strconv.Quote(text))
		}
		b.ReceiveDelay.Loss, b.SendDelay.Loss = percent/100, percent/100
	default:
		return errors.New("not RATE, or some of in=RATE,out=RATE,latency=TIME,delay=TIME,jitter=TIME,loss=PERCENT")
	}
	return err
}

func positive(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	return d, errors.Join(err, invalidIf(err == nil && d <= 0, "not a time: "+strconv.Quote(text)))
}

// parseEgress reads PEER[:PORT[-LAST][/PROTOCOL]]: a name, *.NAME, an address or a network. IPv6 is in brackets where a port follows.
func parseEgress(s string) (r firewall.Rule, err error) {
	peer, rest, ported := strings.Cut(s, ":")
	switch end := strings.IndexByte(s, ']'); {
	case strings.HasPrefix(s, "[") && end > 0:
		peer = s[1:end]
		if rest, ported = strings.CutPrefix(s[end+1:], ":"); !ported && rest != "" {
			return r, errors.New("what is " + strconv.Quote(rest) + "?")
		}
	case strings.Contains(rest, ":"):
		peer, ported = s, false
	}
	if p, err := parseAddress(peer); err == nil {
		r.Peers = []netip.Prefix{p.Masked()}
	} else if strings.ContainsAny(peer, "/:[] ") || peer == "" {
		return r, errors.New("not a name, an address or a network: " + strconv.Quote(peer))
	} else {
		r.Names = []string{peer}
	}
	if !ported {
		return r, nil
	}
	ports, proto, given := strings.Cut(rest, "/")
	if r.Protocol = firewall.TCP; given {
		if r.Protocol, err = parseProtocol(proto); err != nil {
			return r, err
		}
	}
	first, last, err := parseRange(ports)
	r.Ports = []firewall.PortRange{{First: first, Last: max(first, last)}}
	return r, errors.Join(err, invalidIf(err == nil && first == 0, "port 0"))
}

// policy allows what --egress says, and nothing else. Names are asked for by this program, of --dns or of the host's own nameservers.
func (n *network) policy() (p netstack.Policy, r netstack.Resolver, err error) {
	if len(n.egress) == 0 {
		return p, r, nil
	}
	p.Egress = firewall.Direction{Rules: n.egress, Otherwise: firewall.Reject}
	if !slices.ContainsFunc(n.egress, func(r firewall.Rule) bool { return len(r.Names) > 0 }) {
		return p, r, nil
	}
	servers := n.resolv.Nameservers
	if servers == nil {
		text, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			return p, r, err
		}
		servers = netstack.ParseResolv(text).Nameservers
	}
	for _, a := range servers {
		r.Upstream = append(r.Upstream, netip.AddrPortFrom(a, 53))
	}
	if len(r.Upstream) == 0 {
		return p, r, errors.New("--egress with names needs a nameserver: --dns")
	}
	return p, r, nil
}
