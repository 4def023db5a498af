package chroot_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// The tests of THREATS, named after its rows. Each race is run against somebody who can write to the root file system or to a volume
// from outside, all the time: more than a second sandbox with the same volume could do.

// exchange swaps pairs of names as fast as it can until the test is over, and reports how often it has.
func exchange(t *testing.T, pairs ...[2]string) (count func() int64, stop func()) {
	t.Helper()
	var n atomic.Int64
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-done:
				return
			default:
			}
			for _, p := range pairs {
				if err := unix.Renameat2(unix.AT_FDCWD, p[0], unix.AT_FDCWD, p[1], unix.RENAME_EXCHANGE); err != nil {
					t.Errorf("exchange %v: %v", p, err)
					return
				}
			}
			n.Add(1)
			time.Sleep(pace())
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { close(done) }); wg.Wait() }
	t.Cleanup(stop)
	return n.Load, stop
}

// pace is how long the racer rests between two rounds: others need a processor, too, and an emulated machine has one slow one.
func pace() time.Duration {
	if os.Getenv("VMRUN") != "" {
		return 20 * time.Millisecond
	}
	return rand.N(60 * time.Microsecond)
}

// victim is a directory of the host that nobody may touch.
func victim(t *testing.T) (dir string, check func()) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("HOSTSECRET\n"), 0o666))
	return dir, func() {
		t.Helper()
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1, "something was made in a directory of the host")
		b, err := os.ReadFile(filepath.Join(dir, "secret"))
		require.NoError(t, err)
		require.Equal(t, "HOSTSECRET\n", string(b))
	}
}

// starts starts the parts again and again. A start may fail, as long as some succeed; what it prints is given to check.
func starts(t *testing.T, n int, script string, check func(out string), parts ...plan.Primitive) {
	t.Helper()
	good := 0
	errs := map[string]int{}
	enough, tooLong := deadlines()
	for i := 0; (i < n && time.Now().Before(enough)) || good == 0 && time.Now().Before(tooLong); i++ {
		out, err := start(t, script, parts...)
		if err != nil {
			errs[plan.Errno(err).Error()]++
			continue
		}
		good++
		check(out)
	}
	t.Logf("%d starts, and refused: %v", good, errs)
	require.NotZero(t, good, errs)
}

// TestCVE_2025_31133: the source of a mask is not the root's /dev/null.
func TestCVE_2025_31133(t *testing.T) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	require.NoError(t, err)
	for name, make := range map[string]func(path string) error{
		"link":    func(p string) error { return os.Symlink("/proc/sys/kernel/core_pattern", p) },
		"file":    func(p string) error { return os.WriteFile(p, []byte("FILE"), 0o666) },
		"fifo":    func(p string) error { return unix.Mkfifo(p, 0o666) },
		"nothing": func(string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir, parts := rootfs(t)
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "dev"), 0o755))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "secretdir"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "secretdir", "SECRET"), nil, 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("SECRET"), 0o644))
			null := filepath.Join(dir, "dev/null")
			require.NoError(t, make(null))
			if name != "nothing" {
				require.NoError(t, os.WriteFile(null+"2", nil, 0o666))
				exchange(t, [2]string{null, null + "2"})
			}
			parts = append(parts, chroot.Proc{}, chroot.Mask{"/proc/version", "/proc/fs", "/proc/sys/kernel/core_pattern", "/secret", "/secretdir"})
			starts(t, rounds(60), `cat /proc/version /proc/sys/kernel/core_pattern /secret; ls -A /proc/fs /secretdir
				for f in /proc/version /proc/sys/kernel/core_pattern /secret /secretdir/x; do (echo W > $f) && echo WROTE $f; done; echo end`, func(out string) {
				for _, bad := range []string{"SECRET", "FILE", "Linux version", "WROTE"} {
					require.NotContains(t, out, bad)
				}
				require.Contains(t, out, "end\n")
			}, parts...)
			now, err := os.ReadFile("/proc/sys/kernel/core_pattern")
			require.NoError(t, err)
			require.Equal(t, string(pattern), string(now))
		})
	}
}

