package learn_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/learn"
)

// TestWithRuntime: runc and crun start under a profile what it was learned from, with no_new_privs and without, and it can do nothing else.
func TestWithRuntime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skipf("uid %d cannot give runc a mount as root", os.Geteuid())
	}
	if os.Getenv("VMRUN") == "1" {
		t.Skip("runc takes long here, and what it calls depends on no kernel")
	}
	runtimes := map[string]string{"runc": "runc", "crun": "crun --cgroup-manager=disabled"}
	for name := range runtimes {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	const script = "echo it runs; exec cat /proc/sys/kernel/ostype"
	for _, arguments := range []bool{false, true} {
		rec := &learn.Recorder{Arguments: arguments}
		require.Equal(t, "it runs\nLinux\n", learned(t, rec, script))
		profile, err := rec.Profile().WithRuntime().OCI(seccomp.KillProcess)
		require.NoError(t, err)
		for name, command := range runtimes {
			for _, noNewPrivs := range []bool{false, true} {
				what := fmt.Sprint(name, ", arguments ", arguments, ", no_new_privs ", noNewPrivs)
				out, err := contained(t, command, bundle(t, profile, noNewPrivs, script))
				require.NoError(t, err, what+": "+out)
				require.Contains(t, out, "it runs\nLinux\n", what)
			}
		}
		out, err := contained(t, runtimes["crun"], bundle(t, profile, true, "echo begin; exec ln -s x /tmp/y"))
		exit := new(exec.ExitError)
		require.ErrorAs(t, err, &exit, out)
		require.Contains(t, out, "begin\n")
		require.Equal(t, 128+int(syscall.SIGSYS), exit.ExitCode())
	}
}

// bundle is a container of the OCI's: the host's root file system, and the profile.
func bundle(t *testing.T, profile *seccomp.Profile, noNewPrivs bool, script string) string {
	t.Helper()
	type object = map[string]any
	dir := t.TempDir()
	caps := []string{"CAP_CHOWN"}
	config := object{"ociVersion": "1.0.2", "root": object{"path": "rootfs", "readonly": true},
		"process": object{"args": []string{"/bin/sh", "-c", script}, "cwd": "/", "env": []string{"PATH=/usr/bin:/bin"}, "user": object{"uid": 0, "gid": 0},
			"noNewPrivileges": noNewPrivs, "capabilities": object{"bounding": caps, "permitted": caps, "effective": caps}},
		"mounts": []object{{"destination": "/proc", "type": "proc", "source": "proc"}, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}},
		"linux": object{"namespaces": []object{{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}}, "seccomp": profile}}
	text, err := json.Marshal(config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "rootfs"), 0o755))
	return dir
}

// contained runs the bundle, in a mount namespace of its own: the runtimes cannot use / as the root, so that they get it bound to another
// place, and crun does not run where a hybrid host's unified hierarchy is mounted.
func contained(t *testing.T, runtime, bundle string) (string, error) {
	t.Helper()
	const host = `mount --make-rprivate / && mount --bind / "$1/rootfs" || exit
		if grep -qs . /sys/fs/cgroup/unified/cgroup.controllers; then umount -l /sys/fs/cgroup/unified; fi
		exec $2 --root "$1/state" run -b "$1" "caisson-learn-$$"`
	out, err := exec.CommandContext(soon(t), "unshare", "-m", "sh", "-c", host, "sh", bundle, runtime).CombinedOutput()
	return string(out), err
}
