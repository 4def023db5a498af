// Firewall measures what package netstack/firewall costs: rules of one sandbox (bridge, masquerade, a published port) put in and taken out, alone and among many, beside the
// same change made by an nft process; and a stream of TCP through bridge and translation, beside rules written by hand. It needs root, and nft (Debian's package nftables).
//
//	cd bench && go run ./netstack/firewall
//	cd bench && go run ./netstack/firewall -crowd 1000 -time 2s
//
// Everything is done in network namespaces of its own.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

func main() {
	rounds := flag.Int("n", 100, "rounds")
	crowd := flag.Int("crowd", 900, "sandboxes on the bridge; a bridge has 1023 ports")
	length := flag.Duration("time", time.Second, "length of one stream")
	flag.Parse()
	if err := run(*rounds, *crowd, *length); err != nil {
		fmt.Fprintln(os.Stderr, "firewall:", err)
		os.Exit(1)
	}
}

func run(rounds, crowd int, length time.Duration) error {
	w, err := newWorld()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/run", "firewall") // where the real one is, in memory
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return w.host.in(func() error {
		fw, err := firewall.Host{Dir: dir, Forward: true}.Open()
		if err != nil {
			return err
		}
		defer fw.Close()
		if err := changes(w, fw, rounds, crowd); err != nil {
			return err
		}
		return streams(w, fw, length)
	})
}

// changes puts rules in and takes them out.
func changes(w *world, fw *firewall.Firewall, rounds, crowd int) error {
	keep, err := fw.Add("keep", firewall.Rules{}) // so that the tables stay
	if err != nil {
		return err
	}
	defer keep.Remove()
	one := w.rules(0)
	if err := show("caisson, alone", rounds, func() error { return addRemove(fw, one) }); err != nil {
		return err
	}
	if err := show("nft process, alone", rounds/4, nftAddRemove); err != nil {
		return err
	}
	var others []*firewall.Held
	for i := 1; i < crowd; i++ {
		if err := w.card(i); err != nil {
			return err
		}
		h, err := fw.Add(fmt.Sprint("other", i), w.rules(i))
		if err != nil {
			return err
		}
		others = append(others, h)
	}
	if err := show(fmt.Sprintf("caisson, among %d", crowd), rounds, func() error { return addRemove(fw, one) }); err != nil {
		return err
	}
	for _, h := range others {
		if err := h.Remove(); err != nil {
			return err
		}
	}
	return nil
}

// adding collects the times of Add alone.
var adding []time.Duration

func addRemove(fw *firewall.Firewall, r firewall.Rules) error {
	began := time.Now()
	h, err := fw.Add("one", r)
	if err != nil {
		return err
	}
	adding = append(adding, time.Since(began))
	return h.Remove()
}

func show(name string, rounds int, round func() error) error {
	adding = nil
	var times []time.Duration
	for range rounds {
		began := time.Now()
		if err := round(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		times = append(times, time.Since(began))
	}
	fmt.Printf("%-24s in and out %8v", name, median(times))
	if adding != nil {
		fmt.Printf(", in %8v", median(adding))
	}
	fmt.Println()
	return nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2].Round(time.Microsecond)
}
