package cgroups_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/cgroups"
)

// fewDescriptors lets the process open no more than 64 files until the test ends.
func fewDescriptors(t *testing.T) {
	t.Helper()
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(unix.RLIMIT_NOFILE, &old))
	few := syscall.Rlimit{Cur: 64, Max: old.Max}
	require.NoError(t, syscall.Setrlimit(unix.RLIMIT_NOFILE, &few))
	t.Cleanup(func() { require.NoError(t, syscall.Setrlimit(unix.RLIMIT_NOFILE, &old)) })
}

// nest makes groups in each other, as a sandbox may to which a group has been given, and gives the innermost one of each hierarchy by its descriptor.
func nest(t *testing.T, g *cgroups.Group, levels int) []*os.File {
	t.Helper()
	var inner []*os.File
	for _, dir := range g.Directories() {
		at, err := os.Open(dir)
		require.NoError(t, err)
		for range levels {
			require.NoError(t, unix.Mkdirat(int(at.Fd()), "n", 0o755))
			fd, err := unix.Openat(int(at.Fd()), "n", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			require.NoError(t, err)
			at.Close()
			at = os.NewFile(uintptr(fd), "n")
		}
		inner = append(inner, at)
	}
	return inner
}

// TestDeep: a tree that is deeper than the caller has descriptors is listed, killed and removed all the same.
func TestDeep(t *testing.T) {
	g := create(t, cgroups.Limits{})
	levels := 300
	if os.Getenv("CAISSON_SLOW") != "" && os.Getenv("VMRUN") == "" {
		levels = 3000
	}
	sub, err := g.Create("sub", cgroups.Limits{})
	require.NoError(t, err)
	inner := nest(t, sub, levels)
	cmd := sleeper(t)
	for _, f := range inner {
		fd, err := unix.Openat(int(f.Fd()), "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		_, err = unix.Write(fd, fmt.Append(nil, cmd.Process.Pid))
		require.NoError(t, err)
		unix.Close(fd)
		f.Close()
	}
	before := descriptors(t)
	fewDescriptors(t)
	pids, err := g.Procs()
	require.NoError(t, err)
	require.True(t, slices.Equal([]int{cmd.Process.Pid}, pids), pids)
	begun := time.Now()
	require.NoError(t, sub.Delete())
	t.Logf("%d levels in %d hierarchies removed in %v", levels, len(inner), time.Since(begun))
	require.Error(t, cmd.Wait(), "killed")
	require.LessOrEqual(t, descriptors(t), before)
}

// TestBounded: who owns a group makes no more groups in it than he was allowed.
func TestBounded(t *testing.T) {
	root(t)
	if !unified() {
		own, err := cgroups.Own()
		require.NoError(t, err)
		defer own.Close()
		_, err = own.Create("caisson-test-bounded", cgroups.Limits{Depth: 2})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	g := create(t, cgroups.Limits{Descendants: 3, Depth: 2})
	l, err := g.Limits()
	require.NoError(t, err)
	require.Equal(t, []int64{3, 2}, []int64{l.Descendants, l.Depth})
	at := g
	for range 2 {
		at, err = at.Create("n", cgroups.Limits{})
		require.NoError(t, err)
		defer at.Close()
	}
	_, err = at.Create("n", cgroups.Limits{})
	require.ErrorIs(t, err, syscall.EAGAIN)
	require.ErrorContains(t, err, "none so deep")
	third, err := g.Create("third", cgroups.Limits{})
	require.NoError(t, err)
	defer third.Close()
	_, err = g.Create("fourth", cgroups.Limits{})
	require.ErrorIs(t, err, syscall.EAGAIN)
	require.NoError(t, g.Set(cgroups.Limits{Depth: cgroups.None, Descendants: cgroups.NoLimit}))
	l, err = g.Limits()
	require.NoError(t, err)
	require.Equal(t, []int64{cgroups.NoLimit, cgroups.None}, []int64{l.Descendants, l.Depth})
	info, err := os.Stat(g.Directories()[0] + "/cgroup.max.depth")
	require.NoError(t, err)
	require.NoError(t, g.Delegate(65534, 65534))
	after, err := os.Stat(g.Directories()[0] + "/cgroup.max.depth")
	require.NoError(t, err)
	require.Equal(t, info.Sys().(*syscall.Stat_t).Uid, after.Sys().(*syscall.Stat_t).Uid, "the bounds are not the user's")
}
