//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/netstack"
)

// way is a sandbox, or what stands for one, that iperf3(1) can be run in.
type way struct {
	name string
	run  func(f flow, d time.Duration) (string, error)
}

// byHand makes what a Bridge with Masquerade and a published port makes, with ip(8) and nft(8), on a host of its own.
func byHand(rules string) (way, []*space, error) {
	host, outside, err := connected()
	if err != nil {
		return way{}, nil, err
	}
	spaces := []*space{host, outside}
	box, err := newSpace()
	if err != nil {
		return way{}, spaces, err
	}
	spaces = append(spaces, box)
	err = host.script(strings.ReplaceAll(`echo 1 > /proc/sys/net/ipv4/ip_forward
ip link add br0 address 02:00:00:00:00:01 type bridge
ip addr add 10.77.0.1/16 dev br0
ip link set br0 up
ip link add v0 type veth peer name eth0 address 02:00:00:00:00:02 netns BOX
ip link set v0 master br0 up`, "BOX", box.pid()))
	if err == nil {
		err = box.script("ip addr add 10.77.0.2/16 dev eth0; ip link set eth0 up; ip route add default via 10.77.0.1")
	}
	if err == nil && rules != "" {
		c := host.command("nft", "-f", "-")
		c.Stdin = strings.NewReader(rules)
		_, err = output(c)
	}
	return way{"", func(f flow, d time.Duration) (string, error) {
		out, err := box.command(append([]string{"iperf3"}, f.args(d)...)...).Output()
		return string(out), whole(out, err)
	}}, spaces, err
}

// What nft(8) makes by hand: the least for NAT, and the same with what Bridge sees to, in the same hooks: the sandbox sends with its own MAC and addresses only, and what comes from outside is for the published port.
const (
	plainRules = `table ip nat {
	chain pre { type nat hook prerouting priority dstnat; fib daddr type local tcp dport 8080 dnat to 10.77.0.2:80; }
	chain out { type nat hook output priority -100; fib daddr type local tcp dport 8080 dnat to 10.77.0.2:80; }
	chain post { type nat hook postrouting priority srcnat; ip saddr 10.77.0.2 oifname != "br0" masquerade; }
}
`
	strictRules = plainRules + `table bridge filter {
	set mac { type ifname . ether_addr; elements = { "v0" . 02:00:00:00:00:02 }; }
	set source4 { type ifname . ipv4_addr; elements = { "v0" . 10.77.0.2 }; }
	map entry { type ifname : verdict; elements = { "v0" : jump check }; }
	chain check {
		iifname . ether saddr != @mac drop
		ether type ip iifname . ip saddr @source4 return
		ether type arp iifname . arp saddr ip @source4 return
		drop
	}
	chain arrived {
		type filter hook prerouting priority -300;
		iifname vmap @entry
	}
	chain to-host { type filter hook input priority -300; ether type { ip, ip6, arp } accept; }
	chain forwarded { type filter hook forward priority -300; }
}
table inet filter {
	set inside4 { type ipv4_addr; elements = { 10.77.0.2 }; }
	chain forward {
		type filter hook forward priority -10;
		ct state established,related accept
		ip saddr @inside4 accept
		ip daddr @inside4 ct status dnat accept
		ip daddr @inside4 drop
	}
}
`
)

// own is a sandbox of ours, started by the calling thread on the host that it is in.
func (b *bench) own() (way, []*space, error) {
	outside, err := newSpace()
	if err != nil {
		return way{}, nil, err
	}
	if _, err = output(exec.Command("sh", "-ec", "ip link add up0 type veth peer name up0 netns "+outside.pid()+"; ip addr add 192.0.2.9/24 dev up0; ip link set up0 up")); err == nil {
		err = outside.script("ip addr add 192.0.2.1/24 dev up0; ip link set up0 up")
	}
	if err == nil {
		err = outside.serve()
	}
	part := netstack.Bridge{State: b.state, Masquerade: true, Subnets: netstack.DefaultSubnets()[:1], Publish: []netstack.Port{{Port: 8080, To: 80}}}
	return way{"caisson", func(f flow, d time.Duration) (string, error) { return iperf(part, f, d) }}, []*space{outside}, err
}

func iperf(part netstack.Bridge, f flow, d time.Duration) (string, error) {
	out, err := caisson.New(part).Command("iperf3", f.args(d)...).Output()
	return string(out), whole(out, err)
}

// whole makes the error of iperf3(1) say what it has printed.
func whole(out []byte, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// throughput sends through NAT to a server outside and back, one way after the other, in turns.
func (b *bench) throughput(d time.Duration) error {
	for _, tool := range []string{"iperf3", "ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	var ways []way
	for _, make := range []func() (way, []*space, error){b.own, func() (way, []*space, error) { return byHand(strictRules) }, func() (way, []*space, error) { return byHand(plainRules) }} {
		w, spaces, err := make()
		for _, s := range spaces {
			defer s.end()
		}
		if err != nil {
			return err
		}
		ways = append(ways, w)
	}
	ways[1].name, ways[2].name = "by hand, the same rules", "by hand, NAT only"
	for _, f := range []flow{{name: "TCP to outside"}, {name: "TCP from outside", receive: true}, {name: "UDP to outside", udp: true}, {name: "UDP from outside", udp: true, receive: true}} {
		if err := b.compare(f, d, ways); err != nil {
			return err
		}
	}
	return nil
}

// compare prints the medians of one kind of flow, and the medians of the rounds' ratios to the first: neighbours in time share what else the machine does.
func (b *bench) compare(f flow, d time.Duration, ways []way) error {
	rates := make([][]float64, len(ways))
	for n := range b.rounds {
		for i := range ways {
			k := (i + n) % len(ways)
			text, err := ways[k].run(f, d)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", f.name, ways[k].name, err)
			}
			rate, _, err := received(text, f.udp)
			if err != nil {
				return err
			}
			rates[k] = append(rates[k], rate)
		}
	}
	for i, w := range ways {
		line := fmt.Sprintf("%-18s %-26s %8.3f Gbit/s", f.name, w.name, middle(rates[i])/1e9)
		if i > 0 {
			var ratios []float64
			for n := range rates[i] {
				ratios = append(ratios, rates[0][n]/rates[i][n])
			}
			line += fmt.Sprintf("   caisson is %.3f of it", middle(ratios))
		}
		fmt.Fprintln(os.Stdout, line)
	}
	return nil
}

func middle(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
