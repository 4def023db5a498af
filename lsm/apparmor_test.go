package lsm_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/plan"
)

// needModule skips where the kernel does not have the module enabled. In the kernel lane's machine for it, it must.
func needModule(t *testing.T, module string) {
	t.Helper()
	m, err := lsm.Active()
	if os.Getenv("CAISSON_GUEST_LSM") == module {
		require.NoError(t, err)
		require.True(t, m.Has(module), "%v", m)
		return
	}
	if err != nil || !m.Has(module) {
		t.Skipf("the kernel does not have %s enabled: %v %v", module, m, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to change the system's policy")
	}
}

// secret is a profile that allows everything but one directory.
func secret(name, dir string) lsm.Profile {
	return lsm.Profile{Name: name, AttachDisconnected: true, MediateDeleted: true, Network: []lsm.NetworkRule{{}}, Capabilities: []lsm.CapabilityRule{{}},
		Files:  []lsm.FileRule{{}, {Deny: true, Path: dir + "/**", Perms: "rwkl"}},
		Mounts: []lsm.MountRule{{}, {Op: "umount"}, {Op: "pivot_root"}}, Ptrace: []lsm.PtraceRule{{}}, Signals: []lsm.SignalRule{{}}}
}

func load(t *testing.T, p lsm.Profile) {
	t.Helper()
	needParser(t)
	require.NoError(t, p.Load(context.Background()))
	t.Cleanup(func() { require.NoError(t, lsm.RemoveProfile(p.Name)) })
}

func TestAppArmor(t *testing.T) {
	needModule(t, "apparmor")
	dir := tree(t)
	name := "caisson-test-secret"
	load(t, secret(name, dir+"/no"))
	const label = "read l < /proc/self/attr/apparmor/current; echo $l; "
	script := label + "cat " + dir + "/ro/f; cat " + dir + "/no/f"
	check := func(t *testing.T, out string) {
		t.Helper()
		require.Contains(t, out, name+" (enforce)\ndata\n")
		require.Contains(t, out, "Permission denied")
		require.Equal(t, 1, strings.Count(out, "data\n"))
	}
	own := []plan.Primitive{plan.Func(isolated), chroot.Host{}, chroot.Proc{}}
	t.Run("host's root", func(t *testing.T) { check(t, run(t, script, lsm.AppArmor(name))) })
	t.Run("own root", func(t *testing.T) { check(t, run(t, script, append(own, lsm.AppArmor(name))...)) })
	t.Run("user namespace", func(t *testing.T) {
		user := plan.Func(func(p *plan.Plan) error { return withUser(p) })
		check(t, run(t, script, append(own, user, lsm.AppArmor(name))...))
	})
	t.Run("stack on unconfined", func(t *testing.T) {
		out := run(t, script, lsm.Stack(name))
		require.Contains(t, out, name+"//&unconfined (enforce)\n")
		require.Contains(t, out, "Permission denied")
	})
	t.Run("with Landlock", func(t *testing.T) {
		needABI(t, 1)
		check(t, run(t, script, append(own, lsm.AppArmor(name), rules(lsm.ReadOnly("/proc", dir)))...))
	})
	t.Run("script", func(t *testing.T) {
		require.NoError(t, os.WriteFile(dir+"/script", []byte("#!/bin/sh\n"+script+"\n"), 0o755))
		out, err := startCommand(t, &plan.Command{Candidates: []string{dir + "/script"}, Args: []string{"script"}}, append(own, lsm.AppArmor(name))...)
		require.NoError(t, err)
		check(t, out)
	})
	t.Run("under init", func(t *testing.T) {
		cmd := &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Init: true}
		out, err := startCommand(t, cmd, append(own, lsm.AppArmor(name))...)
		require.NoError(t, err)
		check(t, out)
	})
	t.Run("fork", func(t *testing.T) {
		p := plan.Build(lsm.AppArmor(name))
		cmd := &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "100"}, Files: []*os.File{nil, nil, nil}}
		proc, err := launch.Start(context.Background(), p, cmd, launch.Options{NoVfork: true})
		require.NoError(t, err)
		labels, err := lsm.Labels(proc.PID)
		require.NoError(t, err)
		require.Equal(t, []lsm.Label{{Module: "apparmor", Name: name, Mode: "enforce"}}, labels)
		of, err := lsm.LabelsOf(proc.PIDFD)
		require.NoError(t, err)
		require.Equal(t, labels, of)
		require.NoError(t, unix.Kill(proc.PID, unix.SIGKILL))
		_, err = unix.Wait4(proc.PID, nil, 0, nil)
		require.NoError(t, err)
		require.NoError(t, proc.Release())
	})
	t.Run("joined", func(t *testing.T) { check(t, joined(t, script, lsm.AppArmor(name))) })
	t.Run("hostile /proc", func(t *testing.T) { // CVE-2019-16884: the label does not go by way of the root's own files
		out := run(t, "cat "+dir+"/ro/f; cat "+dir+"/no/f", plan.Func(isolated), chroot.Host{}, chroot.Tmpfs{Path: "/proc"}, lsm.AppArmor(name))
		require.Contains(t, out, "data\n")
		require.Contains(t, out, "Permission denied")
	})
	t.Run("complain", func(t *testing.T) {
		p := secret("caisson-test-complain", dir+"/no")
		p.Complain = true
		p.Files = p.Files[:1] // what is denied by name stays denied
		load(t, p)
		require.Equal(t, p.Name+" (complain)\ndata\n", run(t, label+"cat "+dir+"/no/f", lsm.AppArmor(p.Name)))
	})
	t.Run("another user", func(t *testing.T) {
		require.Contains(t, run(t, label, plan.Func(asNobody), lsm.AppArmor(name)), name+" (enforce)\n")
	})
	t.Run("listed", func(t *testing.T) {
		all, err := lsm.Profiles()
		require.NoError(t, err)
		require.Contains(t, all, lsm.Label{Module: "apparmor", Name: name, Mode: "enforce"})
	})
}

