package lsm_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
)

// spaces are those of the sandboxes that a further command enters.
var spaces = map[string]namespaces.Set{
	"root":           namespaces.PID | namespaces.Mount | namespaces.IPC,
	"user namespace": namespaces.User | namespaces.PID | namespaces.Mount | namespaces.IPC,
}

// inSandbox calls f with a sandbox that runs, of each kind that the caller may make.
func inSandbox(t *testing.T, f func(t *testing.T, p *caisson.Process), parts ...plan.Primitive) {
	for name, set := range spaces {
		t.Run(name, func(t *testing.T) {
			if name == "root" && os.Geteuid() != 0 {
				t.Skip("needs root to make namespaces without a user namespace")
			}
			cmd := caisson.New(set, chroot.Host{}, chroot.Proc{}).With(parts...).Command("sleep", "100")
			require.NoError(t, cmd.Start())
			defer cmd.Wait()
			defer cmd.Process.Kill()
			f(t, cmd.Process)
		})
	}
}

// labelsOf gives the labels of a process by its number and by a pidfd, which must be the same.
func labelsOf(t *testing.T, pid int) []lsm.Label {
	t.Helper()
	labels, err := lsm.Labels(pid)
	require.NoError(t, err)
	fd, err := unix.PidfdOpen(pid, 0)
	require.NoError(t, err)
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	of, err := lsm.LabelsOf(f)
	require.NoError(t, err)
	require.Equal(t, labels, of)
	return labels
}

// keepsLabel: the first command of a sandbox has the label, and a further one, and what that executes in its turn.
func keepsLabel(t *testing.T, module string, part plan.Primitive, want lsm.Label) {
	script := "read l < /proc/self/attr/" + map[string]string{"apparmor": "apparmor/"}[module] + "current; echo $l"
	inSandbox(t, func(t *testing.T, p *caisson.Process) {
		require.Equal(t, []lsm.Label{want}, labelsOf(t, p.Pid))
		out, err := p.Exec("sh", "-c", "exec sh -c '"+script+"'").CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, want.String(), strings.Trim(string(out), "\x00\n"))

		cat := p.Exec("cat")
		in, err := cat.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cat.Start())
		require.Equal(t, []lsm.Label{want}, labelsOf(t, cat.Process.Pid))
		require.NoError(t, in.Close())
		require.NoError(t, cat.Wait())
	}, part)
}

func TestAppArmorExec(t *testing.T) {
	needModule(t, "apparmor")
	load(t, secret("caisson-test-exec", "/nowhere"))
	keepsLabel(t, "apparmor", lsm.AppArmor("caisson-test-exec"), lsm.Label{Module: "apparmor", Name: "caisson-test-exec", Mode: "enforce"})
}

func TestSELinuxExec(t *testing.T) {
	needSELinux(t)
	c := process.With(lsm.Categories{A: 8, B: 9})
	keepsLabel(t, "selinux", lsm.SELinux{Process: c}, lsm.Label{Module: "selinux", Name: c.String()})
}

// TestLandlockExec: the rules hold for a further command, also those that were prepared.
func TestLandlockExec(t *testing.T) {
	needABI(t, 1)
	dir := tree(t)
	l := rules(lsm.ReadOnly(dir + "/ro"))
	set, err := l.Prepare()
	require.NoError(t, err)
	defer set.Close()
	for name, part := range map[string]plan.Primitive{"rules": l, "prepared": set} {
		t.Run(name, func(t *testing.T) {
			inSandbox(t, func(t *testing.T, p *caisson.Process) {
				out, _ := p.Exec("sh", "-c", "cat "+dir+"/ro/f; cat "+dir+"/no/f").CombinedOutput()
				require.Contains(t, string(out), "data\n")
				require.Equal(t, 1, strings.Count(string(out), "Permission denied"), "%s", out)
			}, part)
		})
	}
}

// TestComplaining: what only logs is started, and the result says so.
func TestComplaining(t *testing.T) {
	needModule(t, "apparmor")
	p := secret("caisson-test-detail", "/nowhere")
	p.Complain = true
	load(t, p)
	cmd := caisson.New(lsm.AppArmor(p.Name)).Command("true")
	require.NoError(t, cmd.Run())
	require.Equal(t, "AppArmor only logs what the profile caisson-test-detail does not allow", cmd.Result().Detail)
	enforced := secret("caisson-test-enforced", "/nowhere")
	load(t, enforced)
	cmd = caisson.New(lsm.AppArmor(enforced.Name)).Command("true")
	require.NoError(t, cmd.Run())
	require.Empty(t, cmd.Result().Detail)
	cmd = caisson.New(lsm.AppArmor(p.Name + "//&" + enforced.Name)).Command("true")
	require.NoError(t, cmd.Run())
	require.Contains(t, cmd.Result().Detail, "not all of AppArmor's profiles")
}

// TestPermissive: in a machine of its own SELinux is switched off and on.
func TestPermissive(t *testing.T) {
	needSELinux(t)
	if os.Getenv("CAISSON_GUEST_LSM") != "selinux" {
		t.Skip("would switch off the host's SELinux")
	}
	const enforce = "/sys/fs/selinux/enforce"
	for mode, want := range map[string]string{"0": "SELinux is permissive: it logs and denies nothing", "1": ""} {
		require.NoError(t, os.WriteFile(enforce, []byte(mode), 0))
		cmd := caisson.New(lsm.SELinux{Process: process}).Command("true")
		err := cmd.Run()
		active, activeErr := lsm.Active()
		require.NoError(t, os.WriteFile(enforce, []byte("1"), 0))
		require.NoError(t, err)
		require.NoError(t, activeErr)
		require.Equal(t, want, cmd.Result().Detail)
		require.Contains(t, active, lsm.Module{Name: "selinux", Mode: map[string]lsm.Mode{"0": lsm.Complaining, "1": lsm.Enforcing}[mode]})
	}
}
