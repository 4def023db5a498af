package cgroups_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/cgroups"
)

// contents gives what a file of the group says, in whichever hierarchy it is; or that it is in none.
func contents(g *cgroups.Group, file string) (text string, there bool) {
	for _, dir := range g.Directories() {
		if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
			return strings.TrimSpace(string(b)), true
		}
	}
	return "", false
}

// TestEachLimit: a limit is in the kernel's file, or the kernel has no such file and the limit is an error.
func TestEachLimit(t *testing.T) {
	g := create(t, cgroups.Limits{CPUSet: "0", CPUs: 0.5})
	for _, c := range []struct {
		file, want string
		limits     cgroups.Limits
	}{
		{"memory.high", "8388608", cgroups.Limits{MemoryHigh: 8 * cgroups.MiB}},
		{"memory.min", "4194304", cgroups.Limits{MemoryMin: 4 * cgroups.MiB}},
		{"memory.oom.group", "1", cgroups.Limits{OOMGroup: cgroups.On}},
		{"cpu.max.burst", "10000", cgroups.Limits{CPUBurst: 10 * time.Millisecond}},
		{"cpu.uclamp.min", "10.00", cgroups.Limits{ClampMin: 10}},
		{"cpu.uclamp.max", "50.00", cgroups.Limits{ClampMax: 50}},
		{"cpuset.cpus.partition", "member", cgroups.Limits{Partition: "member"}},
		{"cgroup.max.descendants", "3", cgroups.Limits{Descendants: 3}},
		{"cgroup.max.depth", "0", cgroups.Limits{Depth: cgroups.None}},
		{"hugetlb.2MB.max", "4194304", cgroups.Limits{HugePages: []cgroups.HugePages{{Size: "2MB", Bytes: 4 * cgroups.MiB}}}},
		{"io.weight", "default 300", cgroups.Limits{IOWeight: 300}},
		{"cpu.idle", "1", cgroups.Limits{CPUIdle: cgroups.On}},
	} {
		err := g.Set(c.limits)
		if c.file == "cpu.max.burst" && !unified() {
			c.file = "cpu.cfs_burst_us"
		}
		text, there := contents(g, c.file)
		if errors.Is(err, errors.ErrUnsupported) {
			hybrid := there && !unified() && strings.HasPrefix(c.file, "cgroup.") // where it would bound the groups of one hierarchy of many
			require.False(t, there && !hybrid, "%s: %v", c.file, err)
			t.Logf("%v", err)
			continue
		}
		require.NoError(t, err)
		if c.file == "io.weight" && !there { // another scheduler
			continue
		}
		require.Equal(t, c.want, text, c.file)
	}
}

// TestUnknownResources: what is no resource of this machine's is an error that names the file.
func TestUnknownResources(t *testing.T) {
	g := create(t, cgroups.Limits{})
	for file, l := range map[string]cgroups.Limits{
		"rdma": {RDMA: []cgroups.RDMA{{Device: "caisson0", Handles: 1}}}, "misc": {Misc: []cgroups.Misc{{Name: "caisson", Max: 1}}},
		"dmem": {DMem: []cgroups.DMem{{Region: "caisson/x", Max: 1}}}, "hugetlb": {HugePages: []cgroups.HugePages{{Size: "3MB", Bytes: 1}}},
	} {
		err := g.Set(l)
		require.Error(t, err)
		require.ErrorContains(t, err, file)
	}
}

// TestNotEffective: what version 2 takes and does not do is an error, as it is on version 1.
func TestNotEffective(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	g := create(t, cgroups.Limits{CPUSet: "0"})
	_, err := g.Create("other", cgroups.Limits{CPUSet: "1"})
	require.Error(t, err)
	require.ErrorContains(t, err, "cpuset.cpus")
	names, err := g.Subgroups()
	require.NoError(t, err)
	require.Empty(t, names)
	sub, err := g.Create("sub", cgroups.Limits{CPUSet: "0"})
	require.NoError(t, err)
	defer sub.Close()
	err = sub.Set(cgroups.Limits{Partition: "root"})
	require.Error(t, err, "below what is no partition itself")
	if unified() {
		require.ErrorContains(t, err, "invalid")
	}
	if !unified() {
		return
	}
	require.NoError(t, sub.Set(cgroups.Limits{Partition: "member"}))
	require.NoError(t, g.Set(cgroups.Limits{Partition: "root"}))
	l, err := g.Limits()
	require.NoError(t, err)
	require.Equal(t, "root", l.Partition)
	require.NoError(t, g.Set(cgroups.Limits{Partition: "member"}))
}
