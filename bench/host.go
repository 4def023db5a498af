package main

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

const hostArg = "-host"

// host is the host program of caisson and of os/exec: a process of its own, with a live heap.
type host struct {
	start map[string]func(program string) error
	heap  []*node
}

// serveHost answers requests of the form KIND PROGRAM COUNT STARTERS and gc KIND PROGRAM COUNT NANOSECONDS.
func serveHost(gib string, in io.Reader, out io.Writer) error {
	n, err := strconv.Atoi(gib)
	if err != nil {
		return err
	}
	h := &host{start: starters(), heap: liveHeap(n)}
	defer runtime.KeepAlive(h)
	fmt.Fprintln(out, "ok")
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		d, err := h.answer(strings.Split(lines.Text(), "\t"))
		if err != nil {
			fmt.Fprintln(out, strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Fprintln(out, "ok", strings.Trim(fmt.Sprint(nanoseconds(d)), "[]"))
	}
	return lines.Err()
}

func starters() map[string]func(string) error {
	a, b := sandboxA(), sandboxB()
	return map[string]func(string) error{
		"A":       func(program string) error { return a.Command(program).Run() },
		"B":       func(program string) error { return b.Command(program).Run() },
		"os/exec": func(program string) error { return exec.Command(program).Run() },
	}
}

func (h *host) answer(request []string) ([]time.Duration, error) {
	if request[0] == "gc" {
		return h.collect(request[1:])
	}
	count, err := strconv.Atoi(request[2])
	if err != nil {
		return nil, err
	}
	parallel, err := strconv.Atoi(request[3])
	if err != nil {
		return nil, err
	}
	start, ok := h.start[request[0]]
	if !ok {
		return nil, fmt.Errorf("there is no %q", request[0])
	}
	return atOnce(parallel, func() ([]time.Duration, error) {
		return timed(count, func() error { return start(request[1]) })
	})
}

// timed gives how long each of count starts took.
func timed(count int, start func() error) ([]time.Duration, error) {
	d := make([]time.Duration, count)
	for i := range d {
		t := time.Now()
		if err := start(); err != nil {
			return nil, err
		}
		d[i] = time.Since(t)
	}
	return d, nil
}

// atOnce calls f in n goroutines and joins what they give.
func atOnce(n int, f func() ([]time.Duration, error)) (all []time.Duration, err error) {
	if n == 1 {
		return f()
	}
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
	)
	for range n {
		wait.Go(func() {
			d, e := f()
			mu.Lock()
			defer mu.Unlock()
			all = append(all, d...)
			if e != nil {
				err = e
			}
		})
	}
	wait.Wait()
	return all, err
}

func nanoseconds(d []time.Duration) []int64 {
	n := make([]int64, len(d))
	for i := range d {
		n[i] = int64(d[i])
	}
	return n
}
