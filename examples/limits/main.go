//go:build linux

// Command limits starts a memory hog, a CPU hog, a fork bomb and a disk hog, each in a sandbox that holds it, and shows live what they use:
//
//	go run ./examples/limits            for ten seconds
//	go run ./examples/limits -for 1m
//
// It needs root, or a control group that has been delegated, and perl for the fork bomb.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/cgroups"
)

// hog is a program that takes what it can get.
type hog struct {
	name, script string
	limits       cgroups.Limits
	held         string // by what

	cmd   *caisson.Cmd
	group *cgroups.Group
	last  cgroups.Stats
}

// hogs are small enough for any machine, should a limit not hold.
func hogs(dir, disk string) []*hog {
	all := []*hog{
		{name: "memory", script: "while :; do dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null; done", held: "32 MiB, and 1/5 CPU",
			limits: cgroups.Limits{Memory: 32 * cgroups.MiB, Swap: cgroups.None, CPUs: 0.2, PIDs: 10}},
		{name: "cpu", script: "while :; do :; done", held: "1/5 CPU",
			limits: cgroups.Limits{CPUs: 0.2, Memory: 64 * cgroups.MiB, PIDs: 10}},
		{name: "fork bomb", script: "exec perl -e 'while (1) { fork; select(undef, undef, undef, 0.01) }'", held: "30 processes, and 1/5 CPU",
			limits: cgroups.Limits{PIDs: 30, CPUs: 0.2, Memory: 128 * cgroups.MiB}},
	}
	if disk != "" {
		all = append(all, &hog{name: "disk", script: "while :; do dd if=/dev/zero of=file bs=64k count=64 oflag=direct 2>/dev/null; done", held: "1 MiB/s",
			limits: cgroups.Limits{IO: []cgroups.IO{{Device: disk, WriteBPS: cgroups.MiB}}, CPUs: 0.2, PIDs: 10}})
	}
	return all
}

func main() {
	d := flag.Duration("for", 10*time.Second, "how long")
	flag.Parse()
	if err := run(*d, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "limits:", err)
		os.Exit(1)
	}
}

func run(d time.Duration, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "limits")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk := diskOf(dir)
	if disk == "" {
		fmt.Fprintln(out, "no disk hog: the directory for temporary files is on no disk of its own")
	}
	all := hogs(dir, disk)
	defer func() {
		for _, h := range all {
			err = errors.Join(err, h.stop())
		}
	}()
	for _, h := range all {
		if err := h.start(dir); err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
	}
	for begin := time.Now(); ; {
		if err := show(all, out); err != nil {
			return err
		}
		left := d - time.Since(begin)
		if left <= 0 {
			return nil
		}
		time.Sleep(min(left, interval))
		fmt.Fprintf(out, "\x1b[%dA\x1b[J", len(all)+1) // back to the first line of the table
	}
}

const interval = 500 * time.Millisecond

func (h *hog) start(dir string) (err error) {
	h.cmd = caisson.New(h.limits).Command("sh", "-c", h.script)
	h.cmd.Dir = dir
	if err := h.cmd.Start(); err != nil {
		return err
	}
	if h.group, err = cgroups.Of(h.cmd.Process.Pid); err != nil {
		return err
	}
	h.last, err = h.group.Stats()
	return err
}

// stop ends all that the hog has made. The sandbox removes its group.
func (h *hog) stop() error {
	if h.cmd == nil || h.cmd.Process == nil {
		return nil
	}
	if h.group == nil {
		h.cmd.Process.Kill()
		h.cmd.Wait()
		return nil
	}
	defer h.group.Close()
	if err := h.group.Kill(); err != nil {
		h.cmd.Process.Kill()
	}
	h.cmd.Wait()
	return nil
}

func show(all []*hog, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "hog\theld to\tmemory\tprocessors\tprocesses\twritten\tkilled\tforks refused")
	for _, h := range all {
		s, err := h.group.Stats()
		if err != nil {
			return err
		}
		share := float64(s.CPU.Usage-h.last.CPU.Usage) / float64(interval)
		fmt.Fprintf(w, "%s\t%s\t%.1f MiB\t%.2f\t%d\t%.1f MiB/s\t%d\t%d\n", h.name, h.held, float64(s.Memory.Current)/cgroups.MiB, share, s.PIDs.Current,
			float64(written(s)-written(h.last))/cgroups.MiB/interval.Seconds(), max(s.Memory.Kills, 0), max(s.PIDs.Refused, 0))
		h.last = s
	}
	return w.Flush()
}

func written(s cgroups.Stats) (n int64) {
	for _, d := range s.IO {
		n += d.WrittenBytes
	}
	return n
}

// diskOf gives the number of the whole disk that a directory is on, or "".
func diskOf(dir string) string {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return ""
	}
	number := fmt.Sprintf("%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))
	device, err := filepath.EvalSymlinks("/sys/dev/block/" + number)
	if err != nil {
		return ""
	}
	if _, err := os.Stat(device + "/partition"); err == nil {
		device = filepath.Dir(device)
	}
	b, err := os.ReadFile(device + "/dev")
	if err != nil {
		return ""
	}
	return string(b[:len(b)-1])
}
