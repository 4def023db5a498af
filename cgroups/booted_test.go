package cgroups_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/cgroups"
)

// booted skips where systemd is not process 1, and where it is somebody's own, which is not to be reloaded.
func booted(t *testing.T) {
	t.Helper()
	if os.Getenv("VMRUN") != "1" {
		t.Skip("starts, stops and reloads units: only in a machine of the kernel lane")
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("systemd has not booted this machine of the kernel lane: ", err)
	}
	name, err := os.ReadFile("/proc/1/comm")
	require.NoError(t, err)
	require.Equal(t, "systemd\n", string(name))
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	require.NoError(t, err, "%s: %s", args, out)
	return strings.TrimSpace(string(out))
}

// within is time enough for an emulated machine.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestBootedScope: limits of a unit hold whatever systemd does afterwards.
func TestBootedScope(t *testing.T) {
	booted(t)
	disk := disk(t, 1<<20)
	cmd := sleeper(t)
	want := cgroups.Limits{Memory: 64 * cgroups.MiB, MemoryHigh: 48 * cgroups.MiB, MemoryLow: 8 * cgroups.MiB, MemoryMin: 4 * cgroups.MiB, Swap: cgroups.None,
		CPUs: 0.75, CPUPeriod: 20 * time.Millisecond, CPUBurst: time.Millisecond, CPUWeight: 200, CPUSet: "0", MemoryNodes: "0", PIDs: 50, IOWeight: 300, Depth: 5,
		IO: []cgroups.IO{{Device: disk, ReadBPS: cgroups.MiB, WriteIOPS: 100}}}
	asked := want
	asked.Devices = cgroups.DockerDevices()
	u, err := cgroups.Systemd{Unit: "booted.scope", Slice: "batch.slice", PIDs: []int{cmd.Process.Pid}, Limits: asked}.Start(within(t))
	require.NoError(t, err)
	require.Equal(t, "/batch.slice/booted.scope", u.Path())
	holds := func(why string) {
		t.Helper()
		got := limits(t, u)
		require.Len(t, got.IO, 1)
		require.Equal(t, []int64{cgroups.MiB, 100}, []int64{got.IO[0].ReadBPS, got.IO[0].WriteIOPS}, why)
		got.IO, got.ClampMin, got.ClampMax, got.Partition, got.CPUIdle, got.OOMGroup, got.Descendants = want.IO, 0, 0, "", 0, 0, 0
		require.Equal(t, want, got, why)
		out, _ := run(t, "dd if="+disk+" of=/dev/null count=1 2>&1; head -c 1 /dev/zero | wc -c", cgroups.Limits{Below: u.Group, PIDs: 10})
		require.Contains(t, out, "Operation not permitted", why)
		require.Contains(t, out, "1\n", why)
	}
	holds("at once")
	systemctl(t, "daemon-reload")
	holds("after a reload")
	systemctl(t, "set-property", "--runtime", u.Name, "TasksMax=60", "CPUWeight=150")
	want.PIDs, want.CPUWeight = 60, 150
	holds("after another property was changed")

	want.Memory, want.CPUs, want.CPUPeriod, want.PIDs, want.Swap = 32*cgroups.MiB, 1.5, 0, 40, cgroups.NoLimit
	require.NoError(t, u.Set(within(t), cgroups.Limits{Memory: want.Memory, CPUs: 1.5, PIDs: 40, Swap: cgroups.NoLimit}))
	holds("after a change of ours")
	systemctl(t, "daemon-reload")
	holds("after that and a reload")
	require.Equal(t, "33554432", systemctl(t, "show", "-P", "MemoryMax", u.Name))

	require.NoError(t, u.Group.Set(cgroups.Limits{PIDs: 77}))
	systemctl(t, "daemon-reload")
	require.EqualValues(t, 40, limits(t, u).PIDs, "what the files alone say does not last: the reason for all this")
	require.NoError(t, u.Stop(within(t)))
	require.Error(t, cmd.Wait(), "killed")
	_, err = os.Stat("/sys/fs/cgroup/batch.slice/booted.scope")
	require.ErrorIs(t, err, fs.ErrNotExist)
	systemctl(t, "stop", "batch.slice")
}

// TestBootedIdle: systemd's weight of nothing.
func TestBootedIdle(t *testing.T) {
	booted(t)
	cmd := sleeper(t)
	u, err := cgroups.Systemd{Unit: "idle.scope", PIDs: []int{cmd.Process.Pid}, Limits: cgroups.Limits{CPUIdle: cgroups.On}}.Start(within(t))
	require.NoError(t, err)
	systemctl(t, "daemon-reload")
	require.Equal(t, cgroups.On, limits(t, u).CPUIdle)
	require.NoError(t, u.Set(within(t), cgroups.Limits{CPUIdle: cgroups.Off}))
	systemctl(t, "daemon-reload")
	require.Equal(t, cgroups.Off, limits(t, u).CPUIdle)
	require.EqualValues(t, 100, limits(t, u).CPUWeight)

	// Why OOMGroup is refused.
	file := filepath.Join(u.Directories()[0], "memory.oom.group")
	require.NoError(t, os.WriteFile(file, []byte("1"), 0))
	systemctl(t, "daemon-reload")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "0\n", string(text))
	require.ErrorIs(t, u.Set(within(t), cgroups.Limits{OOMGroup: cgroups.On}), errors.ErrUnsupported)
	require.NoError(t, u.Stop(within(t)))
	require.Error(t, cmd.Wait(), "killed")
}

