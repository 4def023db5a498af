//go:build linux

// Seccomp measures Docker's default profile as caisson compiles it beside the same profile as libseccomp compiles it with a binary tree: time to
// compile, instructions, and what a filtered call costs.
//
//	go run ./seccomp            # in bench/; half a minute
//	go run ./seccomp -rounds 200
//
// It needs gcc and libseccomp-dev. The filters are installed on threads of one process, which take turns, so that the drift of the machine meets all
// alike.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caisson-dev/caisson/seccomp"
)

func main() {
	rounds := flag.Int("rounds", 60, "turns of each filter")
	calls := flag.Int("calls", 20000, "calls in a turn")
	first := flag.Bool("first", false, "compile once, and print how long it took")
	flag.Parse()
	if *first {
		fmt.Println(int64(once()))
		return
	}
	if err := run(*rounds, *calls); err != nil {
		fmt.Fprintln(os.Stderr, "seccomp:", err)
		os.Exit(1)
	}
}

func run(rounds, calls int) error {
	lib, err := newLibseccomp()
	if err != nil {
		return err
	}
	defer lib.close()
	if err := compiling(lib, rounds); err != nil {
		return err
	}
	return perCall(lib, rounds, calls)
}

// compiling prints what it takes to compile, and the lengths.
func compiling(lib *libseccomp, rounds int) error {
	cold, err := fresh(50)
	if err != nil {
		return err
	}
	f := seccomp.DockerDefault("SYS_CHROOT")
	if f.Err() != nil {
		return f.Err()
	}
	var ours []time.Duration
	for range 5 * rounds {
		begin := time.Now()
		seccomp.DockerDefault("SYS_CHROOT")
		ours = append(ours, time.Since(begin))
	}
	tree, err := lib.compile("tree")
	if err != nil {
		return err
	}
	list, err := lib.compile("list")
	if err != nil {
		return err
	}
	theirs, err := lib.time(5 * rounds)
	if err != nil {
		return err
	}
	fmt.Printf("compile Docker's default, first time in a process    %10v   p90 %v, worst %v\n", cold[len(cold)/2], cold[len(cold)*9/10], cold[len(cold)-1])
	fmt.Printf("compile Docker's default, median                     %10v   libseccomp %v\n", median(ours), median(theirs))
	fmt.Printf("instructions                                         %10d   libseccomp %d with a tree, %d without\n", f.Program.Len(), len(tree), len(list))
	return nil
}

func once() time.Duration {
	begin := time.Now()
	seccomp.DockerDefault("SYS_CHROOT")
	return time.Since(begin)
}

// fresh is what the first compilation takes in n processes, sorted.
func fresh(n int) (list []time.Duration, err error) {
	self, err := os.Executable()
	for range n {
		out, e := exec.Command(self, "-first").Output()
		d, e2 := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if err := errors.Join(err, e, e2); err != nil {
			return nil, err
		}
		list = append(list, time.Duration(d))
	}
	slices.Sort(list)
	return list, nil
}

func median[T int64 | time.Duration](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}
