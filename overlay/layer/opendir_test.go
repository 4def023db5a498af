package layer_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// TestOpenDir: with openat2(2) and without, where a filter forbids it, neither a link nor a mount is entered.
func TestOpenDir(t *testing.T) {
	for name, open := range map[string]func(int, string) (int, error){"openat2": layer.OpenDir, "by hand": layer.OpenDirByHand} {
		dst, outside := cage(t)
		require.NoError(t, os.Symlink(outside, filepath.Join(dst, "link")))
		require.NoError(t, os.Mkdir(filepath.Join(dst, "dir"), 0o755))
		write(t, filepath.Join(dst, "file"), "")
		require.NoError(t, unix.Mkfifo(filepath.Join(dst, "fifo"), 0o600))
		dir, err := os.Open(dst)
		require.NoError(t, err)
		defer dir.Close()
		fd, err := open(int(dir.Fd()), "dir")
		require.NoError(t, err, name)
		unix.Close(fd)
		for word, want := range map[string][]error{"link": {syscall.ELOOP, syscall.ENOTDIR}, "file": {syscall.ENOTDIR}, "fifo": {syscall.ENOTDIR}, "no": {syscall.ENOENT}} {
			_, err := open(int(dir.Fd()), word)
			require.Contains(t, want, err, "%s %s", name, word)
		}
		top, err := os.Open("/")
		require.NoError(t, err)
		defer top.Close()
		_, err = open(int(top.Fd()), "proc")
		require.Equal(t, syscall.EXDEV, err, name)
	}
}
