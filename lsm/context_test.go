package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

var container = Context{"system_u", "system_r", "container_t", "s0"}

func TestContexts(t *testing.T) {
	for _, s := range []string{"system_u:system_r:container_t:s0:c1,c2", "u:r:t", "user.a:r-1:t_t:s0-s0:c0.c1023"} {
		c, err := ParseContext(s)
		require.NoError(t, err, s)
		require.Equal(t, s, c.String())
	}
	for _, s := range []string{"", "a", "a:b", "a:b:", ":b:c", "a:b:c:", "a:b:c:s0\n", "a b:c:d", "a:b:c:s0 c1", "a:b:c\x00", "a:b:c:s0\"", strings.Repeat("x", labelSize) + ":b:c"} {
		_, err := ParseContext(s)
		require.ErrorIs(t, err, syscall.EINVAL, "%q", s)
	}
	c := container.With(Categories{9, 3})
	require.Equal(t, "system_u:system_r:container_t:s0:c3,c9", c.String())
	require.Equal(t, container, c.Shared())
	require.Equal(t, "s0:c1,c2", Context{Level: "s0-s15:c0.c1023"}.With(Categories{1, 2}).Level)
	require.Equal(t, "s0", Context{}.Shared().Level)
	require.Equal(t, `context="system_u:system_r:container_t:s0:c3,c9"`, c.MountOption())
	for _, bad := range []Categories{{1, 1}, {-1, 2}, {1, 1024}} {
		require.ErrorIs(t, bad.check(), syscall.EINVAL)
	}
}

func TestSameContext(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"u:r:t:s0:c1,c2", "u:r:t:s0:c2,c1", true},
		{"u:r:t:s0:c1,c2,c3", "u:r:t:s0:c1.c3", true},
		{"u:r:t:s0-s0:c1", "u:r:t:s0-s0:c1", true},
		{"u:r:t:s0-s0", "u:r:t:s0", true},
		{"u:r:t:s0:c1", "u:r:t:s0", false},
		{"u:r:t:s0:c1,c2", "u:r:t:s0:c1,c3", false},
		{"u:r:t:s0", "u:r:x:s0", false},
		{"u:r:t", "u:r:t", true},
		{"", "", false},
		{"", "u:r:t:s0", false},
	} {
		require.Equal(t, c.same, sameContext(c.a, c.b), "%+v", c)
	}
}

func FuzzContext(f *testing.F) {
	f.Add("system_u:system_r:container_t:s0:c1,c2")
	f.Add("u:r:t:s0-s0:c0.c1023")
	f.Add("a:b:c:s0:c01,c99999")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseContext(s)
		if err != nil {
			return
		}
		if c.String() != s || strings.ContainsAny(s, "\n\x00\" ") || !sameContext(s, s) {
			t.Errorf("%q gives %q", s, c)
		}
		both, err := parseRange(c.Level)
		for _, l := range both {
			for _, n := range l.categories {
				if err == nil && (n < 0 || n > maxCategory) {
					t.Errorf("category %d of %q", n, s)
				}
			}
		}
	})
}

// simSELinux is the part on a simulated host.
type simSELinux struct {
	h host
	s SELinux
}

func (s simSELinux) Apply(p *plan.Plan) error { return s.s.apply(p, s.h) }

func TestSELinuxGolden(t *testing.T) {
	h := simulated(t, map[string]string{"/sys/kernel/security/lsm": "capability,selinux"})
	p := simSELinux{h, SELinux{Process: container.With(Categories{1, 2}), Keyring: container}}
	plantest.Check(t, p)
	compare(t, "selinux", plan.Build(p))
}