// withUser adds a user namespace in which root is the caller.
func withUser(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWUSER)
	p.While(plan.Action{Name: "write id maps", Do: func(r *plan.Run) error {
		dir := "/proc/" + strconv.Itoa(r.PID) + "/"
		return errors.Join(os.WriteFile(dir+"gid_map", []byte("0 0 1"), 0), os.WriteFile(dir+"uid_map", []byte("0 0 1"), 0))
	}})
	return nil
}

// asNobody changes the user, which makes the child's files in /proc root's.
func asNobody(p *plan.Plan) error {
	p.Child(plan.Credentials, plan.Call("setresgid", sys.Setresgid, plan.Int(65534), plan.Int(65534), plan.Int(65534)),
		plan.Call("setresuid", sys.Setresuid, plan.Int(65534), plan.Int(65534), plan.Int(65534)))
	return nil
}

// joined executes the script as a further command in a running sandbox.
func joined(t *testing.T, script string, label plan.Primitive) string {
	t.Helper()
	out, err := tryJoined(t, script, label)
	require.NoError(t, err)
	return out
}

func tryJoined(t *testing.T, script string, label plan.Primitive) (string, error) {
	t.Helper()
	p := plan.Build(plan.Func(isolated), chroot.Pivot{Dir: "/"}, chroot.Proc{}, label)
	cmd := &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "100"}, Files: []*os.File{nil, nil, nil}}
	first, err := launch.Start(context.Background(), p, cmd, launch.Options{})
	if err != nil {
		return "", err
	}
	defer func() {
		require.NoError(t, unix.Kill(first.PID, unix.SIGKILL))
		_, err := unix.Wait4(first.PID, nil, 0, nil)
		require.NoError(t, err)
		require.NoError(t, first.Release())
	}()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd = &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Env: os.Environ(), Files: []*os.File{nil, w, w}}
	second, err := launch.Start(context.Background(), again(p, first.PID), cmd, launch.Options{Inherit: first.Run})
	w.Close()
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	_, err = unix.Wait4(second.PID, nil, 0, nil)
	require.NoError(t, err)
	return strings.ReplaceAll(string(out), "\x00", ""), second.Release()
}