// TestMaskOfRenamedProc: who can rename the mount point of /proc in the root, also while it is mounted on, gets the kernel's files no more unmasked for
// that.
func TestMaskOfRenamedProc(t *testing.T) {
	dir, parts := rootfs(t)
	for _, name := range []string{"proc", "other"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, name, "sys", "kernel"), 0o777))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name, "version"), []byte("fake\n"), 0o666))
	}
	count, _ := exchange(t, [2]string{filepath.Join(dir, "proc"), filepath.Join(dir, "other")})
	parts = append(parts, chroot.Proc{}, chroot.Mask{"/proc/version"}, chroot.ReadOnly{"/proc/sys"})
	seen := 0
	starts(t, rounds(200), `for d in /proc /other /proc /other; do cat $d/version; cd $d; test -e self && echo real && echo x > sys/kernel/hostname && echo WROTE; done; echo end`,
		func(out string) {
			require.NotContains(t, out, "Linux version")
			require.NotContains(t, out, "WROTE")
			seen += strings.Count(out, "real")
		}, append(parts, more(unix.CLONE_NEWUTS))...)
	require.NotZero(t, seen)
	require.NotZero(t, count())
}

// TestCVE_2025_52565: the target of a console is not what the root says.
func TestCVE_2025_52565(t *testing.T) {
	dir, parts := rootfs(t)
	outside, check := victim(t)
	master, slave := pty(t)
	defer master.Close()
	defer slave.Close()
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(slave.Fd()), &st))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "dev"), 0o755))
	console := filepath.Join(dir, "dev/console")
	require.NoError(t, os.WriteFile(console, nil, 0o666))
	require.NoError(t, os.Symlink("/proc/sys/kernel/core_pattern", console+"2"))
	require.NoError(t, os.Symlink("../../../../../../.."+outside+"/secret", console+"3"))
	exchange(t, [2]string{console, console + "2"}, [2]string{console, console + "3"})
	bind := chroot.Bind{File: slave, Target: "/dev/console", Dev: true}
	if os.Geteuid() != 0 {
		bind = chroot.Bind{Source: slave.Name(), Target: "/dev/console", Dev: true}
	}
	want := fmt.Sprintf("%x:%x\n", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	// With a /dev of the sandbox's own nobody outside has a say.
	for range rounds(40) {
		require.Equal(t, want, run(t, "stat -c %t:%T /dev/console", append(parts, chroot.Proc{}, chroot.Dev{}, bind)...))
	}
	starts(t, rounds(200), "stat -L -c %t:%T /dev/console; echo x > /proc/sys/kernel/core_pattern && echo WROTE; echo end", func(out string) {
		require.NotContains(t, out, "HOSTSECRET")
	}, append(parts, chroot.Proc{}, chroot.ReadOnly{"/proc/sys"}, bind)...)
	check()
}

func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	return master, slave
}

// TestCVE_2026_41579 and CVE-2026-47766: /dev of the root is a symbolic link to a directory of the host, or becomes one.
func TestCVE_2026_41579(t *testing.T) {
	dir, parts := rootfs(t)
	outside, check := victim(t)
	dev := filepath.Join(dir, "dev")
	require.NoError(t, os.Symlink(strings.Repeat("../", 20)+outside, dev))
	for name, list := range map[string][]plan.Primitive{
		"dev": {chroot.Dev{}}, "devpts": {chroot.Devpts{}}, "mqueue": {chroot.Mqueue{}}, "device": {chroot.Device{Path: "/dev/null"}},
		"file": {chroot.File{Path: "/dev/x"}}, "bind": {chroot.Bind{Source: "/dev/null", Target: "/dev/null"}},
		"link": {chroot.Symlink{Path: "/dev/l", Target: "x"}}, "dir": {chroot.Dir{Path: "/dev/d"}}, "tmpfs": {chroot.Tmpfs{Path: "/dev/shm"}},
	} {
		_, err := start(t, "true", append(parts, list...)...)
		require.Error(t, err, name)
		check()
	}
	require.NoError(t, os.Mkdir(dev+"2", 0o755))
	exchange(t, [2]string{dev, dev + "2"})
	starts(t, rounds(200), "ls /dev/. 2>&1; cat /dev/secret", func(out string) { require.NotContains(t, out, "HOSTSECRET") },
		append(parts, chroot.Proc{}, chroot.Dev{Mqueue: true}, chroot.Device{Path: "/dev/null", Target: "/dev/fuse"}, chroot.File{Path: "/dev/x/y"})...)
	check()
}

