package lsm_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/plan"
)

var (
	process = lsm.Context{User: "system_u", Role: "system_r", Type: "container_t", Level: "s0"}
	file    = lsm.Context{User: "system_u", Role: "object_r", Type: "container_file_t", Level: "s0"}
)

// needSELinux skips also where the policy is one that does not know container_t, as Debian's own.
func needSELinux(t *testing.T) {
	t.Helper()
	needModule(t, "selinux")
	if err := lsm.CheckContext(process); err != nil && os.Getenv("CAISSON_GUEST_LSM") != "selinux" {
		t.Skipf("the policy does not know %s: %v", process, err)
	}
}

// labelledTree has a directory for one sandbox and one for another.
func labelledTree(t *testing.T, one, two lsm.Categories) string {
	t.Helper()
	dir := tree(t)
	for d, c := range map[string]lsm.Context{"ro": file.With(one), "rw": file.Shared(), "no": file.With(two)} {
		require.NoError(t, lsm.Relabel(dir+"/"+d, c))
	}
	return dir
}

const showLabel = "read l < /proc/self/attr/current; echo $l; "

func TestSELinux(t *testing.T) {
	needSELinux(t)
	one, two := lsm.Categories{A: 1, B: 2}, lsm.Categories{A: 1, B: 3}
	dir := labelledTree(t, one, two)
	label := lsm.SELinux{Process: process.With(one)}
	script := showLabel + "cat " + dir + "/ro/f; cat " + dir + "/rw/f; cat " + dir + "/no/f; (echo x > /etc/x)"
	check := func(t *testing.T, out string) {
		t.Helper()
		require.Contains(t, out, process.With(one).String()+"\ndata\ndata\n")
		require.Equal(t, 2, strings.Count(out, "data\n"))
		require.GreaterOrEqual(t, strings.Count(out, "Permission denied"), 1)
	}
	t.Run("host's root", func(t *testing.T) { check(t, run(t, script, label)) })
	t.Run("categories keep apart", func(t *testing.T) {
		out := run(t, script, lsm.SELinux{Process: process.With(two)})
		require.Contains(t, out, process.With(two).String())
		require.Equal(t, 2, strings.Count(out, "data\n"))
		require.Contains(t, out, "/ro/f: Permission denied")
	})
	t.Run("label survives exec", func(t *testing.T) {
		require.Equal(t, process.With(one).String()+"\n", strings.ReplaceAll(run(t, "exec sh -c '"+showLabel+"'", label), "\x00", ""))
	})
	pivot := []plan.Primitive{plan.Func(isolated), chroot.Pivot{Dir: "/"}, chroot.Proc{}}
	t.Run("own root", func(t *testing.T) { check(t, run(t, script, append(pivot, label)...)) })
	t.Run("user namespace", func(t *testing.T) {
		check(t, run(t, script, plan.Func(isolated), plan.Func(withUser), label))
	})
	t.Run("another user", func(t *testing.T) {
		require.Contains(t, run(t, showLabel, plan.Func(asNobody), label), label.Process.String())
	})
	t.Run("fork", func(t *testing.T) {
		out, err := startWith(t, launch.Options{NoVfork: true}, shell(script), label)
		require.NoError(t, err)
		check(t, out)
	})
}

// TestSELinuxNoSuid: with no_new_privs, with nosuid and by way of an init process the policy has to allow the transition twice. Whatever it says, no command
// runs without the label.
func TestSELinuxNoSuid(t *testing.T) {
	needSELinux(t)
	label := lsm.SELinux{Process: process.With(lsm.Categories{A: 1, B: 2})}
	nnp := plan.Func(func(p *plan.Plan) error { p.NoNewPrivs(); return nil })
	for name, parts := range map[string][]plan.Primitive{
		"no_new_privs": {nnp},
		"nosuid":       {plan.Func(isolated), chroot.Host{}, chroot.Proc{}},
		"Landlock":     {rules(lsm.ReadOnly("/"))},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := start(t, showLabel, append(parts, label)...)
			if err == nil || allowsTwice() {
				require.NoError(t, err)
				require.Equal(t, label.Process.String()+"\n", out)
				return
			}
			var e *plan.Error
			require.ErrorAs(t, err, &e)
			require.ErrorIs(t, err, fs.ErrPermission)
			require.Contains(t, e.Call, "execve")
		})
	}
}