func TestSELinuxErrors(t *testing.T) {
	h := simulated(t, map[string]string{"/sys/kernel/security/lsm": "selinux"})
	for _, s := range []SELinux{{}, {Process: Context{"a", "b", "", "s0"}}, {Process: Context{"a", "b", "c\n", "s0"}}, {Keyring: Context{"a", "b", "c", "s0\n"}}} {
		require.ErrorIs(t, plan.Build(simSELinux{h, s}).Err(), syscall.EINVAL)
	}
	var conflict *plan.ConflictError
	require.ErrorAs(t, plan.Build(simSELinux{h, SELinux{Process: container}}, simSELinux{h, SELinux{Keyring: container}}).Err(), &conflict)
	for _, list := range []string{"apparmor", "apparmor,selinux"} { // absent; attr/exec is AppArmor's
		other := simulated(t, map[string]string{"/sys/kernel/security/lsm": list})
		require.ErrorIs(t, plan.Build(simSELinux{other, SELinux{Process: container}}).Err(), errors.ErrUnsupported)
	}
	require.ErrorIs(t, h.checkContext(container), errors.ErrUnsupported)
}

// TestShortWrite: a kernel that takes a part of the label, or clears it, is found out.
func TestShortWrite(t *testing.T) {
	h := simulated(t, map[string]string{"/sys/kernel/security/lsm": "selinux", "/proc/thread-self/attr/current": "u:r:t:s0"})
	for understood, want := range map[string]error{"": syscall.EPERM, "\n": syscall.EPERM, "system_u:system_r:container_t:s0": syscall.EPERM} {
		proc, err := h.openProc()
		require.NoError(t, err)
		defer proc.Close()
		c := change{module: "selinux", current: "attr/current", want: "system_u:system_r:container_t:s0:c1,c2", same: sameContext}
		require.ErrorIs(t, c.verify([]byte(understood), proc, 7), want)
	}
}

func TestContainerContexts(t *testing.T) {
	const config, contexts = "/etc/selinux/config", "/etc/selinux/targeted/contexts/lxc_contexts"
	good := map[string]string{config: "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n",
		contexts: "process = \"system_u:system_r:container_t:s0\"\ncontent = \"x\"\nfile = \"system_u:object_r:container_file_t:s0\"\n"}
	process, file, err := simulated(t, good).containerContexts()
	require.NoError(t, err)
	require.Equal(t, []string{"system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0"}, []string{process.String(), file.String()})
	for name, c := range map[string]struct {
		files map[string]string
		err   error
	}{
		"no SELinux":        {nil, errors.ErrUnsupported},
		"no type":           {map[string]string{config: "SELINUX=enforcing\n"}, errors.ErrUnsupported},
		"a path for a type": {map[string]string{config: "SELINUXTYPE=../../tmp\n"}, errors.ErrUnsupported},
		"no contexts":       {map[string]string{config: "SELINUXTYPE=default\n"}, errors.ErrUnsupported},
		"bad context":       {map[string]string{config: "SELINUXTYPE=targeted\n", contexts: "process = \"x\"\n"}, syscall.EINVAL},
		"no file":           {map[string]string{config: "SELINUXTYPE=targeted\n", contexts: "process = \"a:b:c:s0\"\n"}, syscall.EINVAL},
	} {
		_, _, err := simulated(t, c.files).containerContexts()
		require.ErrorIs(t, err, c.err, name)
	}
}

func pool(t *testing.T, n int, files map[string]string) reservations {
	all := map[string]string{"/sys/kernel/security/lsm": "selinux"}
	for k, v := range files {
		all[k] = v
	}
	return reservations{host: simulated(t, all), dir: filepath.Join(t.TempDir(), "mcs"), n: n}
}

// TestReserve: no two have the same pair, all are given, and then there are none.
func TestReserve(t *testing.T) {
	p := pool(t, 6, nil)
	var mu sync.Mutex
	var wg sync.WaitGroup
	given := map[string]*Reservation{}
	for range 15 {
		wg.Go(func() {
			r, err := p.reserve()
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if given[r.String()] != nil || r.check() != nil {
				t.Errorf("%v twice, or no pair", r)
			}
			given[r.String()] = r
		})
	}
	wg.Wait()
	_, err := p.reserve()
	require.ErrorIs(t, err, syscall.ENOSPC)
	for _, r := range given {
		require.NoError(t, r.Close())
		again, err := p.reserve()
		require.NoError(t, err)
		require.Equal(t, r.Categories, again.Categories)
	}
}

