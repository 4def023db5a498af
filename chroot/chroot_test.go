package chroot_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/internal/launchtest"
	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The shell in a sandbox; see package launchtest.
var (
	isolated     = launchtest.Isolated
	withUser     = launchtest.WithUser
	start        = launchtest.Start
	startPlan    = launchtest.StartPlan
	run          = launchtest.Run
	pipes        = launchtest.Pipes
	startWaiting = launchtest.StartWaiting
	firstBytes   = launchtest.FirstBytes
)

func TestHost(t *testing.T) {
	parts := []plan.Primitive{chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"}}
	mark := filepath.Join(t.TempDir(), "mark")
	require.NoError(t, os.WriteFile(mark, nil, 0o600))

	t.Run("is the host's tree", func(t *testing.T) {
		require.Equal(t, run(t, "ls /usr/bin", chroot.Host{}), run(t, "ls /usr/bin", parts...))
	})
	t.Run("is read-only with all mounts below it", func(t *testing.T) {
		for _, m := range reached(t, run(t, "cat /proc/self/mountinfo", parts...)) {
			fresh := m.Mountpoint == "/proc" || m.Mountpoint == "/tmp" || m.Mountpoint == "/dev" || strings.HasPrefix(m.Mountpoint, "/dev/")
			require.True(t, fresh || strings.HasPrefix(m.Options, "ro,"), m)
			if m.Root == "/" { // not one node of the host's /dev
				require.Contains(t, m.Options, "nosuid", m)
			}
		}
		require.Contains(t, run(t, "touch /etc/x || true", parts...), "Read-only file system")
	})
	t.Run("has a scratch /tmp", func(t *testing.T) {
		require.Equal(t, "x\n", run(t, "echo x > /tmp/x; ls /tmp", parts...))
		require.NoFileExists(t, "/tmp/x")
	})
	t.Run("shows only its own processes", func(t *testing.T) {
		require.Equal(t, "1\n", run(t, "cd /proc; for i in [0-9]*; do echo $i; done", parts...))
	})
	t.Run("leaves the host's mounts alone", func(t *testing.T) {
		before, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		run(t, "true", parts...)
		after, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		require.Equal(t, string(before), string(after))
	})
	t.Run("has no way back by ..", func(t *testing.T) {
		require.Equal(t, "/\n", run(t, "cd ..; cd ../..; pwd -P", parts...))
	})
}

func TestDev(t *testing.T) {
	out := run(t, `cd /dev
		ls
		for d in null zero full random urandom tty; do test -c $d && echo device $d; done
		head -c 3 zero | od -An -tx1
		echo x > null && echo written
		echo x > full 2>/dev/null || echo full
		test -c ptmx && echo ptmx
		echo y > shm/y && cat shm/y
		echo z | cat stdin`, chroot.Host{}, chroot.Proc{}, chroot.Dev{})
	for _, want := range []string{"device null", "device zero", "device full", "device random", "device urandom", "device tty",
		" 00 00 00", "written", "full", "ptmx", "y", "z"} {
		require.Contains(t, out, want+"\n")
	}
	require.Equal(t, "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n", out[:strings.Index(out, "device")])
	modes := run(t, "stat -c '%a %n' /dev /dev/null /dev/shm /dev/pts/ptmx", chroot.Host{}, chroot.Proc{}, chroot.Dev{})
	require.Equal(t, "755 /dev\n666 /dev/null\n1777 /dev/shm\n666 /dev/pts/ptmx\n", modes)
}

func TestUmaskIsPutBack(t *testing.T) {
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	require.Equal(t, "0027\n", run(t, "umask", chroot.Host{}, chroot.Dev{}))
}

// rootfs makes a root file system out of the host's programs.
func rootfs(t *testing.T) (string, []plan.Primitive) {
	return rootfsWith(t, chroot.Bind{ReadOnly: true})
}

// rootfsWith binds them as b says.
func rootfsWith(t *testing.T, b chroot.Bind) (string, []plan.Primitive) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	parts := []plan.Primitive{chroot.Pivot{Dir: dir}}
	for _, d := range []string{"usr", "lib", "lib64", "bin"} {
		st, err := os.Lstat("/" + d)
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(t, err)
		if st.Mode()&os.ModeSymlink != 0 {
			target, err := os.Readlink("/" + d)
			require.NoError(t, err)
			require.NoError(t, os.Symlink(target, filepath.Join(dir, d)))
			continue
		}
		b.Source, b.Target = "/"+d, "/"+d
		parts = append(parts, b)
	}
	return dir, parts
}

