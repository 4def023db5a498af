// Cgroups measures what a control group costs: made, with limits of memory, CPU and processes, entered by a process, and deleted. It compares
// caisson with opencontainers/cgroups (runc's) and containerd/cgroups, interleaved, in one run, and then the reading of statistics.
//
//	cd bench && go run ./cgroups               back to back
//	cd bench && go run ./cgroups -pause 40ms   with pauses, in which the kernel's grace periods show
//
// Each contestant starts cat, lets it end, and waits for it; "alone" is that without a group. It needs root.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// contestant does one round in a way of its own.
type contestant struct {
	name  string
	round func(name string) error
}

func main() {
	rounds := flag.Int("n", 100, "rounds of each contestant")
	pause := flag.Duration("pause", 0, "time between two rounds")
	flag.Parse()
	if err := run(*rounds, *pause); err != nil {
		fmt.Fprintln(os.Stderr, "cgroups:", err)
		os.Exit(1)
	}
}

func run(rounds int, pause time.Duration) error {
	fmt.Printf("create, limit memory, cpu and pids, enter, delete (%d rounds, pause %v)\n", rounds, pause)
	if err := compare(rounds, pause, starters()); err != nil {
		return err
	}
	readers, done, err := readers()
	if err != nil {
		return err
	}
	defer done()
	fmt.Printf("\nstatistics of a group (%d rounds)\n", rounds*5)
	return compare(rounds*5, 0, readers)
}

// compare lets the contestants take turns, and prints their times.
func compare(rounds int, pause time.Duration, all []contestant) error {
	times := make([][]time.Duration, len(all))
	for n := range rounds + 3 {
		for i, c := range all {
			time.Sleep(pause)
			begin := time.Now()
			if err := c.round(fmt.Sprintf("caisson-bench-%d-%d", os.Getpid(), n)); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if n >= 3 { // the first rounds fill caches
				times[i] = append(times[i], time.Since(begin))
			}
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tmedian\t90 %\tbest\t")
	for i, c := range all {
		slices.Sort(times[i])
		at := func(percent int) time.Duration {
			return times[i][(len(times[i])-1)*percent/100].Round(time.Microsecond / 10)
		}
		fmt.Fprintf(w, "%s\t%v\t%v\t%v\t\n", c.name, at(50), at(90), at(0))
	}
	return w.Flush()
}
