package overlay_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/overlay"
)

// prepared runs something in a sandbox, and gives the directories that are left.
func prepared(t *testing.T) (base, upper, work string) {
	t.Helper()
	base = put(t, t.TempDir(), map[string]string{"f": "base", "gone": "x", "d/old": "x", "e/keep": "x"})
	upper, work = pair(t)
	out := run(t, "rm gone; rm -r d; mkdir d; echo new > d/new; echo changed > f; ln f g; ln -s f l; mkfifo p; chmod 4711 g",
		append(programs(t), overlay.Root{Lower: []string{base}, Upper: upper, Work: work})...)
	require.Empty(t, out)
	return base, upper, work
}

const look = "cat f g l; ls d; ls gone 2>&1; stat -c '%a %h' g; test -p p && echo fifo; ls e"

const seen = "changed\nchanged\nchanged\nnew\n(.*)No such file.*\n4711 2\nfifo\nkeep\n"

// TestTake: the environment is prepared once, and many sandboxes start from it.
func TestTake(t *testing.T) {
	base, upper, work := prepared(t)
	layer := filepath.Dir(upper) + "/layer"
	require.NoError(t, overlay.Take(upper, work, layer))
	names, err := os.ReadDir(upper)
	require.NoError(t, err)
	require.Empty(t, names)
	names, err = os.ReadDir(work)
	require.NoError(t, err)
	require.Empty(t, names)
	other := t.TempDir()
	for i := range 5 {
		s := overlay.Root{Lower: []string{layer, base}, Upper: fmt.Sprintf("%s/u%d", other, i), Work: fmt.Sprintf("%s/w%d", other, i)}
		require.NoError(t, errors.Join(os.Mkdir(s.Upper, 0o755), os.Mkdir(s.Work, 0o755)))
		require.Regexp(t, "^"+seen+"$", run(t, look+"; echo mine > f", append(programs(t), s)...))
	}
	run(t, "echo again > f", append(programs(t), overlay.Root{Lower: []string{layer, base}, Upper: upper, Work: work})...)
	require.NoError(t, overlay.Take(upper, work, layer+"2"))
	require.Equal(t, "again\n", run(t, "cat f", append(programs(t), overlay.Root{Lower: []string{layer + "2", layer, base}, Upper: upper, Work: work})...))
	t.Run("refused", func(t *testing.T) {
		require.ErrorIs(t, overlay.Take(upper, work, layer), syscall.EEXIST)
		require.ErrorIs(t, overlay.Take(upper, work, "/no/such/layer"), syscall.ENOENT)
		require.ErrorIs(t, overlay.Take("/no/such", work, layer+"3"), syscall.ENOENT)
		link := filepath.Join(t.TempDir(), "link")
		require.NoError(t, os.Symlink(upper, link))
		require.ErrorIs(t, overlay.Take(link, work, layer+"3"), syscall.ENOTDIR)
		if var_, shm := device(t, upper), device(t, "/dev/shm"); var_ != shm {
			err := overlay.Take(upper, work, fmt.Sprintf("/dev/shm/caisson-test-%d", os.Getpid()))
			require.ErrorIs(t, err, syscall.EXDEV)
			require.Contains(t, err.Error(), "Freeze")
		}
		lock, err := os.Open(work)
		require.NoError(t, err)
		defer lock.Close()
		require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		require.ErrorIs(t, overlay.Take(upper, work, layer+"3"), syscall.EBUSY)
		left, err := filepath.Glob(filepath.Dir(upper) + "/*")
		require.NoError(t, err)
		require.Len(t, left, 4, "nothing half made is left: %v", left)
	})
}

func device(t *testing.T, name string) uint64 {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(name, &st))
	return uint64(st.Dev)
}

