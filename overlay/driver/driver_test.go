package driver_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/overlay/driver"
	"github.com/caisson-dev/caisson/plan"
)

// private calls f in a mount namespace that is thrown away. An ordinary user gets one by way of a user namespace, in which the test is run
// again.
func private(t *testing.T, f func(dir string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		again(t)
		return
	}
	dir, done := t.TempDir(), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
			return
		}
		f(dir)
	}()
	<-done
}

func again(t *testing.T) {
	t.Helper()
	againAs(t, t.Name())
}

func againAs(t *testing.T, name string) {
	t.Helper()
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("needs unshare (util-linux)")
	}
	if out, err := exec.Command(unshare, "-Urm", "true").CombinedOutput(); err != nil {
		t.Skipf("ordinary users may not make user namespaces here: %s", out)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	out, err := exec.Command(unshare, "-Urm", self, "-test.v", "-test.run=^"+name+"$").CombinedOutput()
	if i := bytes.Index(out, []byte("--- SKIP")); i >= 0 && err == nil {
		t.Skipf("as root of a user namespace: %s", out[i:])
	}
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS")
}

// TestInUserNamespace: root of a user namespace uses the drivers as an ordinary user does.
func TestInUserNamespace(t *testing.T) {
	if os.Geteuid() != 0 || !inFirst(t) {
		t.Skip("the other tests do it for an ordinary user")
	}
	for _, name := range []string{"TestOverlayfs", "TestFuse"} {
		t.Run(name, func(t *testing.T) { againAs(t, name) })
	}
}

// inFirst: root of the machine, not of a user namespace.
func inFirst(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/uid_map")
	require.NoError(t, err)
	return os.Geteuid() == 0 && slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}

func TestCopy(t *testing.T) {
	d := driver.Copy{Dir: filepath.Join(t.TempDir(), "trees")}
	conform(t, d)
	race(t, d)
}

func TestOverlayfs(t *testing.T) {
	private(t, func(dir string) {
		d := driver.Overlayfs{Dir: filepath.Join(dir, "trees")}
		if err := driver.Try(d); errors.Is(err, errors.ErrUnsupported) && !inFirst(t) {
			t.Skipf("the file system of temporary files has no extended attributes: %v", err)
		}
		conform(t, d)
		race(t, d)
		stale(t, d)
	})
}

func TestFuse(t *testing.T) {
	if _, err := exec.LookPath("fuse-overlayfs"); err != nil {
		t.Skip("needs fuse-overlayfs")
	}
	exec.Command("modprobe", "fuse").Run() // where it is a module
	private(t, func(dir string) {
		d := driver.Fuse{Dir: filepath.Join(dir, "trees")}
		if err := driver.Try(d); errors.Is(err, errors.ErrUnsupported) {
			t.Skipf("%v", err)
		}
		conform(t, d)
	})
}

func TestBtrfs(t *testing.T) {
	private(t, func(dir string) {
		at := onLoop(t, dir, "btrfs", "mkfs.btrfs", "-q")
		d := driver.Btrfs{Dir: filepath.Join(at, "trees")}
		conform(t, d)
		raceHere(t, d)
		t.Log("copy on the same file system")
		conform(t, driver.Copy{Dir: filepath.Join(at, "copies")})
		sharing(t, at)
		nested(t, driver.Btrfs{Dir: filepath.Join(at, "nested")})
	})
}