func TestPivot(t *testing.T) {
	dir, parts := rootfs(t)
	parts = append(parts, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/a/b/c", Mode: 0o700, Size: 1 << 20})
	out := run(t, "ls -d /*; stat -c %a /a/b/c; pwd; echo new > /file; ls /etc 2>&1", parts...)
	require.Contains(t, out, "/a\n")
	require.Contains(t, out, "700\n/\n")
	require.Contains(t, out, "No such file")
	b, err := os.ReadFile(filepath.Join(dir, "file"))
	require.NoError(t, err)
	require.Equal(t, "new\n", string(b))
}

func TestPivotReadOnly(t *testing.T) {
	dir, parts := rootfs(t)
	parts[0] = chroot.Pivot{Dir: dir, ReadOnly: true}
	out := run(t, "echo x > /file || true; echo y > /t/y; cat /t/y", append(parts, chroot.Tmpfs{Path: "/t"})...)
	require.Contains(t, out, "Read-only file system")
	require.Contains(t, out, "y\n")
	require.NoFileExists(t, filepath.Join(dir, "file"))
}

func TestBind(t *testing.T) {
	src := t.TempDir()
	require.NoError(t, os.Chmod(src, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(src, "f"), []byte("data\n"), 0o644))
	base := []plan.Primitive{chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}}
	t.Run("directory", func(t *testing.T) {
		out := run(t, "cat /tmp/x/y/f; echo w > /tmp/x/y/w", append(base, chroot.Bind{Source: src, Target: "/tmp/x/y"})...)
		require.Equal(t, "data\n", out)
		require.FileExists(t, filepath.Join(src, "w"))
	})
	t.Run("read-only", func(t *testing.T) {
		out := run(t, "echo w > /tmp/x/ro || true", append(base, chroot.Bind{Source: src, Target: "/tmp/x", ReadOnly: true})...)
		require.Contains(t, out, "Read-only file system")
		require.NoFileExists(t, filepath.Join(src, "ro"))
	})
	t.Run("file", func(t *testing.T) {
		out := run(t, "cat /tmp/d/file", append(base, chroot.Bind{Source: filepath.Join(src, "f"), Target: "/tmp/d/file"})...)
		require.Equal(t, "data\n", out)
	})
	t.Run("no mount point in a read-only root", func(t *testing.T) {
		_, err := start(t, "true", chroot.Host{}, chroot.Bind{Source: src, Target: "/no/such/place"})
		var e *plan.Error
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, syscall.EROFS)
		require.Contains(t, e.Hint, "Tmpfs")
	})
	t.Run("file onto a directory", func(t *testing.T) {
		_, err := start(t, "true", append(base, chroot.Bind{Source: filepath.Join(src, "f"), Target: "/usr"})...)
		require.Error(t, err)
	})
}

// TestCVE_2023_28642: /proc or /dev of the root file system is a symbolic link; the mount is refused.
func TestCVE_2023_28642(t *testing.T) {
	for _, name := range []string{"proc", "dev"} {
		dir, parts := rootfs(t)
		victim := t.TempDir()
		require.NoError(t, os.Symlink(victim, filepath.Join(dir, name)))
		_, err := start(t, "true", append(parts, map[string]plan.Primitive{"proc": chroot.Proc{}, "dev": chroot.Dev{}}[name])...)
		var e *plan.Error
		require.ErrorAs(t, err, &e, name)
		require.Contains(t, e.Call, "move_mount", name)
		entries, err := os.ReadDir(victim)
		require.NoError(t, err)
		require.Empty(t, entries)
	}
}

