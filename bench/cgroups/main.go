// Cgroups measures what a control group costs: made, with limits of memory, CPU and processes, entered by a process, and deleted. It compares
// caisson with opencontainers/cgroups (runc's) and containerd/cgroups, interleaved, in one run, and then the reading of statistics.
//
//	cd bench && go run ./cgroups               back to back
//	cd bench && go run ./cgroups -pause 40ms   with pauses, in which the kernel's grace periods show
//
// Each contestant starts cat, exchanges a line with it, lets it end, and waits for it; "alone" is that without a group, and "more" is what a group adds
// to it. Neither of the other two starts a process in a group. So whoever wants the limits to hold from the beginning has to hold the process
// back until it has been moved, as cat here, and runc's init, which wait for input: their work cannot be done while the process starts. Both make a group in all hierarchies of
// version 1 (opencontainers/cgroups not in those of cpuset and devices here: it is told to skip the devices), which is what they do unless they are told otherwise.
//
// "the calls in C" are timed each on its own, without a process's start, in calls/calls.c: those that caisson makes for a group, and those that it takes to do the same as opencontainers/cgroups does. No library
// on the same hierarchies can be faster than the kernel's part of them. That needs gcc and version 1 of control groups.
//
// It needs root.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
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
	only := flag.String("only", "", "this contestant alone, to be looked at by strace(1)")
	flag.Parse()
	if err := run(*rounds, *pause, *only); err != nil {
		fmt.Fprintln(os.Stderr, "cgroups:", err)
		os.Exit(1)
	}
}

func run(rounds int, pause time.Duration, only string) error {
	if only != "" {
		all := slices.DeleteFunc(starters(), func(c contestant) bool { return c.name != only })
		return compare(rounds, pause, all)
	}
	fmt.Printf("create, limit memory, cpu and pids, enter, delete (%d rounds, pause %v)\n", rounds, pause)
	if err := compare(rounds, pause, starters()); err != nil {
		return err
	}
	if err := calls(rounds); err != nil {
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
	report(all, times)
	return nil
}

// report prints the times, and how much more than the same starter's process alone.
func report(all []contestant, times [][]time.Duration) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer w.Flush()
	fmt.Fprintln(w, "\tmedian\t90 %\tbest\tmore\t")
	alone := map[bool]time.Duration{}
	for i, c := range all {
		slices.Sort(times[i])
		at := func(percent int) time.Duration {
			return times[i][(len(times[i])-1)*percent/100].Round(time.Microsecond / 10)
		}
		ours := strings.HasPrefix(c.name, "caisson")
		if strings.HasSuffix(c.name, " alone") {
			alone[ours] = at(50)
		}
		more := ""
		if a, ok := alone[ours]; ok {
			more = (at(50) - a).String()
		}
		fmt.Fprintf(w, "%s\t%v\t%v\t%v\t%s\t\n", c.name, at(50), at(90), at(0), more)
	}
}
