//go:build linux

// Lsm measures what Landlock adds to a start: no rules, 50 rules that the command resolves itself, and 50 rules that have been prepared once. The three
// are started in turns, so that what else the machine does meets all of them:
//
//	cd bench && go run ./lsm
//
// The exit status is 1 when the median with prepared rules misses what the project promises: 0.3 ms for 50 of them.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/namespaces"
)

const (
	rules   = 50
	promise = 300 * time.Microsecond
)

// row is one way to start, with its times.
type row struct {
	name    string
	sandbox caisson.Sandbox
	times   []time.Duration
}

func main() {
	rounds := flag.Int("n", 1000, "starts of each kind")
	flag.Parse()
	ok, err := measure(*rounds)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lsm:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func measure(rounds int) (ok bool, err error) {
	dir, err := os.MkdirTemp("", "lsm")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	l, err := landlock(dir)
	if err != nil {
		return false, err
	}
	set, err := l.Prepare()
	if err != nil {
		return false, err
	}
	defer set.Close()
	base := caisson.New(namespaces.User|namespaces.PID|namespaces.Mount|namespaces.IPC|namespaces.UTS, chroot.Host{}, chroot.Proc{})
	all := []*row{{name: "no rules", sandbox: base}, {name: "50 rules, resolved by each", sandbox: base.With(l)}, {name: "50 rules, prepared once", sandbox: base.With(set)}}
	for i := range rounds + rounds/10 { // the first ones warm up
		for k := range all {
			if err := all[(i+k)%len(all)].start(i >= rounds/10); err != nil {
				return false, err
			}
		}
	}
	return report(all), nil
}

// landlock makes 50 rules: what a program needs, and directories of data.
func landlock(dir string) (lsm.Landlock, error) {
	l := lsm.Landlock{lsm.Execute("/usr"), lsm.Execute("/bin", "/lib", "/lib64").Optional(), lsm.ReadOnly("/etc")}
	for i := len(l) + 2; i < rules; i++ {
		d := filepath.Join(dir, "data", strconv.Itoa(i))
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
		rule := lsm.ReadOnly(d)
		if i%2 == 0 {
			rule = lsm.ReadWrite(d).Optional() // the sandbox shows them read-only
		}
		l = append(l, rule)
	}
	return l, nil
}

// start times a start, from Start until it returns: the command has been executed.
func (r *row) start(counts bool) error {
	cmd := r.sandbox.Command("/bin/true")
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	if counts {
		r.times = append(r.times, time.Since(begin))
	}
	return cmd.Wait()
}

func (r *row) median() time.Duration {
	slices.Sort(r.times)
	return r.times[len(r.times)/2]
}

// report prints the medians. The last row is the one that is promised.
func report(all []*row) (ok bool) {
	base, more := all[0].median(), time.Duration(0)
	for _, r := range all {
		more = r.median() - base
		fmt.Printf("%-28s %8.3f ms  %+.3f ms\n", r.name, r.median().Seconds()*1e3, more.Seconds()*1e3)
	}
	return more <= promise
}
