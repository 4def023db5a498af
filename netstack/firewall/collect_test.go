//go:build linux

package firewall

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestCollect: directories of namespaces that are gone go, and no others.
func TestCollect(t *testing.T) {
	above := t.TempDir()
	now := time.Now()
	dir := func(name string, age time.Duration, files ...string) *lockDir {
		d, err := makeLockDir(above, name)
		require.NoError(t, err)
		for _, f := range files {
			require.NoError(t, os.WriteFile(filepath.Join(d.path, f), nil, 0o600))
			require.NoError(t, os.Chtimes(filepath.Join(d.path, f), now.Add(-age), now.Add(-age)))
		}
		require.NoError(t, os.Chtimes(d.path, now.Add(-age), now.Add(-age)))
		t.Cleanup(d.close)
		return d
	}
	const day = 24 * time.Hour
	dir("net-1", day).close()
	dir("inode-2", day, "web", openName).close() // of somebody dead
	dir("net-3", 6*day, freedName).close()
	dir("net-4", time.Minute)
	dir("net-5", day, freedName)
	dir("other", day)
	dir("net-6", day, "strange name")
	held := dir("net-7", day, "web")
	lock, _, err := held.take("web")
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, os.Chtimes(held.path, now.Add(-day), now.Add(-day)))
	marked := dir("net-8", day)
	again, err := marked.openMark()
	require.NoError(t, err)
	require.False(t, again)
	require.NoError(t, os.Chtimes(marked.path, now.Add(-day), now.Add(-day)))
	require.NoError(t, os.Symlink(marked.path, filepath.Join(above, "net-9")))
	dir("net-own", day)

	collect(above, "net-own", now)
	list, err := os.ReadDir(above)
	require.NoError(t, err)
	var left []string
	for _, e := range list {
		left = append(left, e.Name())
	}
	require.Equal(t, []string{"net-4", "net-5", "net-7", "net-8", "net-9", "net-own", "other"}, left)
}

// TestCollectRace: whoever opens a directory that is removed just then gets one that is there.
func TestCollectRace(t *testing.T) {
	above := t.TempDir()
	stop := make(chan bool)
	done := make(chan bool)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				removeUnused(filepath.Join(above, "net-1"), time.Now())
			}
		}
	}()
	for range 300 {
		d, err := openLockDir(above, "net-1")
		require.NoError(t, err)
		f, left, err := d.take("web")
		require.NoError(t, err)
		require.False(t, left)
		var st unix.Stat_t
		require.NoError(t, unix.Lstat(filepath.Join(above, "net-1", "web"), &st), "the file is where others look for it")
		d.drop(f, "web")
		d.close()
	}
	close(stop)
	<-done
}