// TestBootedRefused: what systemd itself says no to.
func TestBootedRefused(t *testing.T) {
	booted(t)
	u, err := cgroups.Systemd{Unit: "booted.slice", Limits: cgroups.Limits{PIDs: 50, Memory: 64 * cgroups.MiB, CPUSet: "0"}}.Start(within(t))
	require.NoError(t, err)
	systemctl(t, "daemon-reload")
	l := limits(t, u)
	require.Equal(t, []any{int64(50), int64(64 * cgroups.MiB), "0"}, []any{l.PIDs, l.Memory, l.CPUSet})
	require.ErrorIs(t, u.Set(within(t), cgroups.Limits{PIDs: cgroups.None}), syscall.EINVAL, "systemd wants one at least")
	require.ErrorIs(t, u.Set(within(t), cgroups.Limits{CPUBurst: time.Millisecond}), errors.ErrUnsupported)
	require.NoError(t, u.Stop(within(t)))
	require.ErrorIs(t, u.Set(within(t), cgroups.Limits{PIDs: 10}), fs.ErrNotExist)
	_, err = cgroups.Systemd{Unit: "refused.slice", Limits: cgroups.Limits{CPUSet: "1000"}}.Start(within(t))
	require.Error(t, err)
	require.Equal(t, "inactive", inactive("refused.slice"))
}

func inactive(unit string) string {
	out, _ := exec.Command("systemctl", "is-active", unit).Output()
	return strings.TrimSpace(string(out))
}

const userUnit = `[Unit]
DefaultDependencies=no
[Service]
Type=notify
User=1000
Delegate=yes
Environment=XDG_RUNTIME_DIR=/run/user/1000 HOME=/tmp
ExecStart=/lib/systemd/systemd --user --log-target=console
KillMode=mixed
`

// TestBootedUser: an ordinary user asks his own manager, and not the system's.
func TestBootedUser(t *testing.T) {
	booted(t)
	const unit, runtime = "/run/systemd/system/caisson-user.service", "/run/user/1000"
	require.NoError(t, os.WriteFile(unit, []byte(userUnit), 0o644))
	require.NoError(t, os.MkdirAll(runtime, 0o755))
	require.NoError(t, os.Chown(runtime, 1000, 1000))
	systemctl(t, "daemon-reload")
	systemctl(t, "start", filepath.Base(unit))
	defer systemctl(t, "stop", filepath.Base(unit))
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestBootedAsUser$", "-test.v")
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+runtime, "DBUS_SESSION_BUS_ADDRESS=", "CAISSON_BOOTED_USER=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Run(), out.String())
	require.Contains(t, out.String(), "PASS: TestBootedAsUser", out.String())
}

// TestBootedAsUser runs in a process of TestBootedUser's.
func TestBootedAsUser(t *testing.T) {
	if os.Getenv("CAISSON_BOOTED_USER") == "" {
		return // TestBootedUser starts it again as a user
	}
	_, err := cgroups.Systemd{}.Start(within(t))
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "Systemd.User")
	_, err = begin(t, "true", cgroups.Limits{PIDs: 10})
	require.ErrorIs(t, err, fs.ErrPermission)

	u, err := cgroups.Systemd{User: true, Limits: cgroups.Limits{Memory: 128 * cgroups.MiB, PIDs: 50}}.Start(within(t))
	require.NoError(t, err)
	require.Contains(t, u.Path(), "/system.slice/caisson-user.service/")
	for range 2 {
		l := limits(t, u)
		require.Equal(t, []int64{128 * cgroups.MiB, 50}, []int64{l.Memory, l.PIDs})
		systemctl(t, "--user", "daemon-reload")
	}
	require.NoError(t, u.Set(within(t), cgroups.Limits{PIDs: 40}))
	systemctl(t, "--user", "daemon-reload")
	require.EqualValues(t, 40, limits(t, u).PIDs)
	out, r := run(t, "cat /proc/self/cgroup", cgroups.Limits{PIDs: 10, Memory: 32 * cgroups.MiB})
	require.Contains(t, out, u.Path()+"/caisson-")
	require.Positive(t, r.MemoryPeak)
	require.ErrorIs(t, u.Stop(within(t)), syscall.EDEADLK)
}

// TestBootedSelf: the caller itself, which stays in its scope to the end; the lane then looks whether systemd has removed it.
func TestBootedSelf(t *testing.T) {
	booted(t)
	u, err := cgroups.Systemd{Limits: cgroups.Limits{PIDs: 200}}.Start(within(t))
	require.NoError(t, err)
	defer u.Close()
	systemctl(t, "daemon-reload")
	require.EqualValues(t, 200, limits(t, u).PIDs)
	out, r := run(t, "cat /proc/self/cgroup", cgroups.Limits{PIDs: 10, Memory: 32 * cgroups.MiB})
	require.Contains(t, out, u.Path()+"/caisson-")
	require.Positive(t, r.MemoryPeak)
	require.ErrorIs(t, u.Stop(within(t)), syscall.EDEADLK)
}
