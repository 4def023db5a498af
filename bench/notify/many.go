//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

// many starts sandboxes that are supervised by one supervisor, and prints what they cost this process while they are idle.
func many(target string, n int) error {
	s, err := notify.NewSupervisor(notify.Handlers{})
	if err != nil {
		return err
	}
	defer s.Close()
	without, err := each(n, nil, target)
	if err != nil {
		return err
	}
	with, err := each(n, s, target)
	if err != nil {
		return err
	}
	fmt.Printf("%d sandboxes, idle: %v\nthe same with one supervisor: %v\n", n, without, with)
	return nil
}

// cost is what this process uses.
type cost struct {
	threads, goroutines int
	heap                uint64
	descriptors         int
}

func (c cost) String() string {
	return fmt.Sprintf("%d threads, %d goroutines, %d KiB of heap, %d descriptors", c.threads, c.goroutines, c.heap>>10, c.descriptors)
}

// each starts n sandboxes, lets each make one call, and measures.
func each(n int, s *notify.Supervisor, target string) (cost, error) {
	sandbox := caisson.New()
	if s != nil {
		sandbox = caisson.New(filter(s))
	}
	for range n {
		r, err := begin("", sandbox.Command(target))
		if err != nil {
			return cost{}, err
		}
		defer r.end()
		if s != nil {
			if _, err := r.turn(1); err != nil {
				return cost{}, err
			}
		}
	}
	return measure()
}

func measure() (cost, error) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return cost{}, err
	}
	_, rest, _ := strings.Cut(string(status), "\nThreads:")
	c := cost{goroutines: runtime.NumGoroutine(), heap: m.HeapInuse + m.StackInuse}
	fmt.Sscan(rest, &c.threads)
	fds, err := os.ReadDir("/proc/self/fd")
	c.descriptors = len(fds)
	return c, err
}
