package overlay_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launchtest"
	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/overlay"
	"github.com/caisson-dev/caisson/plan"
)

func open(t *testing.T, s overlay.Stack) *overlay.Tree {
	t.Helper()
	tree, err := s.Open()
	require.NoError(t, err)
	t.Cleanup(func() { tree.Close() })
	return tree
}

// path leads to a file of a tree that is attached nowhere.
func path(tree *overlay.Tree, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", tree.File().Fd(), name)
}

// pair makes the two directories of an upper.
func pair(t *testing.T) (upper, work string) {
	t.Helper()
	dir := t.TempDir()
	upper, work = dir+"/upper", dir+"/work"
	t.Cleanup(func() { os.Chmod(work+"/work", 0o700) }) // which the kernel has made so that nobody can remove it
	require.NoError(t, errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)))
	return upper, work
}

func TestTree(t *testing.T) {
	asRoot(t)
	a, b := put(t, t.TempDir(), map[string]string{"f": "a"}), put(t, t.TempDir(), map[string]string{"f": "b", "g": "b"})
	before, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	tree := open(t, overlay.Stack{Lower: []string{a, b}})
	data, err := os.ReadFile(path(tree, "f"))
	require.NoError(t, err)
	require.Equal(t, "a", string(data))
	require.NoError(t, os.WriteFile(path(tree, "new"), []byte("x"), 0o600))
	require.NoFileExists(t, a+"/new")
	during, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	require.Equal(t, string(before), string(during), "the mount can be seen")
	require.NoError(t, tree.Close())
	_, err = os.Stat(path(tree, "f"))
	require.Error(t, err)
}

func TestTreeAttach(t *testing.T) {
	asRoot(t)
	inPrivate(t, func(dir string) {
		a := put(t, filepath.Join(dir, "a"), map[string]string{"f": "a"})
		above := filepath.Join(dir, "above")
		at := filepath.Join(above, "at")
		require.NoError(t, os.MkdirAll(at, 0o755))
		tree, err := overlay.Stack{Lower: []string{a}}.Mount(at)
		require.NoError(t, err)
		require.FileExists(t, at+"/f")
		require.Error(t, tree.Attach(at), "attached twice")
		require.NoError(t, os.Rename(above, above+"2"), "renamed meanwhile, as a hostile user of the directory above may")
		require.NoError(t, os.MkdirAll(at, 0o755))
		require.FileExists(t, above+"2/at/f")
		require.NoError(t, tree.Close())
		require.NoFileExists(t, above+"2/at/f")
		require.NoError(t, os.Symlink(at, at+"3"))
		_, err = overlay.Stack{Lower: []string{a}}.Mount(at + "3")
		require.ErrorIs(t, err, syscall.EINVAL)
		_, err = overlay.Stack{Lower: []string{a}}.Mount("/no/such")
		require.ErrorIs(t, err, syscall.ENOENT)
	})
}

// TestTreeLock: an upper directory has one user, whether tree or sandbox.
func TestTreeLock(t *testing.T) {
	asRoot(t)
	upper, work := pair(t)
	s := overlay.Stack{Lower: []string{put(t, t.TempDir(), nil)}, Upper: upper, Work: work}
	tree := open(t, s)
	_, err := s.Open()
	require.ErrorIs(t, err, syscall.EBUSY)
	_, err = start(t, "true", append(programs(t), overlay.Root(s))...)
	require.ErrorIs(t, err, syscall.EBUSY)
	require.NoError(t, tree.Close())
	run(t, "echo x > f", append(programs(t), overlay.Root(s))...)
	require.FileExists(t, upper+"/f")
	require.NoError(t, open(t, s).Close())
}

// options gives the options of the mount as the kernel sees them.
func options(t *testing.T, s overlay.Stack) (string, error) {
	t.Helper()
	tree, err := s.Open()
	if err != nil {
		return "", err
	}
	defer tree.Close()
	var text string
	inPrivate(t, func(dir string) {
		require.NoError(t, tree.Attach(dir))
		b, err := os.ReadFile("/proc/thread-self/mountinfo")
		require.NoError(t, err)
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); f[4] == dir {
				text = f[len(f)-1]
			}
		}
	})
	return "," + text + ",", nil
}

