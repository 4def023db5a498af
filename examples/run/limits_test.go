//go:build linux

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/caisson-dev/caisson/cgroups"
)

// needGroup skips where root cannot make a group with the limit.
func needGroup(t *testing.T, l cgroups.Limits) {
	t.Helper()
	needRoot(t)
	own, err := cgroups.Own()
	must(t, err)
	defer own.Close()
	g, err := own.Create("caisson-run-test", l)
	if err != nil {
		t.Skip(err)
	}
	must(t, g.Delete())
}

func TestMemory(t *testing.T) {
	needGroup(t, cgroups.Limits{Memory: cgroups.GiB})
	try(t, in([]string{"-m", "64m"}, "eat", "200")...).fails(t, 137, "limit of memory")
	try(t, in([]string{"-m", "512m"}, "eat", "20")...).has(t, 0, "", "")
	try(t, in([]string{"-m", "64m", "--init"}, "eat", "200")...).fails(t, 137, "limit of memory")
	o := try(t, in([]string{"-m", "64m"}, "feed", "200")...) // a child of the command
	if o.code != 0 || !strings.Contains(o.stderr, "lack of memory: 1") {
		t.Error(o)
	}
	try(t, in([]string{"-m", "64m", "--memory-swap", "64m"}, "eat", "200")...).fails(t, 137, "limit of memory")
}

func TestPIDsLimit(t *testing.T) {
	needGroup(t, cgroups.Limits{PIDs: 10})
	if o := try(t, in([]string{"--pids-limit", "1"}, "newuser")...); o.code == 0 {
		t.Error(o)
	}
	try(t, in([]string{"--pids-limit", "-1"}, "true")...).has(t, 0, "", "")
}

func TestStats(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		o := try(t, in([]string{"--stats"}, "exit", "3")...)
		if o.code != 3 || strings.Count(o.stderr, "\n") != 1 || !strings.HasPrefix(o.stderr, "run: exited, ") {
			t.Error(o)
		}
	})
	needGroup(t, cgroups.Limits{Memory: cgroups.GiB})
	o := try(t, in([]string{"--stats", "-m", "1g"}, "eat", "20")...)
	if o.code != 0 || !strings.Contains(o.stderr, "\nrun: all processes: ") || strings.Contains(o.stderr, "memory 0.0 MiB") {
		t.Error(o)
	}
}

// TestDeviceRules: with rules root has mknod, and what it makes works only as the rules say.
func TestDeviceRules(t *testing.T) {
	needGroup(t, cgroups.Limits{Devices: cgroups.DockerDevices()})
	rule := []string{"--device-cgroup-rule", "c 1:11 r"}
	try(t, in(rule, "mknod")...).has(t, 0, "", "")
	try(t, in(append(rule, "--rootfs=", "--security-opt", "seccomp=builtin"), "node", "b", "1", "0")...).has(t, 1, "open /dev/node: operation not permitted", "")
	try(t, in(nil, "node", "c", "1", "3")...).has(t, 1, "operation not permitted", "")
	try(t, in([]string{"--device", "/dev/zero:/dev/other:r"}, "write", "/dev/other")...).has(t, 0, "", "") // zero is among Docker's own
	if _, err := os.Stat("/dev/kmsg"); err == nil {
		try(t, in([]string{"--device", "/dev/kmsg:/dev/other:r"}, "write", "/dev/other")...).has(t, 1, "open /dev/other: operation not permitted", "")
	}
}

// TestNoGroup: an ordinary user without a delegated group gets the reason, and needs none without limits.
func TestNoGroup(t *testing.T) {
	needUser(t)
	needRoot(t)
	for _, flags := range [][]string{{"-m", "64m"}, {"--cpus", "1"}, {"--pids-limit", "10"}, {"--device-cgroup-rule", "c 1:3 r"}} {
		o := tryAsUser(t, in(flags, "true")...)
		if o.code != 125 || !strings.Contains(o.stderr, "cgroup") {
			t.Error(flags, o)
		}
	}
}

// TestExplainLimits: the group and its limits are in the plan.
func TestExplainLimits(t *testing.T) {
	needGroup(t, cgroups.Limits{Memory: cgroups.GiB, CPUs: 1, PIDs: 10})
	o := try(t, in([]string{"--explain", "-m", "64m", "--cpus", "0.5", "--pids-limit", "10"}, "true")...)
	for _, want := range []string{"mkdir ", `write "67108864" > memory.`, `write "10" > pids.max`, "50000"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("no %s in the plan:\n%s", want, o.stdout)
		}
	}
}

func TestParsers(t *testing.T) {
	for s, want := range map[string]int64{"10": 1, "1000": 10000, "505": 5000, "9": 0, "1001": 0, "": 0} {
		if got, err := parseBlockWeight(s); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for s, want := range map[string]int64{"0": cgroups.NoLimit, "-1": cgroups.NoLimit, "7": 7, "-2": -2} {
		if got, err := parsePIDs(s); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
}