// again is the plan of a further command, which enters the namespaces of the first.
func again(p *plan.Plan, pid int) *plan.Plan {
	return p.Again(plan.Func(func(q *plan.Plan) error {
		f := q.Open("sandbox", func(*plan.Run) (*os.File, error) {
			fd, err := unix.PidfdOpen(pid, 0)
			return os.NewFile(uintptr(fd), "pidfd"), err
		})
		q.Join(p.Cloned(), plan.Call("setns", unix.SYS_SETNS, plan.FD(f), plan.Namespaces(p.Cloned())))
		return nil
	}))
}

func TestAppArmorNotLoaded(t *testing.T) {
	needModule(t, "apparmor")
	for _, part := range []plan.Primitive{lsm.AppArmor("caisson-no-such-profile"), lsm.Stack("caisson-no-such-profile")} {
		_, err := start(t, "true", part)
		var e *plan.Error
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.Contains(t, e.Hint, "not loaded")
		require.Contains(t, e.Call, "caisson-no-such-profile")
	}
	require.ErrorIs(t, lsm.RemoveProfile("caisson-no-such-profile"), fs.ErrNotExist)
	require.Error(t, lsm.LoadProfile([]byte("no profile")))
}

func TestAppArmorStack(t *testing.T) {
	needModule(t, "apparmor")
	dir := tree(t)
	load(t, secret("caisson-test-a", dir+"/no"))
	load(t, secret("caisson-test-b", dir+"/ro"))
	script := "read l < /proc/self/attr/apparmor/current; echo $l; cat " + dir + "/ro/f " + dir + "/no/f " + dir + "/rw/f"
	out := run(t, script, lsm.AppArmor("caisson-test-b//&caisson-test-a"))
	require.Contains(t, out, "caisson-test-a//&caisson-test-b (enforce)\n")
	require.Equal(t, 2, strings.Count(out, "Permission denied"))
	require.Equal(t, 1, strings.Count(out, "data\n"))
}

// TestAppArmorNamespace: a profile of a policy namespace, by both ways to write its name.
func TestAppArmorNamespace(t *testing.T) {
	needModule(t, "apparmor")
	dir := tree(t)
	load(t, secret(":caisson-ns:inside", dir+"/no"))
	for _, name := range []string{":caisson-ns:inside", ":caisson-ns://inside"} {
		out := run(t, "read l < /proc/self/attr/apparmor/current; echo $l; cat "+dir+"/ro/f; cat "+dir+"/no/f", lsm.AppArmor(name))
		require.Contains(t, out, "data\n")
		require.Equal(t, 1, strings.Count(out, "data\n"))
		require.Contains(t, out, "Permission denied")
	}
}

func TestDockerDefault(t *testing.T) {
	needModule(t, "apparmor")
	needParser(t)
	if _, err := os.Stat("/etc/apparmor.d/abstractions/base"); err != nil {
		t.Skipf("needs the abstractions of package apparmor: %v", err)
	}
	load(t, lsm.DockerDefault("caisson-test-docker"))
	out := run(t, "echo hello; (echo x > /proc/sys/kernel/hostname); (echo h > /proc/sysrq-trigger); ls /sys/firmware; mount -t tmpfs x /mnt; cat /etc/passwd && echo read",
		plan.Func(isolated), chroot.Host{}, chroot.Proc{}, lsm.AppArmor("caisson-test-docker"))
	require.Contains(t, out, "hello\n")
	require.Contains(t, out, "read\n")
	require.Equal(t, 2, strings.Count(out, "Permission denied"), out)
	require.Contains(t, out, "cannot mount")
}