func TestPairs(t *testing.T) {
	seen := map[Categories]bool{}
	for i := range 1024 * 1023 / 2 {
		c := pair(i)
		if c.A >= c.B || c.check() != nil || seen[c] {
			t.Fatal(i, c)
		}
		seen[c] = true
	}
}

// TestReserveRunning: what a process still has is not given, also when the reservation is gone.
func TestReserveRunning(t *testing.T) {
	p := pool(t, 3, map[string]string{"/proc/7/attr/current": "u:r:t:s0:c0,c1", "/proc/8/attr/current": "u:r:t:s0-s0:c1,c2", "/proc/9/attr/current": "u:r:t:s0-s0:c0.c2"})
	r, err := p.reserve()
	require.NoError(t, err)
	require.Equal(t, Categories{0, 2}, r.Categories)
	_, err = p.reserve()
	require.ErrorIs(t, err, syscall.ENOSPC)
}

// TestReserveErrors: a directory that somebody else could write to, and no SELinux.
func TestReserveErrors(t *testing.T) {
	p := pool(t, 3, nil)
	require.NoError(t, os.Mkdir(p.dir, 0o700))
	require.NoError(t, os.Chmod(p.dir, 0o777))
	_, err := p.reserve()
	require.ErrorIs(t, err, syscall.EPERM)
	require.NoError(t, os.Remove(p.dir))
	require.NoError(t, os.Symlink(t.TempDir(), p.dir))
	_, err = p.reserve()
	require.ErrorIs(t, err, syscall.ENOTDIR)
	p.host = simulated(t, map[string]string{"/sys/kernel/security/lsm": "apparmor"})
	p.dir = t.TempDir()
	_, err = p.reserve()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	if os.Geteuid() != 0 {
		t.Setenv("XDG_RUNTIME_DIR", "")
		_, err = reservations{host: pool(t, 3, nil).host}.reserve()
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

// TestReserveAcrossProcesses: a reservation of another process is respected, and ends when that is killed.
func TestReserveAcrossProcesses(t *testing.T) {
	if dir := os.Getenv("CAISSON_TEST_RESERVE"); dir != "" {
		p := pool(t, 2, nil)
		p.dir = dir
		_, err := p.reserve()
		fmt.Println("reserved", err)
		os.Stdin.Read(make([]byte, 1))
		return
	}
	p := pool(t, 2, nil)
	cmd := exec.Command(os.Args[0], "-test.run=^TestReserveAcrossProcesses$")
	cmd.Env = append(os.Environ(), "CAISSON_TEST_RESERVE="+p.dir)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	b := make([]byte, 100)
	n, err := out.Read(b)
	require.NoError(t, err)
	require.Equal(t, "reserved <nil>\n", string(b[:n]))
	_, err = p.reserve()
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, cmd.Process.Kill())
	cmd.Wait()
	r, err := p.reserve()
	require.NoError(t, err)
	require.NoError(t, r.Close())
}

func volume(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "volume")
	require.NoError(t, os.MkdirAll(dir+"/sub", 0o755))
	require.NoError(t, os.WriteFile(dir+"/sub/f", nil, 0o644))
	require.NoError(t, os.Link(dir+"/sub/f", dir+"/g"))
	require.NoError(t, unix.Mkfifo(dir+"/fifo", 0o600))
	return dir
}

