// Bench measures how long it takes to start the same sandbox by caisson, by a C program that makes the same system
// calls by hand, by bubblewrap, crun and runc, and how long an os/exec start takes that isolates nothing. README.md says
// what is compared.
package main

import (
	"flag"
	"fmt"
	"os"
)

// options are the command line.
type options struct {
	Scenarios string
	Rounds    int
	Burst     int
	Starts    int // of the gc scenario
	Static    bool
	User      bool
	Dir       string
	JSON      string
	Check     bool
	Verbose   bool
	Soak      int
	Plan      bool
}

const standard = "A,B,A+pause,B+pause,A+heap,B+heap,A+two,B+two,A+mounts,B+mounts,gc"

func flags() (o options) {
	flag.StringVar(&o.Scenarios, "scenarios", "", "what to measure: A or B, each with +pause, +heap, +two, +mounts in any combination; gc (default "+standard+")")
	flag.IntVar(&o.Rounds, "rounds", 40, "turns of each contestant in each scenario")
	flag.IntVar(&o.Burst, "burst", 5, "starts in a turn where there are no pauses")
	flag.IntVar(&o.Starts, "starts", 1000, "starts of each run of the gc scenario")
	flag.BoolVar(&o.Static, "static", false, "start a tiny static program instead of /bin/true")
	flag.BoolVar(&o.User, "user", false, "start as an ordinary user: sandbox B only, without the OCI runtimes")
	flag.StringVar(&o.Dir, "dir", "/var/tmp", "where the temporary directory is made; not below /tmp, which the sandbox replaces")
	flag.StringVar(&o.JSON, "json", "", "also write one JSON object a line to this file")
	flag.BoolVar(&o.Check, "check", false, "measure nothing: compare the system calls of caisson with those of the C program (needs strace)")
	flag.BoolVar(&o.Verbose, "v", false, "with -check: print the calls")
	flag.IntVar(&o.Soak, "soak", 0, "measure nothing: start this many sandboxes by caisson and look for what is left behind")
	flag.BoolVar(&o.Plan, "plan", false, "measure nothing: print the plans of the sandboxes")
	flag.Parse()
	o.User = o.User || os.Getuid() != 0
	return o
}

func main() {
	if err := dispatch(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func dispatch() error {
	if len(os.Args) == 3 && os.Args[1] == hostArg {
		return serveHost(os.Args[2], os.Stdin, os.Stdout)
	}
	if len(os.Args) == 3 && os.Args[1] == insideArg {
		return inside(os.Args[2], os.Stdout)
	}
	o := flags()
	switch {
	case o.Plan:
		return printPlans(os.Stdout, o.User)
	case o.Soak > 0:
		return soakAs(o)
	}
	return run(o)
}

// run measures all scenarios, those with the same mounts in one process.
func run(o options) error {
	all, err := scenarios(o)
	if err != nil {
		return err
	}
	w, err := newWorkshop(o)
	if err != nil {
		return err
	}
	defer w.remove()
	r, err := newReport(o, os.Stdout)
	if err != nil {
		return err
	}
	for _, group := range byMounts(all) {
		if err := w.enter(group, r.add); err != nil {
			return err
		}
	}
	return r.close()
}
