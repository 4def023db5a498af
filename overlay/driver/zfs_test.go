package driver_test

import (
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/driver"
)

// onPool calls f with a mounted dataset of a fresh pool, and with that dataset's name. The pool is a file.
func onPool(t *testing.T, f func(at, dataset string)) {
	t.Helper()
	if !inFirst(t) {
		t.Skip("needs root: a pool")
	}
	for _, tool := range []string{"zpool", "zfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (zfsutils-linux)", tool)
		}
	}
	exec.Command("modprobe", "zfs").Run()
	known, err := os.ReadFile("/proc/filesystems")
	require.NoError(t, err)
	if !strings.Contains(string(known), "\tzfs\n") {
		t.Skip("the kernel has no zfs")
	}
	private(t, func(dir string) {
		image, at, pool := filepath.Join(dir, "image"), filepath.Join(dir, "mnt"), "caisson-"+rand.Text()
		require.NoError(t, errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 320<<20), os.Mkdir(at, 0o755)))
		zpool(t, "create", "-o", "cachefile=none", "-O", "mountpoint=none", pool, image)
		defer zpool(t, "destroy", "-f", pool)
		// Properties that datasets of ours would inherit, and a name that mountinfo has to quote.
		dataset := pool + "/with space"
		zfs(t, "create", "-o", "mountpoint=legacy", "-o", "snapdir=visible", dataset)
		require.NoError(t, unix.Mount(dataset, at, "zfs", 0, ""))
		defer unix.Unmount(at, unix.MNT_DETACH)
		f(at, dataset)
	})
}

func zpool(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command("zpool", args...).CombinedOutput()
	require.NoError(t, err, "%q: %s", args, out)
}

func zfs(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("zfs", args...).CombinedOutput()
	require.NoError(t, err, "%q: %s", args, out)
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}

// TestZfs is what every driver passes; and nothing is left, no dataset, no snapshot.
func TestZfs(t *testing.T) {
	onPool(t, func(at, dataset string) {
		all := func() []string { return zfs(t, "list", "-H", "-r", "-t", "all", "-o", "name", dataset) }
		d := driver.Zfs{Dir: filepath.Join(at, "trees")}
		conform(t, d)
		raceHere(t, d)
		require.Equal(t, []string{dataset}, all())
		inTree(t, d, all)
		require.Equal(t, []string{dataset}, all())
		staleZfs(t, d)
		require.Equal(t, []string{dataset}, all())
		require.Empty(t, list(t, d.Dir))
		require.ErrorIs(t, driver.Zfs{Dir: d.Dir, Program: "/no/such"}.Create("x", ""), errors.ErrUnsupported)
		require.Empty(t, list(t, d.Dir), "nothing is left")
	})
}

// inTree: who was in a tree has made a snapshot in it, and a tree of his own.
func inTree(t *testing.T, d driver.Zfs, all func() []string) {
	t.Helper()
	require.NoError(t, d.Create("outer", ""))
	zfs(t, "snapshot", all()[1]+"@mine") // which takes a mkdir in .zfs/snapshot, where zfs_admin_snapshot is set
	with(t, d, "outer", func(dir string) {
		inner := driver.Zfs{Dir: dir + "/inner"}
		require.NoError(t, inner.Create("x", ""))
		require.NoError(t, inner.Create("y", "x"))
		with(t, inner, "y", func(dir string) { require.NoError(t, os.WriteFile(dir+"/f", nil, 0o600)) })
	})
	require.NoError(t, d.Remove("outer"))
}

// staleZfs: a process was killed that had a tree open; one that had noted what it would make; one that had not even done that; and a program goes on.
func staleZfs(t *testing.T, d driver.Zfs) {
	t.Helper()
	require.NoError(t, d.Create("left", ""))
	tree, err := d.Open("left")
	require.NoError(t, err)
	require.NoError(t, unix.Mount(tree.Path, tree.Path, "", unix.MS_BIND, ""), "on top")
	require.NoError(t, tree.Close())
	with(t, d, "left", func(dir string) { require.NoError(t, os.WriteFile(dir+"/f", nil, 0o600)) })
	id := "caisson-" + strings.Repeat("a", 26)
	for name, text := range map[string]string{"A": id, "B": "", "C": id + "@" + id} {
		require.NoError(t, os.MkdirAll(d.Dir+"/.new-"+name, 0o700))
		require.NoError(t, os.WriteFile(d.Dir+"/.new-"+name+"/dataset", []byte(text), 0o600))
	}
	orphan, err := os.Open(d.Dir + "/.new-A/dataset")
	require.NoError(t, err)
	require.NoError(t, unix.Flock(int(orphan.Fd()), unix.LOCK_EX))
	require.NoError(t, d.Remove("left"))
	require.NoError(t, d.Create("next", ""))
	require.Equal(t, []string{".new-A", "next"}, list(t, d.Dir), "a program still works on A")
	require.NoError(t, orphan.Close())
	require.NoError(t, d.Remove("next"))
	require.NoError(t, d.Create("sweeps", ""))
	require.NoError(t, d.Remove("sweeps"))
	require.Empty(t, list(t, d.Dir))
}