// TestRelabelRefuses: the system's directories by any name, files that are elsewhere too; nothing has been labelled then.
func TestRelabelRefuses(t *testing.T) {
	c := Context{"system_u", "object_r", "container_file_t", "s0"}
	for _, path := range []string{"/", "/etc", "/usr", "/usr/bin", "/etc/passwd", "/tmp", "/proc", "/proc/self", "/sys/kernel", "/dev/null", "/var", "/proc/self/root/etc"} {
		err := enabled().relabel(path, c)
		require.ErrorIs(t, err, syscall.EPERM, path)
		var e *RelabelError
		require.ErrorAs(t, err, &e)
	}
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink("/etc", link))
	require.ErrorIs(t, enabled().relabel(link, c), syscall.EPERM)
	require.ErrorIs(t, enabled().relabel(link+"/passwd", c), syscall.EPERM)
	t.Setenv("HOME", t.TempDir())
	require.ErrorIs(t, enabled().relabel(os.Getenv("HOME"), c), syscall.EPERM)
	require.ErrorIs(t, enabled().relabel("/no/such", c), fs.ErrNotExist)
	require.ErrorIs(t, enabled().relabel(link, Context{}), syscall.EINVAL)

	dir := volume(t)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	require.NoError(t, os.WriteFile(outside, nil, 0o644))
	require.NoError(t, os.Link(outside, dir+"/sub/hard"))
	before, beforeErr := contextOf(dir + "/sub/f")
	err := enabled().relabel(dir, c)
	require.ErrorIs(t, err, syscall.EPERM)
	require.ErrorContains(t, err, "hard link outside")
	after, afterErr := contextOf(dir + "/sub/f")
	require.Equal(t, []any{before, beforeErr}, []any{after, afterErr}, "labelled all the same")
}

// TestRelabel sets the attribute, which a kernel without SELinux keeps as any other.
func TestRelabel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN to set attributes of the security modules")
	}
	c := Context{"system_u", "object_r", "container_file_t", "s0:c1,c2"}
	dir := volume(t)
	victim := filepath.Join(t.TempDir(), "victim")
	require.NoError(t, os.WriteFile(victim, nil, 0o644))
	require.NoError(t, os.Symlink(victim, dir+"/link"))
	before, beforeErr := contextOf(victim)
	require.NoError(t, enabled().relabel(dir, c))
	for _, name := range []string{"", "/sub", "/sub/f", "/g", "/fifo", "/link"} {
		got, err := contextOf(dir + name)
		require.NoError(t, err, name)
		require.Equal(t, c.String(), got, name)
	}
	after, afterErr := contextOf(victim)
	require.Equal(t, []any{before, beforeErr}, []any{after, afterErr}, "a link was followed")

	f, err := os.Open(dir + "/g")
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, SetFileContext(f, c.Shared()))
	got, err := FileContext(f)
	require.NoError(t, err)
	require.Equal(t, c.Shared(), got)
}

// context is that of a link itself.
func contextOf(path string) (string, error) {
	b := make([]byte, labelSize)
	n, err := unix.Lgetxattr(path, labelXattr, b)
	if err != nil {
		return "", err
	}
	return text(b[:n]), nil
}

// TestRelabelMount: what is mounted in the tree is not the caller's volume.
func TestRelabelMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := volume(t)
	done := make(chan error)
	go func() { // on a thread that is thrown away, with its mount namespace
		runtime.LockOSThread()
		err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("x", dir+"/sub", "tmpfs", 0, ""))
		if err == nil {
			err = enabled().relabel(dir, Context{"system_u", "object_r", "container_file_t", "s0"})
		}
		done <- err
	}()
	err := <-done
	var e *RelabelError
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, syscall.EXDEV)
}

// TestRelabelWithoutSELinux: a label that nobody looks at is no protection.
func TestRelabelWithoutSELinux(t *testing.T) {
	h := host{modules: func() ([]uint64, error) { return []uint64{104, 110}, nil }}
	require.ErrorIs(t, h.relabel(volume(t), Context{"system_u", "object_r", "container_file_t", "s0"}), errors.ErrUnsupported)
}

// enabled is this host, as if it had SELinux enabled.
func enabled() host {
	return host{modules: func() ([]uint64, error) { return []uint64{101}, nil }}
}

func TestFileWithoutContext(t *testing.T) {
	f, err := os.Open("/proc/self/status")
	require.NoError(t, err)
	defer f.Close()
	if c, err := FileContext(f); err != nil {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	} else {
		require.NotEmpty(t, c.Type) // SELinux is enabled
	}
}
