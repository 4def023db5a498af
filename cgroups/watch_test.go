package cgroups_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/cgroups"
)

// next waits for an event of a kind.
func next(t *testing.T, w *cgroups.Watcher, want cgroups.EventKind) cgroups.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var seen []string
	for {
		e, err := w.Next(ctx)
		require.NoError(t, err, "want %v, saw %v", want, seen)
		if e.Kind == want {
			return e
		}
		seen = append(seen, e.Kind.String())
	}
}

func TestEvents(t *testing.T) {
	needPerl(t)
	g := create(t, cgroups.Limits{Memory: 32 * cgroups.MiB, Swap: cgroups.None, PIDs: 10, CPUs: 0.5})
	w, err := cgroups.Watch()
	require.NoError(t, err)
	defer w.Close()
	require.NoError(t, w.Add(g))
	cmd := sleeper(t)
	require.NoError(t, g.Add(cmd.Process.Pid))
	require.Equal(t, g, next(t, w, cgroups.Populated).Group)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, g.Freeze(ctx))
	next(t, w, cgroups.Frozen)
	require.NoError(t, g.Thaw())
	next(t, w, cgroups.Thawed)
	require.NoError(t, g.Kill())
	cmd.Wait()
	next(t, w, cgroups.Empty)

	inside(t, g, hog)
	require.Positive(t, next(t, w, cgroups.OOMKill).Count)
	empty := func() bool { pids, err := g.Procs(); return err == nil && len(pids) == 0 }
	require.Eventually(t, empty, 10*time.Second, time.Millisecond)
	w.Forget(g)
	require.NoError(t, w.Add(g))
	if unified() {
		require.NoError(t, g.Set(cgroups.Limits{MemoryHigh: 8 * cgroups.MiB}))
		inside(t, g, "dd if=/dev/zero of=/dev/null bs=16M count=1 2>/dev/null")
		require.Positive(t, next(t, w, cgroups.MemorySlow).Count)
		require.NoError(t, g.Set(cgroups.Limits{MemoryHigh: cgroups.NoLimit}))
		inside(t, g, bomb)
		require.Positive(t, next(t, w, cgroups.PIDsMax).Count)
	} else {
		inside(t, g, "sleep 1000")
		next(t, w, cgroups.Populated)
	}
	require.NoError(t, g.Kill())
	next(t, w, cgroups.Empty)

	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for err == nil {
		_, err = w.Next(short)
	}
	require.ErrorIs(t, err, context.DeadlineExceeded)
	inside(t, g, "sleep 1000")
	next(t, w, cgroups.Populated) // it waits again after a deadline
	require.NoError(t, g.Kill())
	w.Forget(g)
	require.Empty(t, w.String())
	go func() { time.Sleep(20 * time.Millisecond); w.Close() }()
	_, err = w.Next(context.Background())
	require.ErrorIs(t, err, os.ErrClosed)
}

// inside runs a shell command in the group.
func inside(t *testing.T, g *cgroups.Group, script string) {
	t.Helper()
	cmd := shell("read x; " + script)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	require.NoError(t, g.Add(cmd.Process.Pid))
	fmt.Fprintln(in)
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
}

func TestPressureTrigger(t *testing.T) {
	g := create(t, cgroups.Limits{CPUSet: "0"})
	w, err := cgroups.Watch()
	require.NoError(t, err)
	defer w.Close()
	err = w.AddPressure(g, cgroups.CPU, false, 100*time.Millisecond, 2*time.Second)
	if errors.Is(err, errors.ErrUnsupported) {
		require.NotContains(t, g.Directories()[0], "unified", "version 2 has pressure")
		return
	}
	require.NoError(t, err)
	inside(t, g, "while :; do :; done & while :; do :; done")
	e := next(t, w, cgroups.UnderStress)
	require.Equal(t, cgroups.CPU, e.Resource)
	p, err := g.Pressure(cgroups.CPU)
	require.NoError(t, err)
	require.Greater(t, p.Some.Total, 50*time.Millisecond)
	require.NoError(t, g.Kill())
}

// TestManyWatched: a thousand groups, one thread, no goroutine, little memory.
func TestManyWatched(t *testing.T) {
	parent := create(t, cgroups.Limits{})
	n := 100
	if os.Getenv("CAISSON_SLOW") != "" {
		n = 1000
	}
	w, err := cgroups.Watch()
	require.NoError(t, err)
	defer w.Close()
	groups := make([]*cgroups.Group, n)
	for i := range groups {
		groups[i], err = parent.Create(fmt.Sprint(i), cgroups.Limits{})
		require.NoError(t, err)
		defer groups[i].Close()
	}
	threads, routines, heap := threadCount(t), runtime.NumGoroutine(), heapNow()
	for _, g := range groups {
		require.NoError(t, w.Add(g))
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), routines)
	require.LessOrEqual(t, threadCount(t), threads+1)
	grown := int64(heapNow()) - int64(heap)
	t.Logf("%d groups: %d KiB", n, grown>>10)
	require.Less(t, grown, int64(n)*10<<10)
	inside(t, groups[n-1], "sleep 1000")
	require.Equal(t, groups[n-1], next(t, w, cgroups.Populated).Group)
}

func heapNow() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func threadCount(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	lines := strings.Split(string(b), "\n")
	i := slices.IndexFunc(lines, func(s string) bool { return strings.HasPrefix(s, "Threads:") })
	var n int
	_, err = fmt.Sscanf(lines[i], "Threads:\t%d", &n)
	require.NoError(t, err)
	return n
}

// TestRemovedEvent: the end of a group is told once, after all else of it, and the others are watched on.
func TestRemovedEvent(t *testing.T) {
	parent := create(t, cgroups.Limits{})
	w, err := cgroups.Watch()
	require.NoError(t, err)
	defer w.Close()
	var groups []*cgroups.Group
	for _, name := range []string{"mine", "another's", "stays"} {
		g, err := parent.Create(name, cgroups.Limits{PIDs: 10})
		require.NoError(t, err)
		defer g.Close()
		require.NoError(t, w.Add(g))
		if err := w.AddPressure(g, cgroups.CPU, false, 200*time.Millisecond, 2*time.Second); err != nil {
			require.ErrorIs(t, err, errors.ErrUnsupported)
		}
		groups = append(groups, g)
	}
	inside(t, groups[0], "sleep 1000")
	next(t, w, cgroups.Populated)
	require.NoError(t, groups[0].Delete(), "with a process in it")
	require.Equal(t, groups[0], next(t, w, cgroups.Removed).Group)
	same, err := parent.Open("another's")
	require.NoError(t, err)
	require.NoError(t, same.Delete())
	e := next(t, w, cgroups.Removed)
	require.Equal(t, cgroups.Event{Group: groups[1], Kind: cgroups.Removed, Count: 1}, e)
	require.Equal(t, groups[2].String(), w.String(), "the removed ones are forgotten")

	inside(t, groups[2], "sleep 1000")
	require.Equal(t, groups[2], next(t, w, cgroups.Populated).Group)
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for {
		e, err := w.Next(short)
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			break
		}
		require.Equal(t, groups[2], e.Group, "nothing comes after Removed: %v", e.Kind)
	}
	require.NoError(t, groups[2].Kill())
}
