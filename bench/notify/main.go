//go:build linux

// Command notify measures what a supervised call costs: from the call to the answer, with a supervisor of package notify and with a
// C program that does nothing but receive and send. All rows are measured in turns, in one run.
//
//	cd bench && go run ./notify
//	go run ./notify -listeners 1000     # threads and memory of one supervisor with so many sandboxes
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

func main() {
	rounds := flag.Int("rounds", 60, "turns of each row")
	calls := flag.Int("calls", 500, "calls in a turn")
	listeners := flag.Int("listeners", 0, "measure one supervisor with so many sandboxes instead")
	flag.Parse()
	err := run(*rounds, *calls, *listeners)
	if err != nil {
		fmt.Fprintln(os.Stderr, "notify:", err)
		os.Exit(1)
	}
}

func run(rounds, calls, listeners int) error {
	dir, err := os.MkdirTemp("", "bench-notify")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(dir, "target", "supervisor"); err != nil {
		return err
	}
	if listeners > 0 {
		return many(filepath.Join(dir, "target"), listeners)
	}
	rows, err := start(dir)
	for _, r := range rows {
		defer r.end()
	}
	if err != nil {
		return err
	}
	if err := turns(rows, rounds, calls); err != nil {
		return err
	}
	report(rows)
	return nil
}

func build(dir string, programs ...string) error {
	for _, p := range programs {
		out, err := exec.Command("gcc", "-O2", "-static", "-o", filepath.Join(dir, p), filepath.Join("notify", "c", p+".c")).CombinedOutput()
		if err != nil {
			return fmt.Errorf("gcc %s: %w: %s", p, err, out)
		}
	}
	return nil
}

// row is one target, whose calls somebody answers.
type row struct {
	name  string
	in    io.WriteCloser
	out   *bufio.Reader
	wait  func() error
	nanos []float64 // of one call, in each turn
}

func start(dir string) (rows []*row, err error) {
	target := filepath.Join(dir, "target")
	for _, c := range []struct {
		name string
		cmd  command
	}{
		{"C, woken anywhere", exec.Command(filepath.Join(dir, "supervisor"), "plain", target)},
		{"C, woken on the target's processor", exec.Command(filepath.Join(dir, "supervisor"), "sync", target)},
		{"package notify", caisson.New(filter(nil)).Command(target)},
	} {
		r, err := begin(c.name, c.cmd)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", c.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// command is what os/exec's Cmd and ours have in common.
type command interface {
	StdinPipe() (io.WriteCloser, error)
	StdoutPipe() (io.ReadCloser, error)
	Start() error
	Wait() error
}

func begin(name string, c command) (*row, error) {
	in, e1 := c.StdinPipe()
	out, e2 := c.StdoutPipe()
	if err := errors.Join(e1, e2, c.Start()); err != nil {
		return nil, err
	}
	r := &row{name: name, in: in, out: bufio.NewReader(out), wait: c.Wait}
	if line, err := r.out.ReadString('\n'); err != nil || line != "ready\n" {
		return nil, fmt.Errorf("%q, %w", line, err)
	}
	return r, nil
}

func (r *row) end() {
	r.in.Close()
	r.wait()
}

func (r *row) turn(calls int) (time.Duration, error) {
	fmt.Fprintln(r.in, calls)
	line, err := r.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("%s: %w", r.name, err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return time.Duration(n), err
}

func turns(rows []*row, rounds, calls int) error {
	for n := range rounds {
		for i := range rows {
			r := rows[(i+n)%len(rows)]
			d, err := r.turn(calls)
			if err != nil {
				return err
			}
			r.nanos = append(r.nanos, float64(d)/float64(calls))
		}
	}
	return nil
}

func report(rows []*row) {
	for _, r := range rows {
		slices.Sort(r.nanos)
	}
	median := func(r *row) float64 { return r.nanos[len(r.nanos)/2] }
	own := median(rows[len(rows)-1])
	fmt.Printf("%-36s %10s %10s %10s %8s\n", "a call and its answer", "least", "median", "p90", "ours / this")
	for _, r := range rows {
		fmt.Printf("%-36s %7.2f µs %7.2f µs %7.2f µs %8.2f\n", r.name, r.nanos[0]/1e3, median(r)/1e3, r.nanos[len(r.nanos)*9/10]/1e3, own/median(r))
	}
}

func filter(s *notify.Supervisor) notify.Filter {
	const load, jump, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	return notify.Filter{
		Supervisor: s,
		Handler:    func(context.Context, *notify.Request) notify.Response { return notify.Return(77) },
		Program: notify.Raw{{Code: load}, {Code: jump, Jt: 1, K: unix.SYS_GETPPID},
			{Code: ret, K: unix.SECCOMP_RET_ALLOW}, {Code: ret, K: unix.SECCOMP_RET_USER_NOTIF}},
	}
}
