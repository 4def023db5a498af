//go:build linux

package main

import (
	"net/netip"
	"os/exec"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/firewall"
)

func TestParseBandwidth(t *testing.T) {
	line := netstack.Delay{Time: 50 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.01}
	for text, want := range map[string]netstack.Bandwidth{
		"10m":                             {Receive: netstack.Rate{Bytes: 10 << 20}, Send: netstack.Rate{Bytes: 10 << 20}},
		"in=1k,out=2k":                    {Receive: netstack.Rate{Bytes: 1 << 10}, Send: netstack.Rate{Bytes: 2 << 10}},
		"out=2k,latency=1s":               {Send: netstack.Rate{Bytes: 2 << 10, Latency: time.Second}},
		"1k,delay=50ms,jitter=5ms,loss=1": {Receive: netstack.Rate{Bytes: 1 << 10}, Send: netstack.Rate{Bytes: 1 << 10}, ReceiveDelay: line, SendDelay: line},
		"loss=100%":                       {ReceiveDelay: netstack.Delay{Loss: 1}, SendDelay: netstack.Delay{Loss: 1}},
	} {
		if got, err := parseBandwidth(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "0", "-1", "x", "in=", "up=1k", "1k,2k", "latency=1s", "delay=0s", "delay=5", "1k,latency=-1s", "loss=0", "loss=101", "loss=NaN", "loss=x%", "1k,", ",1k"} {
		if got, err := parseBandwidth(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestParseEgress(t *testing.T) {
	ports := func(first, last uint16) []firewall.PortRange { return []firewall.PortRange{{First: first, Last: last}} }
	for text, want := range map[string]firewall.Rule{
		"example.com":          {Names: []string{"example.com"}},
		"*.example.com:443":    {Names: []string{"*.example.com"}, Protocol: firewall.TCP, Ports: ports(443, 443)},
		"10.1.2.3/8:53-54/udp": {Peers: firewall.Prefixes("10.0.0.0/8"), Protocol: firewall.UDP, Ports: ports(53, 54)},
		"192.0.2.1":            {Peers: firewall.Prefixes("192.0.2.1")},
		"2001:db8::/32":        {Peers: firewall.Prefixes("2001:db8::/32")},
		"[2001:db8::1]:80":     {Peers: firewall.Prefixes("2001:db8::1"), Protocol: firewall.TCP, Ports: ports(80, 80)},
		"[2001:db8::1]":        {Peers: firewall.Prefixes("2001:db8::1")},
	} {
		if got, err := parseEgress(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", ":80", "x:", "x:0", "x:80/icmp", "x:80-79", "10.0.0.0/33", "[x", "[2001:db8::1]80", "a b", "x:80:81"} {
		if got, err := parseEgress(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	if _, err := parse([]string{"--network", "none", "--egress", "x", "y"}); err == nil || !strings.Contains(err.Error(), "goes with --network bridge") {
		t.Error(err)
	}
}

func TestEgressPolicy(t *testing.T) {
	f, err := parse(strings.Fields("--network bridge --dns 192.0.2.1 --egress example.com:443 --egress 192.0.2.0/24 x"))
	must(t, err)
	p, r, err := f.network.policy()
	must(t, err)
	if len(p.Egress.Rules) != 2 || p.Egress.Otherwise != firewall.Reject || !reflect.DeepEqual(r.Upstream, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}) {
		t.Errorf("%+v %+v", p, r)
	}
	if p, r, err = (&network{}).policy(); err != nil || !reflect.DeepEqual(p, netstack.Policy{}) || r.Upstream != nil {
		t.Error(p, r, err)
	}
}

// TestEgress: a sandbox reaches what it may, by name, and nothing else.
func TestEgress(t *testing.T) {
	l := alone(t)
	l.serving(t, "--network", "bridge", "--ip", "10.77.0.50", "--hostname", "web")
	l.serving(t, "--network", "bridge", "--ip", "10.77.0.51", "--hostname", "db")
	flags := []string{"--rootfs", t.TempDir(), "--network", "bridge", "--dns", "192.0.2.1", "--egress", "web:80"}
	if o := l.try(t, in(flags, "ask", "web:80")...); !strings.HasPrefix(o.stdout, "hello ") {
		t.Fatal(o)
	}
	for _, other := range []string{"10.77.0.51:80", "db:80"} {
		if o := l.try(t, in(flags, "ask", other)...); o.code != 1 || strings.Contains(o.stdout, "hello") {
			t.Fatal(other, o)
		}
	}
	if o := l.try(t, in(append(flags, "--egress", "10.77.0.51:80"), "ask", "10.77.0.51:80")...); !strings.HasPrefix(o.stdout, "hello ") {
		t.Fatal(o)
	}
}

// TestBandwidthFlag: what is said of it stands at the host's end of the cable.
func TestBandwidthFlag(t *testing.T) {
	tc, err := exec.LookPath("tc")
	if err != nil {
		t.Skip("needs tc(8): package iproute2")
	}
	l := alone(t)
	l.serving(t, "--network", "bridge", "--bandwidth", "in=1m,latency=1s")
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(l.holder.Process.Pid), "-n", "--", tc, "qdisc", "show").CombinedOutput()
	must(t, err)
	if !strings.Contains(string(out), "qdisc tbf 1: dev cs") || !strings.Contains(string(out), "lat 1s") {
		t.Fatal(string(out))
	}
}
