// Chroot measures what Docker's default view of the file system (/proc, /dev, its pts, shm and mqueue, /sys, the control groups, the masked and the
// read-only paths) adds to a start: by caisson, and by a C program that makes the same calls by hand. All rows are measured in
// turns, in an order that changes.
//
//	go run ./chroot                # as root; some seconds
//	go run ./chroot -rounds 400 -program /bin/true
//	go run ./chroot -mounts 500    # on a host with so many further mounts
//	go run ./chroot -prepared      # and Docker's view with a /dev that is built once (chroot.DevTree) beside that with one for each start
//	go run ./chroot -plan          # the calls
package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
)

//go:embed c/view.c
var viewSource string

// trueSource is the least program: what it takes to run it is not what is measured.
const trueSource = `#include <sys/syscall.h>
#if defined(__x86_64__)
void _start(void) { __asm__ volatile("syscall" : : "a"(SYS_exit_group), "D"(0)); __builtin_unreachable(); }
#else
void _start(void) { register long n __asm__("x8") = SYS_exit_group, r __asm__("x0") = 0; __asm__ volatile("svc 0" : : "r"(n), "r"(r)); __builtin_unreachable(); }
#endif
`

// base is what the view is added to.
func base() caisson.Sandbox {
	return caisson.New(namespaces.PID|namespaces.Mount|namespaces.IPC|namespaces.UTS|namespaces.Cgroup|namespaces.Net, chroot.Host{})
}

func view(cgroups plan.Primitive) caisson.Sandbox { return viewWith(chroot.Dev{Mqueue: true}, cgroups) }

func viewWith(dev, cgroups plan.Primitive) caisson.Sandbox {
	return base().With(chroot.Proc{}, dev, chroot.Sysfs{}, cgroups, chroot.DockerMasks(), chroot.DockerReadOnly())
}

// cgroup2 is what Cgroupfs does where there is version 2 only.
func cgroup2(p *plan.Plan) error {
	m, sys := p.Slot(), p.Slot()
	p.Child(plan.Sources, mnt.New(p, "cgroup2", m, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)...)
	p.Child(plan.Mounts,
		mnt.OpenPath(mnt.CWD(), "/sys/fs", unix.O_DIRECTORY, unix.RESOLVE_NO_MAGICLINKS).Save(sys),
		mnt.AttachAt(plan.Saved(m), plan.Saved(sys), "cgroup"))
	return nil
}

// hierarchies are the control groups of version 1.
func hierarchies() (names []string) {
	b, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(line, ":", 3); len(f) == 3 && f[1] != "" {
			names = append(names, f[1])
		}
	}
	return names
}

type row struct {
	name          string
	turn          func(n int) ([]time.Duration, error)
	took          []time.Duration
	less, against *row // what it adds something to, and what it is compared with
}

func main() {
	rounds := flag.Int("rounds", 100, "turns of each row")
	burst := flag.Int("burst", 5, "starts in a turn")
	program := flag.String("program", "", "what is started (default a tiny static program)")
	mounts := flag.Int("mounts", 0, "further mounts of the host, in a mount namespace of the benchmark's own")
	prepared := flag.Bool("prepared", false, "also with a /dev that is built once")
	show := flag.Bool("plan", false, "measure nothing: print the plan")
	flag.Parse()
	if *show {
		fmt.Print(view(chroot.Cgroupfs{}).Plan())
		return
	}
	err := withMounts(*mounts, func() error { return measure(*rounds, *burst, *program, *prepared) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "chroot:", err)
		os.Exit(1)
	}
}

// withMounts calls f in a process with a mount namespace of its own, in which there are n further mounts.
func withMounts(n int, f func() error) error {
	const mark = "CAISSON_BENCH_MOUNTS"
	if n == 0 {
		return f()
	}
	if os.Getenv(mark) == "" {
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Env = append(os.Environ(), mark+"=1")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		return c.Run()
	}
	if err := unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""); err != nil {
		return err
	}
	for i := range n {
		dir := fmt.Sprintf("/mnt/%d", i)
		if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k")); err != nil {
			return err
		}
	}
	return f()
}

