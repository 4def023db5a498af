//go:build linux

package lsm

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// deepVolume is a directory of that many levels, with a file in the innermost one. It is removed by a walk as well: RemoveAll of package os
// holds a descriptor for each level.
func deepVolume(t *testing.T, levels int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caisson-relabel")
	require.NoError(t, err)
	at, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	top, err := unix.Dup(at)
	require.NoError(t, err)
	t.Cleanup(func() {
		remove := deep.Tree{Names: namesIn, Open: openBelow, Before: func(fd int, _ deep.Path) (bool, error) {
			var st unix.Stat_t
			err := unix.Fstat(fd, &st)
			return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
		}, After: func(dir int, name string) error {
			if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != unix.ENOTDIR {
				return err
			}
			return unix.Unlinkat(dir, name, 0)
		}}
		require.NoError(t, remove.Walk(top))
		unix.Close(top)
		require.NoError(t, os.Remove(dir))
	})
	for i := range levels {
		require.NoError(t, unix.Mkdirat(at, strconv.Itoa(i), 0o755))
		next, err := unix.Openat(at, strconv.Itoa(i), unix.O_PATH|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		unix.Close(at)
		at = next
	}
	f, err := unix.Openat(at, "file", unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	unix.Close(f)
	unix.Close(at)
	return dir
}

// TestRelabelDeep: a volume of twenty thousand levels, which a sandbox can make in a moment, and 256 descriptors.
func TestRelabelDeep(t *testing.T) {
	levels := 20000
	if os.Getenv("VMRUN") != "" { // emulated
		levels = 5000
	}
	dir := deepVolume(t, levels)
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(unix.RLIMIT_NOFILE, &old))
	require.NoError(t, syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 256, Max: old.Max}))
	defer syscall.Setrlimit(unix.RLIMIT_NOFILE, &old)
	root, err := openPath(dir, 0)
	require.NoError(t, err)
	defer root.Close()
	n := 0
	require.NoError(t, walk(root, dir, func(int, unix.Stat_t) error { n++; return nil }))
	require.Equal(t, levels+2, n)
	err = walk(root, dir, func(_ int, st unix.Stat_t) error {
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			return syscall.EPERM
		}
		return nil
	})
	require.ErrorIs(t, err, syscall.EPERM)
	var e *RelabelError
	require.ErrorAs(t, err, &e)
	require.True(t, strings.HasPrefix(e.Path, dir+"/0/1/2/") && strings.HasSuffix(e.Path, fmt.Sprintf("/%d/file", levels-1)), e.Path)
	if os.Geteuid() == 0 {
		require.NoError(t, enabled().relabel(dir, Context{"system_u", "object_r", "container_file_t", "s0"}))
		label, err := contextOf(filepath.Join(dir, "0", "1", "2"))
		require.NoError(t, err)
		require.Equal(t, "system_u:object_r:container_file_t:s0", label)
	}
}