// TestAppArmorConfined: who is confined and has no right to change cannot give a label, and nothing is started.
func TestAppArmorConfined(t *testing.T) {
	needModule(t, "apparmor")
	dir := tree(t)
	load(t, secret("caisson-test-outer", dir+"/no"))
	load(t, secret("caisson-test-inner", dir+"/ro"))
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := helper(self, "apparmor", "caisson-test-inner", dir+"/rw/f")
	out, err := startCommand(t, cmd, lsm.AppArmor("caisson-test-outer"))
	require.NoError(t, err)
	require.Equal(t, "change EACCES, stack EACCES ", out)
	outer := secret("caisson-test-outer", dir+"/no")
	outer.Changes = []string{"caisson-test-inner", "&caisson-test-inner"}
	require.NoError(t, outer.Load(context.Background()))
	out, err = startCommand(t, helper(self, "apparmor", "caisson-test-inner", dir+"/rw/f"), lsm.AppArmor("caisson-test-outer"))
	require.NoError(t, err)
	require.Equal(t, "change ok, stack ok caisson-test-inner//&caisson-test-outer (enforce)\n", out)
}

// changeTo starts a command under a further profile.
func changeTo(args []string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	var part plan.Primitive = lsm.AppArmor(args[1])
	if args[0] == "stack" {
		part = lsm.Stack(args[1])
	}
	cmd := &plan.Command{Candidates: []string{"/bin/cat"}, Args: []string{"cat", "/proc/self/attr/apparmor/current"}, Files: []*os.File{nil, w, w}}
	p, err := launch.Start(context.Background(), plan.Build(part), cmd, launch.Options{})
	w.Close()
	if err != nil {
		return "", err
	}
	defer unix.Wait4(p.PID, nil, 0, nil)
	b := make([]byte, 4096)
	n, err := r.Read(b)
	return string(b[:n]), err
}

// BenchmarkAppArmor compares a start with and without a profile, where AppArmor is enabled.
func BenchmarkAppArmor(b *testing.B) {
	m, err := lsm.Active()
	if err != nil || !m.Has("apparmor") || os.Geteuid() != 0 {
		b.Skip("needs AppArmor and root")
	}
	p := lsm.Profile{Name: "caisson-bench", Files: []lsm.FileRule{{}}, Signals: []lsm.SignalRule{{}}}
	require.NoError(b, p.Load(context.Background()))
	defer lsm.RemoveProfile(p.Name)
	for name, parts := range map[string][]plan.Primitive{"without": nil, "with": {lsm.AppArmor(p.Name)}} {
		b.Run(name, func(b *testing.B) { benchmark(b, parts...) })
	}
}

func benchmark(b *testing.B, parts ...plan.Primitive) {
	p := plan.Build(parts...)
	cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}
	for b.Loop() {
		proc, err := launch.Start(context.Background(), p, cmd, launch.Options{})
		if err != nil {
			b.Fatal(err)
		}
		unix.Wait4(proc.PID, nil, 0, nil)
		proc.Release()
	}
}

// TestAppArmorAbsent: a kernel without it says so before anything is started.
func TestAppArmorAbsent(t *testing.T) {
	m, err := lsm.Active()
	if err != nil || m.Has("apparmor") {
		return // TestAppArmor has it; TestAppArmorErrors simulates the rest
	}
	_, err = start(t, "true", lsm.AppArmor("x"))
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorIs(t, lsm.LoadProfile([]byte("x")), errors.ErrUnsupported)
	_, err = lsm.Profiles()
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// TestAppArmorRefusal: loading needs CAP_MAC_ADMIN.
func TestAppArmorRefusal(t *testing.T) {
	needModule(t, "apparmor")
	p, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv (util-linux)")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := helper(self, "load")
	out, err := exec.Command(p, append([]string{"--bounding-set=-mac_admin", "--inh-caps=-all", "--reuid=65534", "--regid=65534", "--clear-groups"}, cmd.Args...)...).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "EACCES\n", string(out))
}