// TestCVE_2021_30465: the parents of a mount target are links that lead out of the root.
func TestCVE_2021_30465(t *testing.T) {
	dir, parts := rootfs(t)
	victim := t.TempDir()
	require.NoError(t, os.Symlink(strings.Repeat("../", 20)+victim, filepath.Join(dir, "link")))
	_, _ = start(t, "true", append(parts, chroot.Tmpfs{Path: "/link/made"})...)
	entries, err := os.ReadDir(victim)
	require.NoError(t, err)
	require.Empty(t, entries, "something was made outside the root")
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		parts []plan.Primitive
		want  error
	}{
		"two roots":            {[]plan.Primitive{chroot.Host{}, chroot.Pivot{Dir: "/"}}, syscall.EINVAL},
		"no root":              {[]plan.Primitive{chroot.Proc{}}, syscall.EINVAL},
		"relative target":      {[]plan.Primitive{chroot.Host{}, chroot.Tmpfs{Path: "tmp"}}, syscall.EINVAL},
		"target with ..":       {[]plan.Primitive{chroot.Host{}, chroot.Tmpfs{Path: "/tmp/../etc"}}, syscall.EINVAL},
		"target is the root":   {[]plan.Primitive{chroot.Host{}, chroot.Bind{Source: "/", Target: "/"}}, syscall.EINVAL},
		"missing source":       {[]plan.Primitive{chroot.Host{}, chroot.Bind{Source: "/no/such", Target: "/tmp"}}, syscall.ENOENT},
		"negative size":        {[]plan.Primitive{chroot.Host{}, chroot.Tmpfs{Path: "/tmp", Size: -1}}, syscall.EINVAL},
		"NUL in a source":      {[]plan.Primitive{chroot.Host{}, chroot.Bind{Source: "/tmp\x00x", Target: "/tmp"}}, syscall.EINVAL},
		"NUL in a target":      {[]plan.Primitive{chroot.Host{}, chroot.Tmpfs{Path: "/tmp\x00x"}}, syscall.EINVAL},
		"no directory to root": {[]plan.Primitive{chroot.Pivot{}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			err := plan.Build(c.parts...).Err()
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
		})
	}
	for dir, want := range map[string]error{"/no/such": syscall.ENOENT, "/etc/passwd": syscall.ENOTDIR} {
		_, err := start(t, "true", chroot.Pivot{Dir: dir})
		require.ErrorIs(t, err, want)
	}
}

// TestRefusal: without privilege and without a user namespace the start fails at its first step.
func TestRefusal(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user; the user lane runs it")
	}
	p := plan.Build(chroot.Host{})
	cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}
	_, err := launch.Start(context.Background(), p, cmd, launch.Options{})
	var e *plan.Error
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, os.ErrPermission)
	require.Equal(t, 1, e.Step)
	require.Contains(t, e.Hint, "namespaces.User")
}

func TestContract(t *testing.T) {
	plantest.Check(t, chroot.Host{})
	plantest.Check(t, chroot.Pivot{Dir: "/srv", ReadOnly: true})
	plantest.Check(t, chroot.Chroot{Dir: "/srv"})
	plantest.Check(t, chroot.Host{Propagation: chroot.Slave})
	plantest.Check(t, chroot.Cgroupfs{}, chroot.Host{}, more(unix.CLONE_NEWCGROUP))
	null, err := os.Open("/dev/null")
	require.NoError(t, err)
	defer null.Close()
	for _, tree := range []*chroot.DevTree{prepare(t, chroot.Dev{Mqueue: true}), chroot.Dev{}.WithTree(null), chroot.Dev{}.WithTree(nil)} {
		plantest.Check(t, tree, chroot.Host{})
		plantest.Check(t, tree, chroot.Host{}, more(unix.CLONE_NEWUSER))
	}
	for _, p := range []plan.Primitive{chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp", Size: 1 << 20}, chroot.Bind{Source: "/etc/passwd", Target: "/tmp/passwd"},
		chroot.Bind{File: null, Target: "/tmp/null", IDMap: null}, chroot.Optional{Source: "/no/such", Target: "/x"}, chroot.Optional{Source: "/etc", Target: "/x"},
		chroot.Device{Path: "/dev/null"}, chroot.Dev{Mqueue: true, Nodes: []string{}}, chroot.Devpts{}, chroot.Mqueue{}, chroot.Sysfs{Writable: true},
		chroot.File{Path: "/x", Data: []byte("x")}, chroot.Dir{Path: "/x/y"}, chroot.Symlink{Path: "/x", Target: "y"}, chroot.DockerMasks(), chroot.DockerReadOnly(),
		chroot.Mask{"bad"}, chroot.Cgroupfs{}, chroot.Proc{HidePID: "bad"}} {
		plantest.Check(t, p, chroot.Host{})
	}
}