// TestOptions: what is asked for is in force, or an error; the mount table says what is.
func TestOptions(t *testing.T) {
	asRoot(t)
	lower := []string{put(t, t.TempDir(), nil), put(t, t.TempDir(), nil)}
	for name, c := range map[string]struct {
		set   func(*overlay.Stack)
		want  string
		isOff string // what shows instead that it is not the default
	}{
		"metacopy":    {func(s *overlay.Stack) { s.MetaCopy = overlay.On }, ",metacopy=on,", ""},
		"redirect":    {func(s *overlay.Stack) { s.RedirectDir = overlay.On }, ",redirect_dir=on,", ""},
		"no redirect": {func(s *overlay.Stack) { s.RedirectDir = overlay.NoFollow }, ",redirect_dir=nofollow,", ""},
		"index":       {func(s *overlay.Stack) { s.Index = overlay.On }, ",index=on,", ""},
		"export":      {func(s *overlay.Stack) { s.Index, s.NFSExport = overlay.On, overlay.On }, ",nfs_export=on,", ""},
		"volatile":    {func(s *overlay.Stack) { s.Volatile = true }, "volatile,", ""},
		"userxattr":   {func(s *overlay.Stack) { s.UserXattr = true }, ",userxattr,", ""},
		"uuid off":    {func(s *overlay.Stack) { s.UUID = overlay.Off }, ",uuid=off,", ""},
		"uuid null":   {func(s *overlay.Stack) { s.UUID = overlay.Null }, ",uuid=null,", ""},
		"xino off":    {func(s *overlay.Stack) { s.XIno = overlay.Off }, "", ",xino=on,"},
		"xino on":     {func(s *overlay.Stack) { s.XIno = overlay.On }, "", ",xino=off,"},
		"all at a time": {func(s *overlay.Stack) {
			s.MetaCopy, s.RedirectDir, s.Index, s.Volatile = overlay.On, overlay.On, overlay.On, true
		}, "volatile,", ""},
	} {
		t.Run(name, func(t *testing.T) {
			upper, work := pair(t)
			s := overlay.Stack{Lower: lower, Upper: upper, Work: work}
			c.set(&s)
			got, err := options(t, s)
			if errors.Is(err, errors.ErrUnsupported) {
				require.True(t, !launchtest.KernelAtLeast(t, 6, 6), "supported since 6.6: %v", err)
				require.Regexp(t, "uuid=null|has no extended attributes", err.Error())
				t.Skipf("%v", err)
			}
			require.NoError(t, err)
			require.Contains(t, got, c.want)
			if c.isOff != "" {
				require.NotContains(t, got, c.isOff)
			}
		})
	}
}

// TestIndexWithoutHandles: a layer on a stack has no file handles, and the kernel would leave out the index in silence.
func TestIndexWithoutHandles(t *testing.T) {
	asRoot(t)
	a, b := put(t, t.TempDir(), nil), put(t, t.TempDir(), nil)
	inPrivate(t, func(dir string) {
		at := put(t, dir+"/at", nil)
		tree, err := overlay.Stack{Lower: []string{a, b}, ReadOnly: true}.Mount(at)
		require.NoError(t, err)
		defer tree.Close()
		upper, work := pair(t)
		_, err = overlay.Stack{Lower: []string{at}, Upper: upper, Work: work, Index: overlay.On}.Open()
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.Contains(t, err.Error(), at)
		require.NoError(t, open(t, overlay.Stack{Lower: []string{at}, Upper: upper, Work: work}).Close())
	})
}

// TestOtherNamespace: paths are those of the thread that calls, as in namespaces.Do.
func TestOtherNamespace(t *testing.T) {
	asRoot(t)
	inPrivate(t, func(dir string) {
		inner := put(t, filepath.Join(dir, "inner"), map[string]string{"layer/f": "outside"})
		require.NoError(t, unix.Mount("none", inner, "tmpfs", 0, ""))
		put(t, inner, map[string]string{"layer/f": "inside", "root/layer/f": "in the root", "root/proc/x": ""})
		tree := open(t, overlay.Stack{Lower: []string{inner + "/layer"}})
		b, err := os.ReadFile(path(tree, "f"))
		require.NoError(t, err)
		require.Equal(t, "inside", string(b))
		require.NoError(t, errors.Join(unix.Mount(inner+"/root", inner+"/root", "", unix.MS_BIND, ""), unix.Mount("/proc", inner+"/root/proc", "", unix.MS_BIND|unix.MS_REC, "")))
		require.NoError(t, unix.Unshare(unix.CLONE_FS))
		require.NoError(t, errors.Join(unix.Chroot(inner+"/root"), unix.Chdir("/")))
		tree = open(t, overlay.Stack{Lower: []string{"/layer"}})
		b, err = os.ReadFile(path(tree, "f"))
		require.NoError(t, err)
		require.Equal(t, "in the root", string(b))
	})
}

