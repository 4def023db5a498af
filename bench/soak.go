package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// soakAs looks for what n starts leave behind, as an ordinary user if that is asked for.
func soakAs(o options) error {
	if !o.User || os.Getuid() != 0 {
		return soak(o.Soak, o.User)
	}
	w, err := newWorkshop(o)
	if err != nil {
		return err
	}
	defer w.remove()
	cmd := exec.Command(w.path("bench"), "-soak", strconv.Itoa(o.Soak))
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd.Run()
}

// soak starts n sandboxes and then looks for what they have left in this process and on the host. Others may use the
// host meanwhile, so that a difference has some seconds to go away.
func soak(n int, user bool) error {
	start := starters()
	kinds := []string{"A", "B"}
	if user {
		kinds = kinds[1:]
	}
	round := func(count int) error {
		for i := range count {
			if err := start[kinds[i%len(kinds)]]("/bin/true"); err != nil {
				return fmt.Errorf("start %d: %w", i+1, err)
			}
		}
		return nil
	}
	if err := round(100); err != nil { // the runtime makes its threads
		return err
	}
	before, began := takeStock(), time.Now()
	if err := round(n); err != nil {
		return err
	}
	took := time.Since(began)
	var left []string
	for range 20 {
		if left = before.compare(takeStock()); len(left) == 0 {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	fmt.Printf("%d starts in %v\n%s", n, took.Round(time.Millisecond), before)
	if len(left) > 0 {
		return errors.New("not as before: " + strings.Join(left, "; "))
	}
	fmt.Println("all as before")
	return nil
}

// stock is how much there is of what a start uses.
type stock struct {
	count map[string]int
	names map[string]bool // namespaces of the host's processes
}

func takeStock() stock {
	runtime.GC() // a file that nobody holds any more is closed by then, but should have been before
	s := stock{count: map[string]int{
		"descriptors":     entries("/proc/self/fd/*"),
		"threads":         entries("/proc/self/task/*"),
		"goroutines":      runtime.NumGoroutine(),
		"mounts":          lines("/proc/self/mountinfo"),
		"children":        len(strings.Fields(all("/proc/self/task/*/children"))),
		"memory mappings": lines("/proc/self/maps"),
	}, names: namespacesInUse()}
	s.count["namespaces"] = len(s.names)
	return s
}

// compare says what there is more of. Threads and mappings belong to the runtime, which keeps a few in reserve.
func (s stock) compare(now stock) (left []string) {
	spare := map[string]int{"threads": 3, "memory mappings": 8}
	for _, what := range slices.Sorted(maps.Keys(s.count)) {
		was, is := s.count[what], now.count[what]
		if what == "namespaces" {
			for name := range now.names {
				if !s.names[name] {
					left = append(left, "new namespace "+name)
				}
			}
		} else if is > was+spare[what] || is < was && (what == "mounts" || what == "descriptors") {
			left = append(left, fmt.Sprintf("%d %s, were %d", is, what, was))
		}
	}
	return left
}

func (s stock) String() string {
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(s.count)) {
		fmt.Fprintf(&b, "%6d %s\n", s.count[what], what)
	}
	return b.String()
}

func entries(pattern string) int {
	found, _ := filepath.Glob(pattern)
	return len(found)
}

func all(pattern string) string {
	var b strings.Builder
	found, _ := filepath.Glob(pattern)
	for _, f := range found {
		text, _ := os.ReadFile(f) // a thread may have ended
		b.Write(text)
	}
	return b.String()
}

func lines(file string) int { return strings.Count(all(file), "\n") }

func namespacesInUse() map[string]bool {
	names := map[string]bool{}
	found, _ := filepath.Glob("/proc/[0-9]*/ns/*")
	for _, f := range found {
		if name, err := os.Readlink(f); err == nil {
			names[name] = true
		}
	}
	return names
}
