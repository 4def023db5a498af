// Overlay measures what a root made of layers adds to a start, against the same root in one directory (chroot.Pivot), and what many sandboxes
// from one stack take of disk and page cache. All rows are measured in turns, in an order that changes.
//
//	go run ./overlay               # as root; some seconds
//	go run ./overlay -rounds 400 -size 1024
package main

import (
	"context"
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
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/overlay"
	"github.com/caisson-dev/caisson/plan"
)

// trueSource is the least program: what it takes to run it is not what is measured.
const trueSource = `#include <sys/syscall.h>
#if defined(__x86_64__)
void _start(void) { __asm__ volatile("syscall" : : "a"(SYS_exit_group), "D"(0)); __builtin_unreachable(); }
#else
void _start(void) { register long n __asm__("x8") = SYS_exit_group, r __asm__("x0") = 0; __asm__ volatile("svc 0" : : "r"(n), "r"(r)); __builtin_unreachable(); }
#endif
`

type row struct {
	name string
	box  caisson.Sandbox

	started []time.Duration // until the program is executed
	took    []time.Duration // until it has ended and all is taken down
}

func main() {
	rounds := flag.Int("rounds", 100, "turns of each row")
	burst := flag.Int("burst", 5, "starts in a turn")
	size := flag.Int("size", 256, "MiB of the file that sandboxes share")
	boxes := flag.Int("sandboxes", 20, "how many share it")
	show := flag.Bool("plan", false, "measure nothing: print the plan of three layers")
	flag.Parse()
	if *show {
		fmt.Print(sandbox(overlay.Root{Lower: []string{"/layers/c", "/layers/b", "/layers/a"}}).Plan())
		return
	}
	dir, err := os.MkdirTemp("/var/tmp", "caisson-bench-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = errors.Join(starts(dir, *rounds, *burst), share(dir, *size, *boxes))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "overlay:", err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
}

func sandbox(root plan.Primitive) caisson.Sandbox {
	return caisson.New(namespaces.PID|namespaces.Mount|namespaces.IPC|namespaces.UTS, root)
}

// layers makes n of them. The program is in the lowest one.
func layers(dir string, n int) (lower []string, err error) {
	for i := range n {
		l := filepath.Join(dir, fmt.Sprintf("layer%03d", i))
		lower = append([]string{l}, lower...)
		err = errors.Join(err, os.MkdirAll(l, 0o755), os.WriteFile(filepath.Join(l, fmt.Sprintf("file%03d", i)), nil, 0o644))
	}
	return lower, errors.Join(err, compile(filepath.Join(dir, "layer000", "true"), trueSource))
}

func starts(dir string, rounds, burst int) error {
	lower, err := layers(dir, 200)
	if err != nil {
		return err
	}
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	three := lower[197:]
	rows := []*row{
		{name: "chroot.Pivot", box: sandbox(chroot.Pivot{Dir: lower[199]})},
		{name: "1 layer", box: sandbox(overlay.Root{Lower: lower[199:]})},
		{name: "3 layers", box: sandbox(overlay.Root{Lower: three})},
		{name: "3 layers, read-only", box: sandbox(overlay.Root{Lower: three, ReadOnly: true})},
		{name: "3 layers, 64 MiB at most", box: sandbox(overlay.Root{Lower: three, Size: 64 << 20})},
		{name: "3 layers, upper on disk", box: sandbox(overlay.Root{Lower: three, Upper: upper, Work: work})},
		{name: "200 layers", box: sandbox(overlay.Root{Lower: lower})},
	}
	for round := -3; round < rounds; round++ { // to warm up
		for _, i := range rand.Perm(len(rows)) {
			if err := rows[i].turn(burst, round >= 0); err != nil {
				return fmt.Errorf("%s: %w", rows[i].name, err)
			}
		}
	}
	fmt.Printf("%-28s %8s %10s %10s %10s %10s\n", "", "starts", "start", "adds", "and end", "adds")
	for _, r := range rows {
		fmt.Printf("%-28s %8d %10s %10s %10s %10s\n", r.name, len(r.took), ms(median(r.started)), ms(median(r.started)-median(rows[0].started)),
			ms(median(r.took)), ms(median(r.took)-median(rows[0].took)))
	}
	return nil
}

func (r *row) turn(n int, counts bool) error {
	for range n {
		c := r.box.CommandContext(context.Background(), "/true")
		c.Env = []string{}
		began := time.Now()
		if err := c.Start(); err != nil {
			return err
		}
		started := time.Since(began)
		if err := c.Wait(); err != nil {
			return err
		}
		if counts {
			r.started, r.took = append(r.started, started), append(r.took, time.Since(began))
		}
	}
	return nil
}

func median(d []time.Duration) time.Duration { return slices.Sorted(slices.Values(d))[len(d)/2] }

func ms(d time.Duration) string { return fmt.Sprintf("%.3f ms", float64(d)/1e6) }

// share starts sandboxes that read one file of a layer and stay.
func share(dir string, size, boxes int) error {
	layer := filepath.Join(dir, "big")
	if err := os.Mkdir(layer, 0o755); err != nil {
		return err
	}
	big := filepath.Join(layer, "model")
	if err := write(big, size); err != nil {
		return err
	}
	root := overlay.Root{Lower: []string{layer, filepath.Join(dir, "layer000")}}
	parts := []plan.Primitive{chroot.Dev{}}
	for _, d := range []string{"/usr", "/lib", "/lib64", "/bin"} {
		parts = append(parts, chroot.Optional{Source: d, Target: d, ReadOnly: true})
	}
	box := sandbox(root).With(parts...)
	if err := box.Command("sh", "-c", "true").Run(); err != nil {
		return err
	}
	fmt.Printf("\n%-28s %14s %14s %14s\n", fmt.Sprintf("%d MiB in a layer", size), "page cache", "tmpfs", "disk")
	before, err := look(dir)
	if err != nil {
		return err
	}
	for i := range boxes {
		cmd := box.Command("sh", "-c", "cat /model > /dev/null; echo; read x")
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			return err
		}
		defer cmd.Wait()
		defer in.Close()
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			return err
		}
		if i == 0 || i == boxes-1 {
			now, err := look(dir)
			if err != nil {
				return err
			}
			fmt.Printf("%-28s %10d MiB %10d MiB %10d MiB\n", fmt.Sprintf("read by %d sandboxes", i+1), now[0]-before[0], now[1]-before[1], now[2]-before[2])
		}
	}
	return nil
}

// write makes a file of which nothing is in the page cache.
func write(name string, size int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	for range size {
		for i := 0; i < len(b); i += 8 {
			b[i] = byte(rand.Int())
		}
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// look gives the page cache of files, of tmpfs, and what is used on the disk, in MiB.
func look(dir string) (mib [3]int64, err error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return mib, err
	}
	values := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 {
			values[f[0]], _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	var st unix.Statfs_t
	err = unix.Statfs(dir, &st)
	return [3]int64{(values["Cached:"] - values["Shmem:"]) / 1024, values["Shmem:"] / 1024, int64(st.Blocks-st.Bfree) * int64(st.Bsize) >> 20}, err
}

func compile(path, source string) error {
	cmd := exec.Command("gcc", "-static", "-nostdlib", "-O2", "-Wall", "-x", "c", "-o", path, "-")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %w %s", err, out)
	}
	return nil
}