func measure(rounds, burst int, program string, prepared bool) error {
	dir, err := os.MkdirTemp("/var/tmp", "caisson-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if program == "" {
		program = filepath.Join(dir, "true")
		if err := compile(program, trueSource, "-static", "-nostdlib"); err != nil {
			return err
		}
	}
	if err := compile(filepath.Join(dir, "view"), viewSource); err != nil {
		return err
	}
	c, err := byHand(filepath.Join(dir, "view"), append([]string{program}, hierarchies()...))
	if err != nil {
		return err
	}
	defer c.close()
	var rows []*row
	pair := func(name string, s caisson.Sandbox, byHand string) {
		mine, his := &row{name: "caisson, " + name, turn: ours(s, program)}, &row{name: "C, " + name, turn: c.turn(byHand)}
		if mine.against = his; len(rows) > 0 {
			mine.less, his.less = rows[0], rows[1]
		}
		rows = append(rows, mine, his)
	}
	pair("namespaces and root", base(), "base")
	pair("view, cgroup v2", view(plan.Func(cgroup2)), "v2")
	if n := len(hierarchies()); n > 0 {
		pair(fmt.Sprintf("view, %d cgroup v1", n), view(chroot.Cgroupfs{}), "v1")
	}
	if prepared {
		dev, err := chroot.Dev{Mqueue: true}.Prepare()
		if err != nil {
			return err
		}
		defer dev.Close()
		rows = append(rows, onceAndEach(dev, program)...)
	}
	if err := compete(rows, rounds, burst); err != nil {
		return err
	}
	report(rows)
	return nil
}

// onceAndEach are rows with a /dev that is built once, each after one with a /dev for each start. CAP_SYS_ADMIN over the host goes, as in Docker: else there would be no clone.
func onceAndEach(dev *chroot.DevTree, program string) (rows []*row) {
	for _, kind := range []struct {
		name string
		part plan.Primitive
	}{{"no SYS_ADMIN", caps.Drop(caps.SysAdmin)}, {"user namespace", namespaces.User}} {
		with := func(dev plan.Primitive) func(int) ([]time.Duration, error) {
			return ours(viewWith(dev, plan.Func(cgroup2)).With(kind.part), program)
		}
		each := &row{name: "caisson, view, " + kind.name, turn: with(chroot.Dev{Mqueue: true})}
		once := &row{name: "the same, /dev prepared", turn: with(dev), less: each, against: each}
		rows = append(rows, each, once)
	}
	return rows
}

func compete(rows []*row, rounds, burst int) error {
	for round := -3; round < rounds; round++ { // to warm up
		for _, i := range rand.Perm(len(rows)) {
			d, err := rows[i].turn(burst)
			if err != nil {
				return fmt.Errorf("%s: %w", rows[i].name, err)
			}
			if round >= 0 {
				rows[i].took = append(rows[i].took, d...)
			}
		}
	}
	return nil
}

// report prints what a row adds to another one, and its ratio to the one that it is compared with.
func report(rows []*row) {
	median := func(r *row) time.Duration { return slices.Sorted(slices.Values(r.took))[len(r.took)/2] }
	fmt.Printf("%-32s %8s %10s %10s %8s\n", "", "starts", "median", "adds", "ratio")
	for _, r := range rows {
		adds, ratio := "", ""
		if r.less != nil {
			adds = ms(median(r) - median(r.less))
		}
		if r.against != nil {
			ratio = fmt.Sprintf("%.3f", float64(median(r))/float64(median(r.against)))
		}
		fmt.Printf("%-32s %8d %10s %10s %8s\n", r.name, len(r.took), ms(median(r)), adds, ratio)
	}
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/1e6) }

func ours(s caisson.Sandbox, program string) func(int) ([]time.Duration, error) {
	return func(n int) (took []time.Duration, err error) {
		for range n {
			c := s.CommandContext(context.Background(), program)
			c.Env = []string{"PATH=/usr/bin:/bin"}
			began := time.Now()
			if err := c.Run(); err != nil {
				return nil, err
			}
			took = append(took, time.Since(began))
		}
		return took, nil
	}
}

// hand is the C program.
type hand struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func byHand(path string, args []string) (*hand, error) {
	h := &hand{cmd: exec.Command(path, args...)}
	h.cmd.Env = []string{"PATH=/usr/bin:/bin"}
	h.cmd.Stderr = os.Stderr
	in, err := h.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h.in, h.out = in, bufio.NewReader(out)
	return h, h.cmd.Start()
}

func (h *hand) close() {
	h.in.Close()
	h.cmd.Wait()
}

func (h *hand) turn(kind string) func(int) ([]time.Duration, error) {
	return func(n int) (took []time.Duration, err error) {
		if _, err := fmt.Fprintln(h.in, kind, n); err != nil {
			return nil, err
		}
		line, err := h.out.ReadString('\n')
		if err != nil {
			return nil, err
		}
		for _, w := range strings.Fields(line) {
			ns, err := strconv.ParseInt(w, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%s", strings.TrimSpace(line))
			}
			took = append(took, time.Duration(ns))
		}
		return took, nil
	}
}

func compile(path, source string, flags ...string) error {
	cmd := exec.Command("gcc", append(flags, "-O2", "-Wall", "-x", "c", "-o", path, "-")...)
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %w %s", err, out)
	}
	return nil
}
