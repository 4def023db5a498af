//go:build linux

package deep

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// plain walks directories of an ordinary file system.
func plain() *Tree {
	return &Tree{
		Names: func(dir int) ([]string, error) {
			fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(fd), "dir")
			defer f.Close()
			names, err := f.Readdirnames(-1)
			slices.Sort(names)
			return names, err
		},
		Open: func(dir int, name string) (int, error) {
			return unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		},
		Before: func(fd int, _ Path) (bool, error) {
			var st unix.Stat_t
			err := unix.Fstat(fd, &st)
			return st.Mode&unix.S_IFMT == unix.S_IFDIR, err
		},
	}
}

// top is a directory that is removed by a walk: RemoveAll of package os holds a descriptor for each level.
func top(t *testing.T) (string, int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "caisson-deep")
	require.NoError(t, err)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() {
		remove := plain()
		remove.After = func(dir int, name string) error {
			if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != unix.ENOTDIR {
				return err
			}
			return unix.Unlinkat(dir, name, 0)
		}
		require.NoError(t, remove.Walk(fd))
		unix.Close(fd)
		require.NoError(t, os.Remove(dir))
	})
	return dir, fd
}

// chain makes directories in each other, and names the file in the innermost one.
func chain(t *testing.T, fd, levels int) {
	t.Helper()
	at, err := unix.Dup(fd)
	require.NoError(t, err)
	for i := range levels {
		name := "d" + strconv.Itoa(i)
		require.NoError(t, unix.Mkdirat(at, name, 0o755))
		next, err := unix.Openat(at, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		unix.Close(at)
		at = next
	}
	f, err := unix.Openat(at, "file", unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	unix.Close(f)
	unix.Close(at)
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

func TestOrder(t *testing.T) {
	dir, fd := top(t)
	for _, d := range []string{"a/b/c", "a/d", "e"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a/f"), nil, 0o600))
	require.NoError(t, os.Symlink("..", filepath.Join(dir, "e/link")))
	var before, after []string
	w := plain()
	w.Before = func(fd int, p Path) (bool, error) {
		before = append(before, p.String())
		return plain().Before(fd, p)
	}
	w.After = func(_ int, name string) error { after = append(after, name); return nil }
	require.NoError(t, w.Walk(fd))
	require.Equal(t, []string{"a", "a/b", "a/b/c", "a/d", "a/f", "e", "e/link"}, before)
	require.Equal(t, []string{"c", "b", "d", "f", "a", "link", "e"}, after)
}

// TestDeep: thousands of levels, and the descriptors that some thirty need. Removing them afterwards is the same once more.
func TestDeep(t *testing.T) {
	const levels = 5000
	_, fd := top(t)
	chain(t, fd, levels)
	before, at, most, files := descriptors(t), 0, 0, 0
	w := plain()
	w.Before = func(fd int, p Path) (bool, error) {
		enter, err := plain().Before(fd, p)
		if at++; at%1000 == 0 {
			most = max(most, descriptors(t))
		}
		if !enter {
			files++
			require.True(t, strings.HasPrefix(p.String(), "d0/d1/"))
			require.True(t, strings.HasSuffix(p.String(), fmt.Sprintf("/d%d/file", levels-1)))
			require.Less(t, len(p.String()), 5000)
		}
		return enter, err
	}
	require.NoError(t, w.Walk(fd))
	require.Equal(t, 1, files)
	require.LessOrEqual(t, most, before+Held+4)
	require.Equal(t, before, descriptors(t))
}

// TestMoved: the way back up does not lead to where somebody has moved a part of the tree meanwhile.
func TestMoved(t *testing.T) {
	dir, fd := top(t)
	chain(t, fd, 2*Held)
	elsewhere := filepath.Join(dir, "z") // walked last
	require.NoError(t, os.Mkdir(elsewhere, 0o755))
	w, before := plain(), descriptors(t)
	w.Before = func(fd int, p Path) (bool, error) {
		enter, err := plain().Before(fd, p)
		if !enter {
			require.NoError(t, os.Rename(filepath.Join(dir, "d0/d1/d2"), filepath.Join(elsewhere, "d2")))
		}
		return enter, err
	}
	err := w.Walk(fd)
	require.ErrorIs(t, err, syscall.ESTALE)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "d0/d1/d2", e.Path)
	require.Equal(t, before, descriptors(t))
}

// TestErrors: whichever function fails, the error says where, and no descriptor is left.
func TestErrors(t *testing.T) {
	dir, fd := top(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755))
	boom, before := errors.New("boom"), descriptors(t)
	for at, break1 := range map[string]func(*Tree){
		"a/b": func(w *Tree) { w.After = func(_ int, name string) error { return when(name == "b", boom) } },
		"a/b/c": func(w *Tree) {
			w.Before = func(_ int, p Path) (bool, error) { return true, when(p.String() == "a/b/c", boom) }
		},
		"a": func(w *Tree) {
			open := w.Open
			w.Open = func(dir int, name string) (int, error) {
				if name == "a" {
					return -1, boom
				}
				return open(dir, name)
			}
		},
		"": func(w *Tree) { w.Names = func(int) ([]string, error) { return nil, boom } },
	} {
		w := plain()
		break1(w)
		err := w.Walk(fd)
		require.ErrorIs(t, err, boom, at)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, at, e.Path)
		require.Equal(t, before, descriptors(t), at)
	}
	w := plain()
	w.Open = func(int, string) (int, error) { return -1, nil }
	require.NoError(t, w.Walk(fd), "all is passed over")
}

func when(b bool, err error) error {
	if b {
		return err
	}
	return nil
}