// TestCVE_2023_28642_sys: as for /proc and /dev.
func TestCVE_2023_28642_sys(t *testing.T) {
	dir, parts := rootfs(t)
	outside, check := victim(t)
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "sys")))
	_, err := start(t, "true", append(parts, more(unix.CLONE_NEWNET|unix.CLONE_NEWCGROUP), chroot.Sysfs{})...)
	var e *plan.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Call, "move_mount")
	_, err = start(t, "true", append(parts, more(unix.CLONE_NEWNET|unix.CLONE_NEWCGROUP), chroot.Cgroupfs{})...)
	require.Error(t, err)
	check()
}

// TestCVE_2021_30465_race, CVE-2015-1335, CVE-2024-45310: parents of mount targets are exchanged with links that lead out, by the
// tree and by /proc.
func TestCVE_2021_30465_race(t *testing.T) {
	for name, link := range map[string]func(outside string) string{
		"tree": func(o string) string { return strings.Repeat("../", 20) + o },
		"proc": func(o string) string { return "/proc/1/root" + o },
		"self": func(o string) string { return "/proc/self/cwd/" + strings.Repeat("../", 20) + o },
		"fd":   func(o string) string { return "/proc/self/fd/4" + o },
	} {
		t.Run(name, func(t *testing.T) {
			dir, parts := rootfs(t)
			outside, check := victim(t)
			at := func(n string) string { return filepath.Join(dir, n) }
			require.NoError(t, os.MkdirAll(at("v/a/b"), 0o777))
			require.NoError(t, os.Symlink(link(outside), at("v/l")))
			require.NoError(t, os.Symlink(link(outside), at("v/a/l")))
			exchange(t, [2]string{at("v/a"), at("v/l")}, [2]string{at("v/a"), at("v/l")}, [2]string{at("v/a/b"), at("v/a/l")})
			parts = append(parts, chroot.Proc{}, chroot.Tmpfs{Path: "/v/a/b/t"}, chroot.Bind{Source: "/etc", Target: "/v/a/b/e", ReadOnly: true},
				chroot.File{Path: "/v/a/f", Data: []byte("x")}, chroot.Dir{Path: "/v/a/b/d"}, chroot.Mask{"/v/a/secret", "/v/a/b/secret"})
			starts(t, rounds(100), "cat /v/a/secret /v/l/secret /v/a/b/secret", func(out string) { require.NotContains(t, out, "HOSTSECRET") }, parts...)
			check()
		})
	}
}