// onLoop mounts a fresh file system.
func onLoop(t *testing.T, dir, fstype, mkfs string, args ...string) string {
	t.Helper()
	if !inFirst(t) {
		t.Skip("needs root: a loop device")
	}
	for _, tool := range []string{mkfs, "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 320<<20))
	require.NoError(t, os.Mkdir(at, 0o755))
	out, err := exec.Command(mkfs, append(args, image)...).CombinedOutput()
	require.NoError(t, err, string(out))
	exec.Command("modprobe", fstype).Run() // where it is a module
	known, err := os.ReadFile("/proc/filesystems")
	require.NoError(t, err)
	if !strings.Contains(string(known), "\t"+fstype+"\n") {
		t.Skipf("the kernel has no %s", fstype)
	}
	exec.Command("modprobe", "loop").Run()
	out, err = exec.Command("mount", "-o", "loop", "-t", fstype, image, at).CombinedOutput()
	if strings.Contains(string(out), "failed to setup loop device") {
		t.Skipf("%s", out)
	}
	require.NoError(t, err, string(out))
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// conform is the test that each driver passes.
func conform(t *testing.T, d driver.Driver) {
	t.Helper()
	require.NoError(t, driver.Try(d))
	r, w, err := os.Pipe() // the runtime opens some for its poller
	require.NoError(t, err)
	require.NoError(t, errors.Join(r.Close(), w.Close()))
	before := descriptors(t)
	for _, name := range []string{"", ".", "..", "a/b", ".x", "-x", "_x", "a:b", "a,b", "ö", "a\x00", strings.Repeat("x", 201)} {
		require.ErrorIs(t, d.Create(name, ""), syscall.EINVAL, "%q", name)
		_, err := d.Open(name)
		require.ErrorIs(t, err, syscall.EINVAL, "%q", name)
		require.ErrorIs(t, d.Remove(name), syscall.EINVAL, "%q", name)
		if name != "" {
			require.ErrorIs(t, d.Create("x", name), syscall.EINVAL, "%q", name)
		}
	}
	require.ErrorIs(t, d.Create("x", "missing"), fs.ErrNotExist)
	_, err = d.Open("missing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, d.Remove("missing"), fs.ErrNotExist)

	require.NoError(t, d.Create("base", ""))
	require.ErrorIs(t, d.Create("base", ""), fs.ErrExist)
	with(t, d, "base", fillBase)
	with(t, d, "base", func(dir string) { checkBase(t, dir) }) // it is there for the next one
	require.NoError(t, d.Create("a", "base"))
	require.NoError(t, d.Create("b", "base"))
	_, err = d.Open("base")
	require.ErrorIs(t, err, syscall.EBUSY, "others have been made from it")
	require.ErrorIs(t, d.Remove("base"), syscall.EBUSY)
	with(t, d, "a", func(dir string) {
		checkBase(t, dir)
		require.NoError(t, errors.Join(os.WriteFile(dir+"/f", []byte("a"), 0o600), os.RemoveAll(dir+"/d"), os.Mkdir(dir+"/d", 0o700),
			os.WriteFile(dir+"/d/new", nil, 0o600), os.Rename(dir+"/big", dir+"/moved"), os.Remove(dir+"/link")))
	})
	with(t, d, "b", func(dir string) { checkBase(t, dir) })
	require.NoError(t, d.Create("aa", "a"))
	with(t, d, "aa", func(dir string) {
		require.Equal(t, "d f h moved p", strings.Join(list(t, dir), " "))
		require.Equal(t, "new", strings.Join(list(t, dir+"/d"), " "))
		inSandbox(t, dir)
	})
	busy(t, d)
	for _, name := range []string{"aa", "a", "b", "base"} {
		require.NoError(t, d.Remove(name))
	}
	require.Equal(t, before, descriptors(t))
}

func with(t *testing.T, d driver.Driver, name string, f func(dir string)) {
	t.Helper()
	tree, err := d.Open(name)
	require.NoError(t, err)
	f(tree.Path)
	require.NoError(t, tree.Close())
}

func fillBase(dir string) {
	f, _ := os.Create(dir + "/big")
	f.WriteString("begin")
	f.WriteAt([]byte("end"), 8<<20)
	f.Close()
	os.Mkdir(dir+"/d", 0o751)
	os.WriteFile(dir+"/d/old", []byte("old"), 0o640)
	os.WriteFile(dir+"/f", []byte("base"), 0o604)
	os.Link(dir+"/f", dir+"/h")
	os.Symlink("f", dir+"/link")
	unix.Mkfifo(dir+"/p", 0o600)
	unix.Setxattr(dir+"/f", "user.test", []byte("value"), 0)
}

func checkBase(t *testing.T, dir string) {
	t.Helper()
	require.Equal(t, "big d f h link p", strings.Join(list(t, dir), " "))
	for name, want := range map[string]string{"f": "base", "h": "base", "link": "base", "d/old": "old"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
	for name, mode := range map[string]fs.FileMode{"f": 0o604, "d": fs.ModeDir | 0o751, "d/old": 0o640, "p": fs.ModeNamedPipe | 0o600, ".": fs.ModeDir | 0o755} {
		st, err := os.Lstat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, st.Mode(), name)
	}
	st, err := os.Stat(dir + "/big")
	require.NoError(t, err)
	require.Equal(t, int64(8<<20+3), st.Size())
	require.Less(t, st.Sys().(*syscall.Stat_t).Blocks, int64(1<<20/512), "holes were filled")
	b := make([]byte, 10)
	n, err := unix.Getxattr(dir+"/f", "user.test", b)
	if err != syscall.EOPNOTSUPP && err != syscall.ENODATA { // tmpfs before Linux 6.6
		require.NoError(t, err)
		require.Equal(t, "value", string(b[:n]))
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// busy: a tree has one user.
func busy(t *testing.T, d driver.Driver) {
	t.Helper()
	tree, err := d.Open("b")
	require.NoError(t, err)
	_, err = d.Open("b")
	require.ErrorIs(t, err, syscall.EBUSY)
	require.ErrorIs(t, d.Create("bb", "b"), syscall.EBUSY)
	require.ErrorIs(t, d.Remove("b"), syscall.EBUSY)
	require.NoError(t, tree.Close())
}

// race: of many who make the same tree one succeeds.
func race(t *testing.T, d driver.Driver) {
	t.Helper()
	raceBy(t, d, 8, func(f func()) { f() })
}

// raceHere is race where the driver needs the mounts of this thread's namespace.
func raceHere(t *testing.T, d driver.Driver) {
	t.Helper()
	raceBy(t, d, 4, here(t))
}

// here gives a function that calls one in this thread's mount namespace, on a thread that is thrown away.
func here(t *testing.T) func(f func()) {
	t.Helper()
	ns, err := os.Open("/proc/thread-self/ns/mnt")
	require.NoError(t, err)
	t.Cleanup(func() { ns.Close() })
	return func(f func()) {
		runtime.LockOSThread()
		if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)); err != nil {
			t.Error(err)
		}
		f()
	}
}

func raceBy(t *testing.T, d driver.Driver, many int, run func(func())) {
	t.Helper()
	var wg sync.WaitGroup
	made := make(chan error, many)
	for range cap(made) {
		wg.Go(func() { run(func() { made <- d.Create("raced", "") }) })
	}
	wg.Wait()
	close(made)
	n := 0
	for err := range made {
		if err == nil {
			n++
			continue
		}
		require.ErrorIs(t, err, fs.ErrExist)
		require.NotContains(t, err.Error(), "\n", "a second error: something is left")
	}
	require.Equal(t, 1, n)
	require.NoError(t, d.Remove("raced"))
}

// inSandbox: the tree is the root of a sandbox.
func inSandbox(t *testing.T, dir string) {
	t.Helper()
	parts := []plan.Primitive{chroot.Pivot{Dir: dir}, plan.Func(isolated)}
	for _, d := range []string{"/usr", "/lib", "/lib64", "/bin"} {
		if _, err := os.Stat(d); err == nil {
			parts = append(parts, chroot.Bind{Source: d, Target: d, ReadOnly: true})
		}
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd := &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", "cat f; echo inside > f"}, Env: os.Environ(), Files: []*os.File{nil, w, w}}
	p, err := launch.Start(context.Background(), plan.Build(parts...), cmd, launch.Options{})
	w.Close()
	require.NoError(t, err)
	var out bytes.Buffer
	_, err = out.ReadFrom(r)
	require.NoError(t, err)
	var ws unix.WaitStatus
	_, err = unix.Wait4(p.PID, &ws, 0, nil)
	require.NoError(t, err)
	require.NoError(t, p.Release())
	require.Equal(t, "a", out.String())
	b, err := os.ReadFile(dir + "/f")
	require.NoError(t, err)
	require.Equal(t, "inside\n", string(b))
}

// isolated gives a pid namespace, and a user namespace where there is no privilege.
func isolated(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWPID)
	if os.Geteuid() == 0 {
		return nil
	}
	p.Clone(unix.CLONE_NEWUSER)
	p.While(plan.Action{Name: "write id maps", Do: func(r *plan.Run) error {
		dir := "/proc/" + plan.Int(r.PID).String()
		return errors.Join(os.WriteFile(dir+"/setgroups", []byte("deny"), 0), os.WriteFile(dir+"/gid_map", []byte("0 "+plan.Int(os.Getegid()).String()+" 1"), 0),
			os.WriteFile(dir+"/uid_map", []byte("0 "+plan.Int(os.Geteuid()).String()+" 1"), 0))
	}})
	return nil
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(all)
}

// stale: a process was killed that had a tree open, and another one while it made one.
func stale(t *testing.T, d driver.Overlayfs) {
	t.Helper()
	require.NoError(t, d.Create("left", ""))
	require.NoError(t, unix.Mount("none", d.Dir+"/left/at", "tmpfs", 0, ""))
	require.NoError(t, os.MkdirAll(d.Dir+"/.new-X/files/x", 0o700))
	with(t, d, "left", func(dir string) { require.NoError(t, os.WriteFile(dir+"/f", nil, 0o600)) })
	require.FileExists(t, d.Dir+"/left/files/f")
	require.NoError(t, unix.Mount(t.TempDir(), d.Dir+"/left/at", "", unix.MS_BIND, ""))
	require.NoError(t, d.Remove("left"))
	require.NoError(t, d.Create("next", ""))
	require.NoDirExists(t, d.Dir+"/.new-X")
	require.NoError(t, d.Remove("next"))
	require.Empty(t, list(t, d.Dir))
}

// sharing: a copy takes no room.
func sharing(t *testing.T, at string) {
	t.Helper()
	d := driver.Copy{Dir: at + "/sharing"}
	require.NoError(t, d.Create("base", ""))
	with(t, d, "base", func(dir string) {
		require.NoError(t, os.WriteFile(dir+"/big", bytes.Repeat([]byte("random?"), 8<<20), 0o600))
	})
	unix.Sync()
	var one, two unix.Statfs_t
	require.NoError(t, unix.Statfs(at, &one))
	for _, name := range []string{"a", "b", "c", "d"} {
		require.NoError(t, d.Create(name, "base"))
	}
	unix.Sync()
	require.NoError(t, unix.Statfs(at, &two))
	require.Less(t, int64(one.Bfree-two.Bfree)*int64(one.Bsize), int64(8<<20), "4 copies of 56 MiB")
}

// nested: who was in a tree has made subvolumes in it.
func nested(t *testing.T, d driver.Btrfs) {
	t.Helper()
	require.NoError(t, d.Create("base", ""))
	with(t, d, "base", func(dir string) {
		inner := driver.Btrfs{Dir: dir + "/inner"}
		require.NoError(t, inner.Create("x", ""))
		with(t, inner, "x", func(dir string) { require.NoError(t, os.WriteFile(dir+"/f", nil, 0o600)) })
	})
	require.NoError(t, d.Remove("base"))
	require.Empty(t, list(t, d.Dir))
}

func TestProbe(t *testing.T) {
	private(t, func(dir string) {
		d, err := driver.Probe(filepath.Join(dir, "new", "trees"))
		require.NoError(t, err)
		require.IsType(t, driver.Overlayfs{}, d)
		_, err = driver.Probe("/proc/no")
		require.Error(t, err)
		require.Contains(t, err.Error(), "driver.Copy")
	})
}

// TestProbeOrdinary: an ordinary user outside of a user namespace cannot mount; what is left works.
func TestProbeOrdinary(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user; the user lane runs it")
	}
	err := driver.Try(driver.Overlayfs{Dir: t.TempDir()})
	require.ErrorIs(t, err, os.ErrPermission)
}

func TestUnsupported(t *testing.T) {
	require.ErrorIs(t, driver.Try(driver.Btrfs{Dir: "/dev/shm/caisson-test"}), errors.ErrUnsupported)
	require.NoError(t, os.RemoveAll("/dev/shm/caisson-test"))
	require.ErrorIs(t, driver.Try(driver.Fuse{Dir: t.TempDir(), Program: "/no/such/program"}), errors.ErrUnsupported)
}

func ExampleProbe() {
	d, err := driver.Probe("/var/lib/trees")
	if err != nil {
		return
	}
	if d.Create("base", "") != nil {
		return
	}
	tree, err := d.Open("base")
	if err != nil {
		return
	}
	defer tree.Close()
	_ = chroot.Pivot{Dir: tree.Path} // the root of a sandbox
}