// TestGolden: plans, word for word. No privilege is needed.
func TestGolden(t *testing.T) {
	user := plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWUSER); return nil })
	null, err := os.Open("/dev/null")
	require.NoError(t, err)
	defer null.Close()
	for name, p := range map[string]*plan.Plan{
		"host": plan.Build(user, chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp", Size: 64 << 20}),
		"parts": plan.Build(user, more(unix.CLONE_NEWNET|unix.CLONE_NEWIPC), chroot.Pivot{Dir: "/srv/a b\n,:", Propagation: chroot.Shared},
			chroot.Proc{HidePID: chroot.Invisible, PIDOnly: true}, chroot.Sysfs{}, chroot.Devpts{}, chroot.Mqueue{},
			chroot.Bind{Source: "/etc", Target: "/mnt/etc", NonRecursive: true, NoExec: true, Dev: true, SUID: true},
			chroot.File{Path: "/etc/hosts", Data: []byte("x"), ReadOnly: true}, chroot.Dir{Path: "/run/x", Mode: 0o700}, chroot.Symlink{Path: "/l", Target: "/etc"},
			chroot.Device{Path: "/dev/null", Target: "/dev/x"}, chroot.Mask{"/etc/shadow"}, chroot.ReadOnly{"/etc/ssl"},
			chroot.Tmpfs{Path: "/tmp", Inodes: 10, NoExec: true}),
		"older": plan.Build(plan.Func(mnt.Old), user, chroot.Pivot{Dir: "/srv/root", ReadOnly: true}, chroot.Proc{}, chroot.Bind{Source: "/etc", Target: "/mnt/etc"},
			chroot.File{Path: "/f", Data: []byte("x"), ReadOnly: true}, chroot.Mask{"/etc/shadow"}, chroot.ReadOnly{"/proc/sys"}),
		"chroot":      plan.Build(chroot.Chroot{Dir: "/srv/root"}),
		"devtree":     plan.Build(user, chroot.Pivot{Dir: "/srv/root"}, chroot.Dev{Mqueue: true}.WithTree(null)),
		"devtree-own": plan.Build(user, chroot.Pivot{Dir: "/srv/root"}, chroot.Dev{Nodes: []string{"null"}}.WithTree(null), chroot.Device{Path: "/dev/zero"}),
		"pivot":       plan.Build(user, chroot.Pivot{Dir: "/srv/root", ReadOnly: true}, chroot.Bind{Source: "/etc/passwd", Target: "/etc/passwd", ReadOnly: true}),
	} {
		file := filepath.Join("testdata", name+".golden")
		got := withoutNofile(p.String())
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), got)
	}
}

// withoutNofile drops numbers and the call that depends on the limits of whoever runs the test.
func withoutNofile(text string) string {
	var b strings.Builder
	for _, line := range strings.SplitAfter(text, "\n") {
		if len(line) > 3 && !strings.Contains(line, "RLIMIT_NOFILE") {
			b.WriteString(strings.TrimLeft(line[3:], " "))
		}
	}
	return b.String()
}

// TestAgainstUnshare compares with util-linux: the same namespaces, made by somebody else, show the same mounts of the host.
func TestAgainstUnshare(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: unshare --mount without a user namespace")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("needs unshare (util-linux)")
	}
	out, err := exec.Command(unshare, "--mount", "cut", "-d", " ", "-f", "5", "/proc/self/mountinfo").Output()
	require.NoError(t, err)
	ours := run(t, "cut -d ' ' -f 5 /proc/self/mountinfo", chroot.Host{}, chroot.Proc{})
	require.ElementsMatch(t, append(strings.Fields(string(out)), "/proc"), strings.Fields(ours))
}
