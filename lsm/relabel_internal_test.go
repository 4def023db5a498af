//go:build linux

package lsm

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestRelabelLateLink: a hard link that is made between the look and the labelling is refused.
func TestRelabelLateLink(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	links := &linkCount{seen: map[inode]uint64{}, want: map[inode]uint64{}}
	look := func() (st unix.Stat_t) {
		require.NoError(t, unix.Fstat(int(f.Fd()), &st))
		return st
	}
	require.NoError(t, links.count(0, look()))
	require.NoError(t, links.still(look()))
	require.NoError(t, os.Link(name, filepath.Join(dir, "late")))
	require.ErrorIs(t, links.still(look()), syscall.EPERM)
	require.NoError(t, links.count(0, look()))
	require.NoError(t, links.still(look()), "a link that was counted")
}