// TestData: files of a layer whose data lie in a layer that is not seen.
func TestData(t *testing.T) {
	asRoot(t)
	data := put(t, t.TempDir(), map[string]string{"blobs/1": "data"})
	lower := put(t, t.TempDir(), map[string]string{"f": ""})
	require.NoError(t, os.Truncate(lower+"/f", 4))
	s := overlay.Stack{Lower: []string{lower}, Data: []string{data}, MetaCopy: overlay.On}
	tree, err := s.Open()
	if errors.Is(err, errors.ErrUnsupported) {
		require.True(t, !launchtest.KernelAtLeast(t, 6, 7), "supported since 6.7: %v", err)
		require.Contains(t, err.Error(), "data-only layers")
		t.Skipf("%v", err)
	}
	require.NoError(t, err)
	require.NoError(t, tree.Close())
	require.NoError(t, errors.Join(unix.Setxattr(lower+"/f", "trusted.overlay.metacopy", nil, 0),
		unix.Setxattr(lower+"/f", "trusted.overlay.redirect", []byte("/blobs/1"), 0)))
	tree = open(t, s)
	b, err := os.ReadFile(path(tree, "f"))
	require.NoError(t, err)
	require.Equal(t, "data", string(b))
	require.NoFileExists(t, path(tree, "blobs/1"))
}

// TestIDMap: the owners in the layers, and of what is written, are those of a user namespace.
func TestIDMap(t *testing.T) {
	asRoot(t)
	ns := userNamespace(t, 100000)
	lower := []string{put(t, t.TempDir(), map[string]string{"f": "x"}), put(t, t.TempDir(), map[string]string{"g": "x"})}
	require.NoError(t, os.Chown(lower[0]+"/f", 5, 6))
	for _, scratch := range []bool{true, false} {
		t.Run(fmt.Sprintf("scratch %v", scratch), func(t *testing.T) {
			s := overlay.Stack{Lower: lower, IDMap: ns}
			if !scratch {
				s.Upper, s.Work = pair(t)
				require.NoError(t, os.Chown(s.Upper, 100000, 100000))
			}
			tree, err := s.Open()
			if errors.Is(err, errors.ErrUnsupported) && !launchtest.KernelAtLeast(t, 6, 3) {
				t.Skipf("temporary files are on a tmpfs here: %v", err)
			}
			require.NoError(t, err)
			defer tree.Close()
			require.Equal(t, [2]uint32{100005, 100006}, owner(t, path(tree, "f")))
			require.Equal(t, [2]uint32{100000, 100000}, owner(t, path(tree, "g")))
			require.Equal(t, [2]uint32{100000, 100000}, owner(t, path(tree, ".")))
			require.NoError(t, os.Chmod(path(tree, "."), 0o777))
			cmd := exec.Command("sh", "-c", "echo x > new")
			cmd.Dir = path(tree, "")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 100007, Gid: 100008}}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
			require.Equal(t, [2]uint32{100007, 100008}, owner(t, path(tree, "new")))
			if !scratch {
				require.Equal(t, [2]uint32{100007, 100008}, owner(t, s.Upper+"/new"))
			}
		})
	}
	t.Run("a sandbox", func(t *testing.T) {
		parts := append(programs(t), plan.Func(func(p *plan.Plan) error {
			p.Clone(unix.CLONE_NEWUSER)
			p.While(plan.Action{Name: "write id maps", Do: func(r *plan.Run) error {
				dir := "/proc/" + plan.Int(r.PID).String()
				return errors.Join(os.WriteFile(dir+"/uid_map", []byte("0 100000 65536"), 0), os.WriteFile(dir+"/gid_map", []byte("0 100000 65536"), 0))
			}})
			p.Child(plan.Credentials, plan.Call("setresgid", unix.SYS_SETRESGID, plan.Int(0), plan.Int(0), plan.Int(0)),
				plan.Call("setresuid", unix.SYS_SETRESUID, plan.Int(0), plan.Int(0), plan.Int(0)))
			return nil
		}), overlay.Root{Lower: lower, IDMap: ns}, chroot.Proc{})
		out, err := start(t, "stat -c '%u:%g' f g /; echo x > new; stat -c '%u:%g' new", parts...)
		if errors.Is(err, errors.ErrUnsupported) && !launchtest.KernelAtLeast(t, 6, 3) {
			t.Skipf("temporary files are on a tmpfs here: %v", err)
		}
		require.NoError(t, err)
		require.Equal(t, "5:6\n0:0\n0:0\n0:0\n", out)
	})
}

