package cgroups_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/cgroups"
)

// lane skips what changes a whole machine.
func lane(t *testing.T) {
	t.Helper()
	if os.Getenv("VMRUN") != "1" {
		t.Skip("changes the whole machine: only in one of the kernel lane")
	}
}

// TestHybrid: one value limits memory by version 2, and gives a network class and priority by version 1, which are mounted beside it.
func TestHybrid(t *testing.T) {
	lane(t)
	for _, c := range []string{"net_cls", "net_prio"} {
		dir := t.TempDir()
		err := unix.Mount("cgroup", dir, "cgroup", 0, c)
		require.NoError(t, err, c)
		defer unix.Unmount(dir, unix.MNT_DETACH)
	}
	l := cgroups.Limits{Memory: 64 * cgroups.MiB, PIDs: 20, NetClass: 0x100001, NetPriority: []cgroups.NetPriority{{Interface: "lo", Priority: 5}}}
	s, err := begin(t, "read x; cat /proc/self/cgroup", l)
	require.NoError(t, err)
	g := s.group()
	require.Len(t, g.Directories(), 3)
	for file, want := range map[string]string{"memory.max": "67108864", "pids.max": "20", "net_cls.classid": "1048577", "net_prio.ifpriomap": "lo 5"} {
		text, there := contents(g, file)
		require.True(t, there, file)
		require.Contains(t, text, want, file)
	}
	back, err := g.Limits()
	require.NoError(t, err)
	require.EqualValues(t, 0x100001, back.NetClass)
	out, r := s.end()
	require.Equal(t, 3, strings.Count(out, "caisson-"), out)
	require.Positive(t, r.MemoryPeak)
	for _, dir := range g.Directories() {
		require.NoDirExists(t, dir)
	}
	_, err = begin(t, "true", cgroups.Limits{NetPriority: []cgroups.NetPriority{{Interface: "caisson-none", Priority: 5}}})
	require.ErrorIs(t, err, syscall.ENODEV)
	require.ErrorContains(t, err, "net_prio.ifpriomap")
	require.NotContains(t, err.Error(), "removed")
}

// TestHugePages: what is more than the limit is refused to the one process, with SIGBUS.
func TestHugePages(t *testing.T) {
	lane(t)
	const count = "/proc/sys/vm/nr_hugepages"
	require.NoError(t, os.WriteFile(count, []byte("4"), 0))
	defer os.WriteFile(count, []byte("0"), 0)
	g := create(t, cgroups.Limits{HugePages: []cgroups.HugePages{{Size: "2MB", Bytes: 2 * cgroups.MiB}}})
	for pages, killed := range map[string]bool{"1": false, "2": true} {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestTouchHugePages$")
		cmd.Env = append(os.Environ(), "CAISSON_HUGE_PAGES="+pages)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		require.NoError(t, g.Add(cmd.Process.Pid))
		in.Close()
		require.Equal(t, killed, cmd.Wait() != nil, pages)
	}
	text, there := contents(g, "hugetlb.2MB.events")
	require.True(t, there)
	require.NotEqual(t, "max 0", text)
	_, err := os.Stat(filepath.Join(g.Directories()[0], "hugetlb.3MB.max"))
	require.Error(t, err)
}

// TestTouchHugePages runs in processes of TestHugePages's.
func TestTouchHugePages(t *testing.T) {
	pages := os.Getenv("CAISSON_HUGE_PAGES")
	if pages == "" {
		return // TestHugePages starts it again
	}
	os.Stdin.Read(make([]byte, 1)) // until it is in the group
	b, err := unix.Mmap(-1, 0, len(strings.Repeat("x", int(pages[0]-'0')))<<21, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
	require.NoError(t, err)
	for i := 0; i < len(b); i += 1 << 21 {
		b[i] = 1
	}
}

// TestAbsentResources: a device that is not there is not a group that is not there.
func TestAbsentResources(t *testing.T) {
	lane(t)
	g := create(t, cgroups.Limits{})
	err := g.Set(cgroups.Limits{RDMA: []cgroups.RDMA{{Device: "mlx5_9", Handles: 1}}})
	require.ErrorIs(t, err, syscall.ENODEV)
	require.NotContains(t, err.Error(), "removed")
	err = g.Set(cgroups.Limits{Misc: []cgroups.Misc{{Name: "caisson", Max: 1}}})
	require.ErrorIs(t, err, syscall.EINVAL)
	err = g.Set(cgroups.Limits{HugePages: []cgroups.HugePages{{Size: "3MB", Bytes: 1}}})
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
