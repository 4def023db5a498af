package caisson_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// left is what a start could leave behind in this process.
type left struct {
	descriptors []string
	mounts      string
	goroutines  int
	threads     int
}

func look(t *testing.T) left {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	threads, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	return left{descriptors(t), string(mounts), runtime.NumGoroutine(), len(threads)}
}

func descriptors(t *testing.T) (all []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		target, _ := os.Readlink("/proc/self/fd/" + fd.Name()) // that of the directory itself is closed by now
		all = append(all, fd.Name()+" "+target)
	}
	slices.Sort(all)
	return all
}

// unchanged fails when something is there that was not. Goroutines that end take a moment, and the runtime keeps threads
// for later.
func (before left) unchanged(t *testing.T) {
	t.Helper()
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= before.goroutines })
	after := look(t)
	require.Equal(t, before.descriptors, after.descriptors)
	require.Equal(t, before.mounts, after.mounts)
	require.LessOrEqual(t, after.threads, before.threads+20)
}

// noZombie fails when there is a child that nobody has waited for; without any child it reports true.
func noZombie(t *testing.T) (childless bool) {
	t.Helper()
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	if err == unix.ECHILD {
		return true
	}
	require.NoError(t, err)
	require.Zero(t, info.Signo, "a child has ended, and nobody has waited for it")
	return false
}

// marked gives the processes, by pid, with this mark in their environment.
func marked(t *testing.T, mark string) (pids []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(mark)) {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// namespaceSet gives all namespaces in which some process is, as far as we may see them.
func namespaceSet(t *testing.T) map[string]bool {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/*")
	require.NoError(t, err)
	set := map[string]bool{}
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil {
			set[target] = true
		}
	}
	return set
}