// TestFreeze copies from below a sandbox that runs.
func TestFreeze(t *testing.T) {
	base := put(t, t.TempDir(), map[string]string{"f": "base", "gone": "x", "d/old": "x", "e/keep": "x"})
	upper, work := pair(t)
	in, out := pipes(t)
	end := startWaiting(t, in, out, "rm gone; rm -r d; mkdir d; echo new > d/new; echo changed > f; ln f g; ln -s f l; mkfifo p; chmod 4711 g; echo; read x; echo later > f",
		append(programs(t), overlay.Root{Lower: []string{base}, Upper: upper, Work: work}, chroot.Proc{})...)
	require.Equal(t, "\n", firstBytes(t, out, 1))
	layer := filepath.Dir(upper) + "/layer"
	require.NoError(t, overlay.Freeze(upper, layer))
	require.ErrorIs(t, overlay.Take(upper, work, layer+"2"), syscall.EBUSY)
	in.W.Close()
	end()
	require.ErrorIs(t, overlay.Freeze(upper, layer), syscall.EEXIST)
	require.ErrorIs(t, overlay.Freeze("/no/such", layer+"2"), syscall.ENOENT)
	require.Equal(t, "later\n", run(t, "cat f", append(programs(t), overlay.Root{Lower: []string{base}, Upper: upper, Work: work})...))
	u, w := pair(t)
	require.Regexp(t, "^"+seen+"$", run(t, look, append(programs(t), overlay.Root{Lower: []string{layer, base}, Upper: u, Work: w})...))
	left, err := filepath.Glob(filepath.Dir(upper) + "/*")
	require.NoError(t, err)
	require.Len(t, left, 3, "nothing half made is left: %v", left)
	t.Run("marks of the old stack are left out", func(t *testing.T) {
		asRoot(t)
		b := make([]byte, 4096)
		n, err := unix.Listxattr(layer+"/d", b)
		require.NoError(t, err)
		require.Equal(t, "trusted.overlay.opaque\x00", string(b[:n]))
		n, err = unix.Listxattr(layer, b)
		require.NoError(t, err)
		require.NotContains(t, string(b[:n]), "overlay")
	})
}

// TestFreezeHostile: who is in the sandbox exchanges files and links meanwhile; nothing of the host comes into the layer.
func TestFreezeHostile(t *testing.T) {
	dir := t.TempDir()
	secret := put(t, filepath.Join(dir, "secret"), map[string]string{"s": "secret"})
	upper := put(t, filepath.Join(dir, "upper"), map[string]string{"d/s": "own", "f": "own"})
	require.NoError(t, errors.Join(os.Symlink(secret, upper+"/ld"), os.Symlink(secret+"/s", upper+"/lf")))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, upper+"/d", unix.AT_FDCWD, upper+"/ld", unix.RENAME_EXCHANGE)
				unix.Renameat2(unix.AT_FDCWD, upper+"/f", unix.AT_FDCWD, upper+"/lf", unix.RENAME_EXCHANGE)
			}
		}
	}()
	done := 0
	for i := range rounds(30) {
		layer := fmt.Sprintf("%s/layer%d", dir, i)
		if err := overlay.Freeze(upper, layer); err != nil {
			continue
		}
		done++
		require.NoError(t, filepath.WalkDir(layer, func(name string, e os.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				b, err := os.ReadFile(name)
				require.NoError(t, err)
				require.Equal(t, "own", string(b))
			}
			return err
		}))
	}
	close(stop)
	<-stopped
	require.Positive(t, done)
	left, err := filepath.Glob(dir + "/*.part-*")
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestFreezeDeep: a tree deeper than a path can be long, and than there are descriptors.
func TestFreezeDeep(t *testing.T) {
	dir := t.TempDir()
	upper := put(t, filepath.Join(dir, "upper"), nil)
	fd, err := unix.Open(upper, unix.O_PATH|unix.O_DIRECTORY, 0)
	require.NoError(t, err)
	const levels = 300
	for range levels {
		name := strings.Repeat("d", 100)
		require.NoError(t, unix.Mkdirat(fd, name, 0o755))
		below, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		unix.Close(fd)
		fd = below
	}
	unix.Close(fd)
	require.NoError(t, overlay.Freeze(upper, dir+"/layer"))
	n := 0
	fd, err = unix.Open(dir+"/layer", unix.O_PATH|unix.O_DIRECTORY, 0)
	require.NoError(t, err)
	for {
		below, err := unix.Openat(fd, strings.Repeat("d", 100), unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		if err != nil {
			break
		}
		fd, n = below, n+1
	}
	require.Equal(t, levels, n)
}