func owner(t *testing.T, name string) [2]uint32 {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(name, &st))
	return [2]uint32{st.Uid, st.Gid}
}

// userNamespace gives one in which id 0 is the host's id first.
func userNamespace(t *testing.T, first int) *os.File {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	require.NoError(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// TestReadOnlyInSilence: where the kernel cannot use the work directory, it mounts read-only and says nothing.
func TestReadOnlyInSilence(t *testing.T) {
	asRoot(t)
	upper, work := pair(t)
	require.NoError(t, os.Chown(work, 12345, 12345))
	parts := append(programs(t), plan.Func(withUser), overlay.Root{Lower: []string{put(t, t.TempDir(), nil)}, Upper: upper, Work: work})
	_, err := start(t, "true", parts...)
	require.Error(t, err)
	require.Contains(t, err.Error(), work)
	require.NoError(t, os.Chown(work, 0, 0))
	_, err = start(t, "true", parts...)
	if errors.Is(err, errors.ErrUnsupported) && !launchtest.KernelAtLeast(t, 6, 6) {
		t.Skipf("temporary files are on a tmpfs here: %v", err)
	}
	require.NoError(t, err)
}

// TestNothingIsLeft: descriptors and mounts are what they were, also after failures.
func TestNothingIsLeft(t *testing.T) {
	asRoot(t)
	a := put(t, t.TempDir(), nil)
	upper, work := pair(t)
	good := []overlay.Stack{{Lower: []string{a}}, {Lower: []string{a}, ReadOnly: true}, {Lower: []string{a}, Upper: upper, Work: work}}
	bad := []overlay.Stack{{Lower: []string{a, "/no/such"}}, {Lower: []string{a}, Upper: upper, Work: "/no"}, {Lower: []string{"/proc/self/root/tmp"}}}
	round := func() {
		for _, s := range good {
			tree, err := s.Open()
			require.NoError(t, err)
			require.NoError(t, tree.Close())
			run(t, "true", append(programs(t), overlay.Root(s))...)
		}
		for _, s := range bad {
			_, err := s.Open()
			require.Error(t, err)
			_, err = start(t, "true", append(programs(t), overlay.Root(s))...)
			require.Error(t, err)
		}
	}
	round()
	fds, mounts := descriptors(t), mountinfo(t)
	for range 5 {
		round()
	}
	require.Equal(t, fds, descriptors(t))
	require.Equal(t, mounts, mountinfo(t))
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(all)
}

func mountinfo(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	return string(b)
}

// TestLayerReplacedByLink: somebody exchanges a layer and a symbolic link while sandboxes start. What the link leads to is never shown.
func TestLayerReplacedByLink(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	secret := put(t, filepath.Join(dir, "secret"), map[string]string{"f": "secret"})
	layer, link := put(t, filepath.Join(dir, "layer"), map[string]string{"f": "layer"}), filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(secret, link))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, layer, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	}()
	mounted, refused := 0, 0
	for i := 0; i < rounds(2000) && (mounted < 20 || refused < 20); i++ {
		tree, err := overlay.Stack{Lower: []string{layer}}.Open()
		if err != nil {
			require.ErrorIs(t, err, syscall.ENOTDIR)
			refused++
			continue
		}
		b, err := os.ReadFile(path(tree, "f"))
		require.NoError(t, err)
		require.Equal(t, "layer", string(b))
		mounted++
		require.NoError(t, tree.Close())
	}
	close(stop)
	<-stopped
	require.Positive(t, mounted)
	require.Positive(t, refused)
}