// allowsTwice reports whether the policy is known to be one that allows the transition with no_new_privs and nosuid: that of the kernel lane.
func allowsTwice() bool { return os.Getenv("CAISSON_GUEST_LSM") == "selinux" }

func TestSELinuxUnknown(t *testing.T) {
	needSELinux(t)
	for _, c := range []lsm.Context{{User: "system_u", Role: "system_r", Type: "no_such_t", Level: "s0"}, {User: "system_u", Role: "system_r", Type: "container_t"},
		{User: "system_u", Role: "system_r", Type: "container_t", Level: "s9"}} {
		_, err := start(t, "true", lsm.SELinux{Process: c})
		var e *plan.Error
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.Contains(t, e.Hint, "policy")
		require.ErrorIs(t, lsm.CheckContext(c), syscall.EINVAL)
	}
	require.NoError(t, lsm.CheckContext(process))
}

// TestNewline: the trap, in the kernel itself. Of a label with a newline it takes all but that, and says so; who then writes the rest clears
// the label. We have no context with a newline, write once, and read back.
func TestNewline(t *testing.T) {
	needSELinux(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f, err := os.OpenFile("/proc/thread-self/attr/fscreate", os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	text := file.String()
	n, err := unix.Write(int(f.Fd()), []byte(text+"\n"))
	require.NoError(t, err)
	require.Equal(t, len(text), n, "the trap has gone")
	b := make([]byte, 256)
	n, err = unix.Pread(int(f.Fd()), b, 0)
	require.NoError(t, err)
	require.Equal(t, text, strings.TrimRight(string(b[:n]), "\x00"))
	g, err := os.OpenFile("/proc/thread-self/attr/fscreate", os.O_RDWR, 0)
	require.NoError(t, err)
	defer g.Close()
	_, err = unix.Write(int(g.Fd()), []byte("\n"))
	require.NoError(t, err)
	n, err = unix.Pread(int(g.Fd()), b, 0)
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = lsm.ParseContext(text + "\n")
	require.ErrorIs(t, err, syscall.EINVAL)
}

func TestCreating(t *testing.T) {
	needSELinux(t)
	dir := t.TempDir()
	c := file.With(lsm.Categories{A: 4, B: 5})
	for range 3 {
		name := dir + "/f"
		require.NoError(t, lsm.Creating{File: c}.Do(func() error { return os.WriteFile(name, nil, 0o644) }))
		f, err := os.Open(name)
		require.NoError(t, err)
		got, err := lsm.FileContext(f)
		require.NoError(t, err)
		require.Equal(t, c, got)
		f.Close()
		require.NoError(t, os.Remove(name))
	}
	var sockets [2]int
	require.NoError(t, lsm.Creating{Socket: process}.Do(func() (err error) {
		sockets, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	defer unix.Close(sockets[0])
	defer unix.Close(sockets[1])
	peer, err := unix.GetsockoptString(sockets[0], unix.SOL_SOCKET, unix.SO_PEERSEC)
	require.NoError(t, err)
	require.Equal(t, process.String(), peer)
	// Who has CAP_MAC_ADMIN may choose a context that the policy does not know; the kernel takes it for another one.
	var e *lsm.LabelError
	require.ErrorAs(t, lsm.Creating{File: lsm.Context{User: "u", Role: "r", Type: "t"}}.Do(func() error { return nil }), &e)
	keyContext := process.With(lsm.Categories{A: 4, B: 6})
	var key int
	require.NoError(t, lsm.Creating{Key: keyContext}.Do(func() (err error) {
		key, err = unix.AddKey("user", "caisson-lsm-test", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
		return err
	}))
	require.Equal(t, keyContext.String(), keyLabel(key))
	own := fmt.Errorf("own")
	require.Equal(t, own, lsm.Creating{Key: file}.Do(func() error { return own }))
}

func TestKeyring(t *testing.T) {
	needSELinux(t)
	label := process.With(lsm.Categories{A: 1, B: 2})
	self, err := os.Executable()
	require.NoError(t, err)
	out, err := startCommand(t, helper(self, "keyring"), lsm.SELinux{Keyring: label})
	require.NoError(t, err)
	require.Equal(t, label.String()+"\n", out)
}

// keyring prints the label of the session keyring.
func keyring([]string) { fmt.Println(keyLabel(unix.KEY_SPEC_SESSION_KEYRING)) }

// keyLabel gives the label of a key, or what went wrong.
func keyLabel(key int) string {
	b := make([]byte, 4096)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_GET_SECURITY, key, b, 0)
	if err != nil {
		return err.Error()
	}
	return strings.TrimRight(string(b[:n]), "\x00")
}

func TestMountContext(t *testing.T) {
	needSELinux(t)
	c := file.With(lsm.Categories{A: 6, B: 7})
	dir := t.TempDir()
	require.NoError(t, unix.Mount("x", dir, "tmpfs", 0, c.MountOption()))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	require.NoError(t, os.WriteFile(dir+"/f", nil, 0o644))
	f, err := os.Open(dir + "/f")
	require.NoError(t, err)
	defer f.Close()
	got, err := lsm.FileContext(f)
	require.NoError(t, err)
	require.Equal(t, c, got)
}

// TestReserved: two sandboxes with reserved categories cannot read each other.
func TestReserved(t *testing.T) {
	needSELinux(t)
	one, err := lsm.ReserveCategories()
	require.NoError(t, err)
	defer one.Close()
	two, err := lsm.ReserveCategories()
	require.NoError(t, err)
	defer two.Close()
	require.NotEqual(t, one.Categories, two.Categories)
	dir := labelledTree(t, one.Categories, two.Categories)
	for d, c := range map[string]lsm.Categories{"ro": one.Categories, "no": two.Categories} {
		out := run(t, "cat "+dir+"/ro/f; cat "+dir+"/no/f", lsm.SELinux{Process: process.With(c)})
		require.Equal(t, 1, strings.Count(out, "data\n"), d)
		require.Equal(t, 1, strings.Count(out, "Permission denied"), d)
	}
	// A command that runs keeps its categories, also when its reservation has gone: TestReserveRunning.
	self, err := os.Executable()
	require.NoError(t, err)
	sleep := exec.Command("/bin/sleep", "100")
	require.NoError(t, sleep.Start())
	defer sleep.Process.Kill()
	out, err := startCommand(t, helper(self, "signal", strconv.Itoa(sleep.Process.Pid)), lsm.SELinux{Process: process.With(one.Categories)})
	require.NoError(t, err)
	require.Equal(t, "EPERM\n", strings.ReplaceAll(out, "EACCES", "EPERM"))
}

// BenchmarkSELinux compares a start with and without a label, where SELinux is enabled.
func BenchmarkSELinux(b *testing.B) {
	if err := lsm.CheckContext(process); err != nil || os.Geteuid() != 0 {
		b.Skip("needs SELinux, a policy with container_t, and root")
	}
	for name, parts := range map[string][]plan.Primitive{"without": nil, "with": {lsm.SELinux{Process: process}}} {
		b.Run(name, func(b *testing.B) { benchmark(b, parts...) })
	}
}

func TestSELinuxJoined(t *testing.T) {
	needSELinux(t)
	out, err := tryJoined(t, showLabel, lsm.SELinux{Process: process.With(lsm.Categories{A: 1, B: 2})})
	if err != nil && !allowsTwice() {
		require.ErrorIs(t, err, fs.ErrPermission)
		return
	}
	require.NoError(t, err)
	require.Equal(t, process.With(lsm.Categories{A: 1, B: 2}).String()+"\n", out)
}

// TestSELinuxAbsent: a kernel without it says so before anything is started.
func TestSELinuxAbsent(t *testing.T) {
	m, err := lsm.Active()
	if err != nil || m.Has("selinux") {
		return // TestSELinux has it; TestSELinuxErrors simulates the rest
	}
	_, err = start(t, "true", lsm.SELinux{Process: process})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorIs(t, lsm.Creating{File: file}.Do(func() error { return nil }), errors.ErrUnsupported)
	_, err = lsm.ReserveCategories()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorIs(t, lsm.CheckContext(file), errors.ErrUnsupported)
}
