//go:build linux

// Netstack measures what a network of its own adds to the start of a sandbox, in a network namespace that stands for the host's: nothing is changed on the machine itself.
//
//	cd bench && go run ./netstack              starts with different networks, and containernetworking's plugins, where they are installed
//	cd bench && go run ./netstack -many 1000   does setting up the last of so many take longer than the first? And by hand, with ip?
//	cd bench && go run ./netstack -throughput 5s -n 9   through bridge and NAT, against the same made with ip and nft, by iperf3 (packages iperf3, iproute2, nftables)
//	cd bench && go run ./netstack -limits 5s -n 3       are limits of bandwidth kept?
//
// The times are medians, and do not contain what it takes to end the sandbox. It needs root.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/plan"
)

func main() {
	rounds := flag.Int("n", 60, "starts of each kind")
	many := flag.Int("many", 0, "so many sandboxes at once, instead")
	unchecked := flag.Bool("unchecked", false, "with -many: without rules")
	pause := flag.Duration("pause", 30*time.Millisecond, "time between two starts, in which the kernel takes old networks apart")
	throughput := flag.Duration("throughput", 0, "how long to send in each round, instead")
	limits := flag.Duration("limits", 0, "how long to send against each limit, instead")
	flag.Parse()
	b := &bench{rounds: *rounds, pause: *pause, unchecked: *unchecked}
	what := b.kinds
	switch {
	case *many > 0:
		what = func() error { return b.many(*many) }
	case *throughput > 0:
		what = func() error { return b.throughput(*throughput) }
	case *limits > 0:
		what = func() error { return b.limits(*limits) }
	}
	if err := b.run(what); err != nil {
		fmt.Fprintln(os.Stderr, "netstack:", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds    int
	pause     time.Duration
	state     string
	unchecked bool
}

func (b *bench) run(what func() error) (err error) {
	if b.state, err = os.MkdirTemp("/dev/shm", "netstack"); err != nil {
		return err
	}
	defer os.RemoveAll(b.state)
	runtime.LockOSThread() // sandboxes are started from the namespace that this thread is in
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return what()
}

// bridge is a card with masquerading, and nothing else that differs.
func (b *bench) bridge() netstack.Bridge {
	return netstack.Bridge{State: b.state, Masquerade: !b.unchecked, Unchecked: b.unchecked}
}

func (b *bench) kinds() error {
	keep, err := started(b.bridge()) // as on a host on which something runs already
	if err != nil {
		return err
	}
	defer end(keep)
	stock, err := netstack.NewPool(4, b.bridge())
	if err != nil {
		return err
	}
	defer stock.Close()
	published := b.bridge()
	published.Publish = []netstack.Port{{Port: 8080, To: 80}}
	kinds := []struct {
		name string
		part plan.Primitive
	}{{"the host's network", netstack.Host{}}, {"loopback only", netstack.None{}}, {"bridge, without rules", netstack.Bridge{State: b.state, Unchecked: true}},
		{"bridge, masquerade, a port", published}, {"ready-made", stock}}
	times := make([][]time.Duration, len(kinds))
	for range b.rounds {
		for i, k := range kinds {
			d, err := b.round(k.part)
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			times[i] = append(times[i], d)
		}
	}
	for i, k := range kinds {
		fmt.Printf("%-28s %6.2f ms   added %6.2f ms   least added %6.2f ms\n", k.name, ms(median(times[i])), ms(median(times[i])-median(times[0])),
			ms(slices.Min(times[i])-slices.Min(times[0])))
	}
	return b.plugins()
}

func started(part plan.Primitive) (*caisson.Cmd, error) {
	c := caisson.New(part).Command("/bin/sleep", "1000")
	return c, c.Start()
}

func end(c *caisson.Cmd) {
	c.Process.Kill()
	c.Wait()
}

func (b *bench) round(part plan.Primitive) (time.Duration, error) {
	time.Sleep(b.pause)
	c := caisson.New(part).Command("/bin/true")
	begin := time.Now()
	err := c.Start()
	d := time.Since(begin)
	if err != nil {
		return 0, err
	}
	return d, c.Wait()
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
