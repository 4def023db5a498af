//go:build linux

// Package dumpable keeps the host's "dumpable" flag (prctl(2), PR_SET_DUMPABLE) right while children share its memory.
//
// The flag belongs to the memory, which host and child share until the child executes its command. A child that changes
// its user clears it, and the host would stay undumpable: no core dumps, no profilers, /proc/self owned by root. But it
// may not be put back while any such child still lives in the shared memory: a process of the child's new user could
// then trace the child, and with it the host. So the flag is a count of all such starts in the process. It is the
// kernel's state of the whole process that is counted here, which is why this package has state of its own.
package dumpable

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var starts struct {
	sync.Mutex
	n     int
	alone int // of these, wait in Alone
	value int // before the first
}

// Enter notes that a child that may change its user or join a sandbox is about to share the memory. With hide the flag
// is cleared at once: a process inside the sandbox that the child joins must not be able to trace it (CVE-2016-9962).
func Enter(hide bool) {
	starts.Lock()
	defer starts.Unlock()
	if starts.n++; starts.n == 1 {
		starts.value = current()
	}
	if hide && starts.value == 1 {
		unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
}

// Leave notes that the child no longer shares the memory. The last one puts the flag back.
func Leave() {
	starts.Lock()
	defer starts.Unlock()
	if starts.n--; starts.n == 0 && starts.value == 1 && current() != 1 {
		unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	}
}

// Alone sets the flag for the time of f, which looks at a child that f's caller has told Enter of, and that nobody else may trace. It waits until each
// other child is in the same state; if the context ends before, f is not called.
func Alone(ctx context.Context, f func()) {
	starts.Lock()
	starts.alone++
	for starts.n != starts.alone {
		starts.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Microsecond):
		}
		starts.Lock()
		if ctx.Err() != nil {
			break
		}
	}
	defer starts.Unlock()
	starts.alone--
	if ctx.Err() != nil || starts.value != 1 {
		return
	}
	was := current()
	unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	f()
	unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(was), 0, 0, 0)
}

func current() int {
	n, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return n
}

// Wait returns when no start keeps the flag cleared, or with the context's error. Without privilege the files
// /proc/PID/uid_map of a child that shares our memory can be written only while the flag is set.
func Wait(ctx context.Context) error {
	for busy() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Microsecond):
		}
	}
	return nil
}

func busy() bool {
	starts.Lock()
	defer starts.Unlock()
	return starts.n > 0 && starts.value == 1 && current() != 1
}