// TestMagicLinkWithoutPIDNamespace: where /proc shows the processes of the host, a link of the root to /proc/1/root leads to the host's tree. It
// is not followed.
func TestMagicLinkWithoutPIDNamespace(t *testing.T) {
	asRoot(t)
	outside, check := victim(t)
	for name, part := range map[string]plan.Primitive{"tmpfs": chroot.Tmpfs{Path: "/l/made/x"}, "dir": chroot.Dir{Path: "/l/made"}, "file": chroot.File{Path: "/l/made"},
		"symlink": chroot.Symlink{Path: "/l/made", Target: "x"}, "bind": chroot.Bind{Source: "/etc", Target: "/l/made"},
		"device": chroot.Device{Path: "/dev/null", Target: "/l/made"}, "mask": chroot.Mask{"/l/secret"}, "readonly": chroot.ReadOnly{"/l/secret"}} {
		dir, parts := rootfs(t)
		require.NoError(t, os.Symlink(fmt.Sprintf("/proc/%d/root%s", os.Getpid(), outside), filepath.Join(dir, "l")))
		cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}
		_, err := launch.Start(t.Context(), plan.Build(append(parts, chroot.Bind{Source: "/proc", Target: "/proc"}, part)...), cmd, launch.Options{})
		require.ErrorIs(t, err, syscall.ELOOP, name)
		check()
	}
}

// TestMagicLinkAsMountPoint: the last word of a mount point may be a link of the root, but not one of /proc, wherever that leads.
func TestMagicLinkAsMountPoint(t *testing.T) {
	dir, parts := rootfs(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	for target, part := range map[string]plan.Primitive{"d": chroot.Tmpfs{Path: "/link/d"}, "d ": chroot.Bind{Source: "/etc", Target: "/link/d "}, "f": chroot.File{Path: "/link/f", Data: []byte("data\n")}} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "link"), 0o755))
		link := filepath.Join(dir, "link", target)
		require.NoError(t, os.Symlink("/"+strings.TrimSpace(target), link))
		out := run(t, "cat /proc/self/mountinfo", append(parts, chroot.Proc{}, part)...)
		require.Contains(t, out, " /"+strings.TrimSpace(target)+" ", "a link of the root is followed")
		require.NoError(t, os.Remove(link))
		require.NoError(t, os.Symlink("/proc/self/root/"+strings.TrimSpace(target), link))
		_, err := start(t, "true", append(parts, chroot.Proc{}, part)...)
		require.ErrorIs(t, err, syscall.ELOOP, "%T", part)
		require.NoError(t, os.Remove(link))
	}
}

// TestCVE_2024_23651: what is removed is removed by descriptor; a directory that becomes a link to the host's tree meanwhile does not lead there.
func TestCVE_2024_23651(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		outside, check := victim(t)
		dir := t.TempDir()
		r := open(dir)
		at := func(n string) string { return filepath.Join(dir, n) }
		require.NoError(t, os.Mkdir(at("real"), 0o755))
		require.NoError(t, os.Symlink(outside, at("link")))
		count, stop := exchange(t, [2]string{at("real"), at("link")})
		for i, end := 0, time.Now().Add(20*time.Second); i < rounds(300) || count() == 0 && time.Now().Before(end); i++ {
			r.MkdirAll("real/a/b", 0o755)
			r.WriteFile("real/secret", nil, 0o600)
			r.RemoveAll("real/a")
			r.RemoveAll("real/secret")
			r.Remove("real/secret")
		}
		require.NotZero(t, count())
		stop()
		check()
	})
}

// TestCVE_2018_15664: an output changes between a file, a link to a secret, a fifo and a second name of a secret, while it is copied.
func TestCVE_2018_15664(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		outside, check := victim(t)
		dir := t.TempDir()
		r := open(dir)
		at := func(n string) string { return filepath.Join(dir, n) }
		require.NoError(t, os.MkdirAll(at("d"), 0o755))
		require.NoError(t, os.Symlink(outside, at("l")))
		for _, d := range []string{at("d"), dir} {
			require.NoError(t, os.WriteFile(filepath.Join(d, "secret"), []byte("fine"), 0o600))
		}
		require.NoError(t, os.WriteFile(at("hard"), []byte("HOSTSECRET"), 0o600))
		require.NoError(t, os.Link(at("hard"), at("hard2")))
		require.NoError(t, os.Symlink(outside+"/secret", at("sym")))
		require.NoError(t, unix.Mkfifo(at("fifo"), 0o600))
		_, stop := exchange(t, [2]string{at("d"), at("l")}, [2]string{at("secret"), at("sym")}, [2]string{at("secret"), at("fifo")}, [2]string{at("secret"), at("hard")})
		good := 0
		for i := 0; i < rounds(600) || good == 0 && i < 1e5; i++ {
			for _, name := range []string{"secret", "d/secret"} {
				var b bytes.Buffer
				_, err := r.CopyOut(name, &b, 100)
				require.NotContains(t, b.String(), "HOSTSECRET")
				if err == nil {
					require.Equal(t, "fine", b.String())
					good++
				}
			}
			if i%10 == 0 {
				r.CopyIn("d/in", strings.NewReader("in"), 0o600, 10)
			}
		}
		stop()
		check()
	})
}