// TestZfsRefused: without CAP_SYS_ADMIN no dataset is made, and nothing is left.
func TestZfsRefused(t *testing.T) {
	onPool(t, func(at, _ string) {
		d, refused := driver.Zfs{Dir: at + "/trees"}, make(chan error)
		run := here(t)
		go run(func() {
			err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0) // of this thread, and what it starts
			refused <- errors.Join(err, d.Create("x", ""))
		})
		require.ErrorIs(t, <-refused, os.ErrPermission)
		require.Empty(t, list(t, d.Dir))
	})
}

// TestZfsKilled: whenever a process is killed, a tree is complete or absent, and the next one removes what is left.
func TestZfsKilled(t *testing.T) {
	onPool(t, func(at, dataset string) {
		d := driver.Zfs{Dir: filepath.Join(at, "trees")}
		require.NoError(t, d.Create("base", ""))
		with(t, d, "base", fillBase)
		self, err := os.Executable()
		require.NoError(t, err)
		for i := range 5 {
			cmd := exec.Command(self, "-test.run=^TestZfsToBeKilled$")
			cmd.Env = append(os.Environ(), "CAISSON_TREES="+d.Dir)
			require.NoError(t, cmd.Start())
			time.Sleep(time.Duration(100+200*i) * time.Millisecond)
			require.NoError(t, cmd.Process.Kill())
			cmd.Wait()
		}
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); { // what it had started may still be at work
			err = d.Create("job", "base")
			require.True(t, err == nil || errors.Is(err, os.ErrExist), err)
			if strings.Join(list(t, d.Dir), " ") == "base job" {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		require.Equal(t, []string{"base", "job"}, list(t, d.Dir))
		with(t, d, "job", func(dir string) { checkBase(t, dir) })
		require.NoError(t, errors.Join(d.Remove("job"), d.Remove("base")))
		require.Equal(t, []string{dataset}, zfs(t, "list", "-H", "-r", "-t", "all", "-o", "name", dataset))
	})
}

// TestZfsToBeKilled is the process that TestZfsKilled kills.
func TestZfsToBeKilled(t *testing.T) {
	dir := os.Getenv("CAISSON_TREES")
	if dir == "" {
		return
	}
	for d := (driver.Zfs{Dir: dir}); ; {
		d.Create("job", "base")
		if tree, err := d.Open("job"); err == nil {
			tree.Close()
		}
		d.Remove("job")
	}
}

// TestZfsProbe: where the kernel's overlayfs cannot write to zfs (before zfs 2.2), clones are found.
func TestZfsProbe(t *testing.T) {
	onPool(t, func(at, _ string) {
		d, err := driver.Probe(at + "/trees")
		require.NoError(t, err)
		if driver.Try(driver.Overlayfs{Dir: at + "/trees"}) != nil {
			require.IsType(t, driver.Zfs{}, d)
		}
	})
}

// TestZfsLayers: a clone, and layers as on any other file system.
func TestZfsLayers(t *testing.T) {
	onPool(t, func(at, dataset string) {
		throughLayers(t, twoLayers(t), "zfs", filepath.Join(at, "run"))
		require.Equal(t, []string{dataset}, zfs(t, "list", "-H", "-r", "-t", "all", "-o", "name", dataset))
	})
}

// TestZfsUnsupported: the error says what it takes, and nothing is left.
func TestZfsUnsupported(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "caisson-test-") // which is no zfs
	require.NoError(t, err)
	defer os.Remove(dir)
	err = driver.Try(driver.Zfs{Dir: dir})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, dir+" is not on zfs")
	require.ErrorContains(t, err, "zfsutils-linux")
	require.Empty(t, list(t, dir))
}

// TestZfsMessages: what the program says becomes an errno.
func TestZfsMessages(t *testing.T) {
	exit := errors.New("exit status 1")
	for said, want := range map[string]error{
		"cannot open 'p/x': dataset does not exist\nusage:\n\tsnapshot [-r]\n":                      syscall.ENOENT,
		"could not find any snapshots to destroy; check snapshot names.\n":                          syscall.ENOENT,
		"cannot unmount '/x': pool or dataset is busy\n":                                            syscall.EBUSY,
		"Permission denied the ZFS utilities must be run as root.\n":                                os.ErrPermission,
		"cannot create 'p/x': permission denied\n":                                                  os.ErrPermission,
		"cannot create 'p/x': out of space\n":                                                       syscall.ENOSPC,
		"The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.\n": errors.ErrUnsupported,
		"something new": exit,
		"":              exit,
	} {
		err := driver.Understand(said, exit)
		require.ErrorIs(t, err, want)
		first, _, _ := strings.Cut(said, "\n")
		require.True(t, strings.HasSuffix(err.Error(), ": "+first), err)
	}
}

// FuzzParseClone: what is read is what was written, and nothing else comes to zfs destroy.
func FuzzParseClone(f *testing.F) {
	id := "caisson-" + strings.Repeat("a2", 13)
	for _, s := range []string{"", id, id + "@" + id, "@", id + "@", "@" + id, "caisson-", id + "/x", id + "@" + id + "@" + id, "-r", "caisson-" + strings.Repeat("A", 26)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, parent, err := driver.ParseClone(s)
		if err != nil {
			require.ErrorIs(t, err, syscall.EINVAL)
			return
		}
		want := name
		if parent != "" {
			want = parent + "@" + name
		}
		require.Equal(t, want, s)
		require.Len(t, name, 34)
		require.NotContains(t, name+parent, "/")
	})
}
