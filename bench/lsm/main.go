//go:build linux

// Lsm measures what the security modules add to a start, and whether that is what the project promises. The exit status is 1 when it is more.
//
//	cd bench && go run ./lsm
//
// measures Landlock, for which 0.3 ms are promised: no rules, 50 rules that the command resolves itself, and 50 rules that have been prepared once. The three
// are started in turns, so that what else the machine does meets all of them. The promise is for the prepared ones.
//
//	CGO_ENABLED=0 go build -o /tmp/vmrun ../kernels/vmrun
//	VMRUN_KERNEL=6.12 go run ./lsm -labels -exec /tmp/vmrun
//	VMRUN_KERNEL=6.1 VMRUN_SELINUX=selinux.pol go run ./lsm -labels -exec /tmp/vmrun
//
// measures a label of AppArmor or SELinux, for which 0.1 ms are promised. Where the machine has the module and the caller is root, -labels alone measures just that. Where it has
// not, the label is given in an emulated machine, whose times are not those of a real one, so the sum is made of two parts:
//
//   - The calls that ask for a label are timed on this machine: the same calls, in the same places of the start, on a file of /proc that every kernel has. That is most of
//     what a label costs, and is measured where the promise is to hold. Lower quartiles are compared, which what else the machine does touches least.
//   - The module's own work is to find the profile or context and to decide on it at execve. In the emulated machine one process asks for a label, in a loop, and executes a file of
//     no known format: the module decides before the kernel finds that out. In turns with this it makes the same calls on that other file. The difference is divided by
//     how much slower the emulated machine makes the second loop.
//
// The quotient is that of the kernel's code for files of /proc and for execve, and the module's own work is code of the same kind: look-ups, comparisons and allocations without
// any device. What is left out is that the new credentials are put in force, a few assignments in AppArmor, and one look at each open descriptor in SELinux. Whole starts cannot be
// compared there: the clock goes in steps of 4 ms, and the parent waits for the label with pauses that are longer there than all the rest.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
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
	rules        = 50
	promise      = 300 * time.Microsecond // 50 prepared rules
	labelPromise = 100 * time.Microsecond
)

func main() {
	rounds := flag.Int("n", 1000, "starts of each kind")
	labels := flag.Bool("labels", false, "measure labels, not Landlock")
	there := flag.String("exec", "", "with -labels: the program that runs a command on a kernel with the module")
	raw := flag.Bool("loops", false, "print the times of the loops as JSON, for the side that did -exec")
	flag.Parse()
	ok, err := true, error(nil)
	switch {
	case *raw:
		var l loops
		if l, err = tryLoops(*rounds); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(l)
		}
	case *labels:
		ok, err = measureLabels(*rounds, *there)
	default:
		ok, err = measure(*rounds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lsm:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func measureLabels(rounds int, there string) (ok bool, err error) {
	t, err := tryLabels(rounds)
	if err != nil {
		return false, err
	}
	fmt.Printf("a start takes %s here, and %s more with the calls of a label\n", ms(t.start), ms(t.calls))
	switch {
	case there != "":
		return compare(t.calls, rounds, there)
	case t.module == "":
		return false, fmt.Errorf("the kernel has no module that gives labels, or the caller is not root: see -exec")
	}
	fmt.Printf("a label of %s adds %s\n", t.module, ms(t.label))
	return t.label <= labelPromise, nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.4f ms", d.Seconds()*1e3) }

// compare puts the two parts together.
func compare(calls time.Duration, rounds int, there string) (ok bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	cmd := exec.Command(there, self, "-loops", "-n", strconv.Itoa(rounds))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return false, fmt.Errorf("%s: %w", there, err)
	}
	var other loops
	if err := json.Unmarshal(out, &other); err != nil {
		return false, fmt.Errorf("%s: %w", there, err)
	}
	if other.Module == "" {
		return false, fmt.Errorf("%s: that kernel has no module that gives labels", there)
	}
	here, err := tryLoops(rounds)
	if err != nil {
		return false, err
	}
	slower, own := float64(other.Without)/float64(here.Without), max(other.With-other.Without, 0)
	scaled := time.Duration(float64(own) / slower)
	fmt.Printf("in a loop these calls and an execve take %s here, and %s there, %.1f times longer; with a label of %s %s there\n", ms(here.Without), ms(other.Without), slower, other.Module, ms(other.With))
	fmt.Printf("the module's own work takes %s there, which is %s here\n", ms(own), ms(scaled))
	fmt.Printf("a label adds %s to a start\n", ms(calls+scaled))
	return calls+scaled <= labelPromise, nil
}

// row is one way to start, with its times.
type row struct {
	name    string
	sandbox caisson.Sandbox
	times   []time.Duration
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
	begin := time.Now()
	set, err := l.Prepare()
	if err != nil {
		return false, err
	}
	defer set.Close()
	fmt.Printf("to prepare %d rules, once    %8s\n", rules, ms(time.Since(begin)))
	base := caisson.New(namespaces.User|namespaces.PID|namespaces.Mount|namespaces.IPC|namespaces.UTS, chroot.Host{}, chroot.Proc{})
	all := []*row{{name: "no rules", sandbox: base}, {name: "50 rules, resolved by each", sandbox: base.With(l)}, {name: "50 rules, prepared once", sandbox: base.With(set)}}
	if err := inTurns(all, rounds); err != nil {
		return false, err
	}
	return report(all), nil
}

// inTurns starts each of the rows in turn, some first ones to warm up.
func inTurns(all []*row, rounds int) error {
	for i := range rounds + rounds/10 {
		for k := range all {
			if err := all[(i+k)%len(all)].start(i >= rounds/10); err != nil {
				return err
			}
		}
	}
	return nil
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

func (r *row) quartile() time.Duration {
	slices.Sort(r.times)
	return r.times[len(r.times)/4]
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