// TestResolutionRace: a directory deep in the tree is moved up while ".." counts on its depth.
func TestResolutionRace(t *testing.T) {
	eachWay(t, func(t *testing.T, open func(string) *chroot.Root) {
		top := t.TempDir()
		dir := filepath.Join(top, "root")
		at := func(n string) string { return filepath.Join(dir, n) }
		require.NoError(t, os.MkdirAll(at("a/b/c"), 0o755))
		require.NoError(t, os.MkdirAll(at("x/c"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(top, "secret"), []byte("HOSTSECRET"), 0o600))
		require.NoError(t, os.WriteFile(at("secret"), []byte("inside"), 0o600))
		r := open(dir)
		_, stop := exchange(t, [2]string{at("a/b/c"), at("x")})
		got := 0
		for i := 0; i < rounds(1000) || got == 0; i++ {
			b, err := r.ReadFile("a/b/c/../../../secret", 100)
			if err == nil {
				require.Equal(t, "inside", string(b))
				got++
			} else {
				require.True(t, isOneOf(err, syscall.ENOENT, syscall.EAGAIN), err)
			}
		}
		stop()
	})
}

func isOneOf(err error, errnos ...syscall.Errno) bool {
	for _, e := range errnos {
		if plan.Errno(err) == e {
			return true
		}
	}
	return false
}

// TestNothingIsLeft: starts that fail at any step leave no mount, no descriptor and nothing in the victim.
func TestNothingIsLeft(t *testing.T) {
	dir, parts := rootfs(t)
	outside, check := victim(t)
	parts = append(append(parts, docker()...), chroot.Tmpfs{Path: "/t"}, chroot.Bind{Source: outside, Target: "/v", ReadOnly: true}, chroot.File{Path: "/etc/f", Data: []byte("x")},
		chroot.Device{Path: "/dev/null", Target: "/dev/x"})
	p := plan.Build(append([]plan.Primitive{isolated}, parts...)...)
	require.NoError(t, p.Err())
	cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}
	steps := p.Steps(cmd)
	before := hostState(t)
	for i, s := range steps {
		if s.Kind != plan.StepCall {
			continue
		}
		c, err := launch.Start(t.Context(), p, cmd, launch.Options{Fault: i + 1})
		if err == nil { // it was passed over: this kernel has no such file, or the root no such link
			if lacksOpenat2() && (strings.Contains(s.String(), "openat2(") || strings.HasPrefix(s.String(), "readlinkat(")) {
				end(t, c)
				continue
			}
			require.Contains(t, []string{"chroot.Mask", "chroot.ReadOnly"}, s.Primitive, "step %d, %v, failed unnoticed", i+1, s)
			end(t, c)
		}
	}
	require.Equal(t, before, hostState(t))
	check()
	require.NoDirExists(t, filepath.Join(dir, "etc/f"))
}

func hostState(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return fmt.Sprintf("%s %d descriptors", b, len(fds))
}

func end(t *testing.T, c *launch.Process) {
	t.Helper()
	var ws unix.WaitStatus
	_, err := unix.Wait4(c.PID, &ws, 0, nil)
	require.NoError(t, err)
	require.NoError(t, c.Release())
}