// TestHostileLayer: /proc and /dev of an image are links, as in CVE-2023-28642.
func TestHostileLayer(t *testing.T) {
	needsScratch(t)
	victim := put(t, t.TempDir(), map[string]string{"keep": "k"})
	for name, part := range map[string]plan.Primitive{"proc": chroot.Proc{}, "dev": chroot.Dev{}} {
		layer := put(t, t.TempDir(), nil)
		require.NoError(t, os.Symlink(victim, layer+"/"+name))
		_, err := start(t, "true", append(programs(t), overlay.Root{Lower: []string{layer}}, part)...)
		var e *plan.Error
		require.ErrorAs(t, err, &e)
		require.Contains(t, e.Call, "move_mount")
	}
	layer := put(t, t.TempDir(), nil)
	require.NoError(t, os.Symlink(strings.Repeat("../", 20)+victim, layer+"/out"))
	_, err := start(t, "true", append(programs(t), overlay.Root{Lower: []string{layer}}, overlay.Mount{Path: "/out/x", Stack: overlay.Stack{Lower: []string{victim}}})...)
	require.Error(t, err)
	entries, err := os.ReadDir(victim)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// TestOldWay makes the mount as before Linux 6.7, whatever the kernel.
func TestOldWay(t *testing.T) {
	asRoot(t)
	a, b := put(t, t.TempDir(), map[string]string{"f": "a"}), put(t, t.TempDir(), map[string]string{"f": "b", "g": "b"})
	odd := filepath.Join(t.TempDir(), "odd,:\\\n")
	require.NoError(t, errors.Join(os.MkdirAll(odd+"/up,per", 0o755), os.MkdirAll(odd+"/wo:rk", 0o755)))
	for name, s := range map[string]overlay.Stack{
		"scratch":   {Lower: []string{a, b}, Size: 1 << 20, XIno: overlay.Off},
		"upper":     {Lower: []string{a, b}, Upper: odd + "/up,per", Work: odd + "/wo:rk", Index: overlay.On},
		"read-only": {Lower: []string{a}, ReadOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := overlay.MountOld(s)
			require.NoError(t, err)
			defer f.Close()
			at := fmt.Sprintf("/proc/self/fd/%d/", f.Fd())
			got, err := os.ReadFile(at + "f")
			require.NoError(t, err)
			require.Equal(t, "a", string(got))
			err = os.WriteFile(at+"new", []byte("x"), 0o600)
			require.Equal(t, s.ReadOnly, errors.Is(err, syscall.EROFS), "%v", err)
			if s.Upper != "" {
				require.FileExists(t, s.Upper+"/new")
			}
			var now, then unix.Statfs_t
			require.NoError(t, errors.Join(unix.Fstatfs(int(f.Fd()), &now), f.Close()))
			older, err := overlay.MountOld(s, plan.Func(mnt.Old)) // before Linux 5.12
			// With an index the upper is taken until the first mount is gone, which the kernel sees to in its own time.
			for end := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EBUSY) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				older, err = overlay.MountOld(s, plan.Func(mnt.Old))
			}
			require.NoError(t, err)
			defer older.Close()
			require.NoError(t, unix.Fstatfs(int(older.Fd()), &then))
			require.Equal(t, now.Flags, then.Flags)
			require.NotZero(t, now.Flags&unix.ST_NODEV)
		})
	}
	for _, s := range []overlay.Stack{{Lower: []string{a}, Data: []string{b}, MetaCopy: overlay.On}, {Lower: []string{a}, UUID: overlay.Null}} {
		_, err := overlay.MountOld(s)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	text := overlay.OldText(overlay.Stack{Lower: make([]string, 500)})
	require.Less(t, len(text), 2000)
}

// TestTogether: sandboxes from one stack read the same pages of one file.
func TestTogether(t *testing.T) {
	asRoot(t)
	layer := put(t, t.TempDir(), nil)
	require.NoError(t, os.WriteFile(layer+"/big", bytes.Repeat([]byte("x"), 1<<20), 0o644))
	one, two := open(t, overlay.Stack{Lower: []string{layer}}), open(t, overlay.Stack{Lower: []string{layer}})
	f, err := os.Open(layer + "/big")
	require.NoError(t, err)
	defer f.Close()
	cached := func(name string) int {
		f, err := os.Open(name)
		require.NoError(t, err)
		defer f.Close()
		m, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ, unix.MAP_SHARED)
		require.NoError(t, err)
		defer unix.Munmap(m)
		return resident(t, m)
	}
	require.NoError(t, f.Sync())
	require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	if n := cached(layer + "/big"); n > 0 {
		t.Skipf("the file system keeps %d pages in memory whatever one says: tmpfs", n)
	}
	_, err = os.ReadFile(path(one, "big"))
	require.NoError(t, err)
	require.Equal(t, 256, cached(path(two, "big")), "what one has read is there for the other")
	require.Equal(t, 256, cached(layer+"/big"))
}
