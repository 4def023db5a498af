package cgroups_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/cgroups"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

func shell(script string) *exec.Cmd { return exec.Command("sh", "-c", script) }

// unified reports whether all controllers are of version 2.
func unified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

func TestContract(t *testing.T) {
	for _, l := range []cgroups.Limits{{}, {Memory: 64 * cgroups.MiB, CPUs: 1.5, PIDs: 64, CPUSet: "0"}, {Memory: -5}, {Name: "../x"}, {Parent: "/.."},
		{Devices: cgroups.DockerDevices()}, {Files: []cgroups.File{{"pids.max", "7"}}}} {
		plantest.Check(t, l)
	}
	require.ErrorIs(t, plan.Build(cgroups.Limits{}, cgroups.Limits{}).Err(), syscall.EINVAL)
}

func TestGroup(t *testing.T) {
	g := create(t, cgroups.Limits{PIDs: 100})
	sub, err := g.Create("sub", cgroups.Limits{})
	require.NoError(t, err)
	defer sub.Close()
	_, err = g.Create("sub", cgroups.Limits{})
	require.ErrorIs(t, err, fs.ErrExist)
	deep, err := sub.Create("deep", cgroups.Limits{})
	require.NoError(t, err)
	defer deep.Close()
	names, err := g.Subgroups()
	require.NoError(t, err)
	require.Equal(t, []string{"sub"}, names)

	cmd := sleeper(t)
	require.NoError(t, deep.Add(cmd.Process.Pid))
	pids, err := g.Procs()
	require.NoError(t, err)
	require.Equal(t, []int{cmd.Process.Pid}, pids)
	of, err := cgroups.Of(cmd.Process.Pid)
	require.NoError(t, err)
	defer of.Close()
	require.Equal(t, deep.Directories(), of.Directories())

	if unified() {
		err := deep.Move(sub)
		require.ErrorIs(t, err, syscall.EBUSY)
		require.Contains(t, err.Error(), "gives controllers to groups below")
	}
	other, err := g.Create("other", cgroups.Limits{})
	require.NoError(t, err)
	require.NoError(t, deep.Move(other))
	pids, err = deep.Procs()
	require.NoError(t, err)
	require.Empty(t, pids)
	require.NoError(t, other.Move(deep))
	require.NoError(t, other.Delete())
	reopened, err := g.Open("sub")
	require.NoError(t, err)
	require.NoError(t, reopened.Delete(), "with deep, and with the process in it")
	err = cmd.Wait()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
	names, err = g.Subgroups()
	require.NoError(t, err)
	require.Empty(t, names)
	_, err = g.Open("sub")
	require.ErrorIs(t, err, fs.ErrNotExist)
	err = sub.Set(cgroups.Limits{PIDs: 3})
	require.Error(t, err)
	require.Contains(t, err.Error(), "removed")
	_, err = sub.Stats()
	require.Error(t, err, "a group that is gone has no statistics, not zeros")
}

func TestDeleteTwice(t *testing.T) {
	g := create(t, cgroups.Limits{})
	sub, err := g.Create("x", cgroups.Limits{})
	require.NoError(t, err)
	again, err := g.Open("x")
	require.NoError(t, err)
	require.NoError(t, sub.Delete())
	require.NoError(t, again.Delete(), "what is gone need not be removed")
}

func TestPaths(t *testing.T) {
	root(t)
	for _, bad := range []string{"", "x", "/..", "/a/../b", "/a//b", "/a/", "/.", "/a\nb", "/a\x00", "/" + strings.Repeat("x", 300), "/cgroup.procs"} {
		_, err := cgroups.Open(bad)
		var e *cgroups.NameError
		require.ErrorAs(t, err, &e, "%q", bad)
		_, err = cgroups.Create(bad, cgroups.Limits{})
		require.ErrorAs(t, err, &e, "%q", bad)
	}
	_, err := cgroups.Open("/caisson-nothing")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = cgroups.Create("/caisson-nothing/x", cgroups.Limits{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = begin(t, "true", cgroups.Limits{Parent: "/caisson-nothing"})
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = cgroups.Of(-1)
	require.Error(t, err)
	_, err = cgroups.Of(1 << 30)
	require.ErrorIs(t, err, fs.ErrNotExist)
	g, err := cgroups.Create("/caisson-test-path", cgroups.Limits{PIDs: 10})
	require.NoError(t, err)
	require.Equal(t, "/caisson-test-path", g.Path())
	out, _ := run(t, "cat /proc/self/cgroup", cgroups.Limits{Parent: "/caisson-test-path", Name: "inner"})
	require.Contains(t, out, "/caisson-test-path/inner\n")
	out, r := run(t, "cat /proc/self/cgroup", cgroups.Limits{Below: g, Name: "inner"})
	require.Equal(t, len(g.Directories()), strings.Count(out, "/caisson-test-path/inner\n"))
	require.Positive(t, r.PIDsPeak)
	require.Error(t, plan.Build(cgroups.Limits{Below: g, Parent: "/x"}).Err())
	require.NoError(t, g.Delete())
}

func TestTop(t *testing.T) {
	g, err := cgroups.Open("/")
	require.NoError(t, err)
	defer g.Close()
	require.Error(t, g.Kill())
	require.Error(t, g.Freeze(context.Background()))
	require.Error(t, g.Thaw())
	require.Error(t, g.Delegate(1, 1))
	require.Error(t, g.Delete())
}

// TestExec: a further command in a running sandbox enters the same group.
func TestExec(t *testing.T) {
	root(t)
	q := plan.Build(cgroups.Limits{PIDs: 10})
	s, err := beginPlan(t, q, launch.Options{}, "sleep 1000")
	require.NoError(t, err)
	g := s.group()
	again := q.Again()
	for _, opt := range []launch.Options{{Inherit: s.p.Run}, {Inherit: s.p.Run, NoClone3: true}, {Inherit: s.p.Run, NoVfork: true}} {
		more, err := beginPlan(t, again, opt, "cat /proc/self/cgroup")
		require.NoError(t, err)
		out, _ := more.end()
		name := g.Path()[strings.LastIndex(g.Path(), "/"):]
		require.Equal(t, len(g.Directories()), strings.Count(out, name), out)
		require.NoError(t, g.Set(cgroups.Limits{PIDs: 11}), "the group is still there")
	}
	require.NoError(t, g.Kill())
	s.r.Close()
	s.wait()
	_, err = beginPlan(t, again, launch.Options{Inherit: s.p.Run}, "true")
	require.ErrorIs(t, err, os.ErrProcessDone)
}

// TestNamespace: a new cgroup namespace has the sandbox's own group as its root.
func TestNamespace(t *testing.T) {
	root(t)
	ns := plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWCGROUP); return nil })
	for _, parts := range [][]plan.Primitive{{cgroups.Limits{CPUSet: "0"}, ns}, {ns, cgroups.Limits{CPUSet: "0"}}} {
		out, _ := run(t, "cat /proc/self/cgroup", parts...)
		for line := range strings.Lines(out) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if unified() || strings.Contains(",memory,pids,cpuset,cpu,,", ","+f[1]+",") {
				require.Equal(t, "/", f[2], line)
			}
		}
		require.NotContains(t, out, "caisson")
	}
}

// TestFaults: each step of a start is made to fail, and nothing is left.
func TestFaults(t *testing.T) {
	root(t)
	q := plan.Build(cgroups.Limits{Name: "caisson-fault", Memory: 64 * cgroups.MiB, PIDs: 10, CPUs: 1, CPUSet: "0", Devices: cgroups.DockerDevices()})
	require.NoError(t, q.Err())
	steps := q.Steps(&plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: make([]*os.File, 3)})
	before := descriptors(t)
	for i, st := range steps {
		if st.Primitive != "cgroups.Limits" && st.Kind != plan.StepExec {
			continue
		}
		_, err := beginPlan(t, q, launch.Options{Fault: i + 1}, "true")
		var e *plan.Error
		require.ErrorAs(t, err, &e, st.String())
		require.Equal(t, i+1, e.Step)
		own, err := cgroups.Own()
		require.NoError(t, err)
		names, err := own.Subgroups()
		require.NoError(t, err)
		require.NotContains(t, names, "caisson-fault", st.String())
		own.Close()
	}
	s, err := beginPlan(t, q, launch.Options{}, "true")
	require.NoError(t, err, "and afterwards it starts")
	s.end()
	require.LessOrEqual(t, descriptors(t), before+10, "those of the group above stay open for the next start")
}

func descriptors(t *testing.T) int {
	t.Helper()
	for range 3 { // those of plans that nobody has any more
		runtime.GC()
		time.Sleep(5 * time.Millisecond)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// TestManyStarts: nothing accumulates.
func TestManyStarts(t *testing.T) {
	root(t)
	q := plan.Build(cgroups.Limits{Memory: 64 * cgroups.MiB, PIDs: 10})
	one := func() {
		s, err := beginPlan(t, q, launch.Options{}, "")
		require.NoError(t, err)
		s.end()
	}
	one()
	before := descriptors(t)
	for range 20 {
		one()
	}
	require.Equal(t, before, descriptors(t))
}

// TestParentMadeAnew: a group above that is removed and made again between two starts is found again.
func TestParentMadeAnew(t *testing.T) {
	root(t)
	const parent = "/caisson-test-anew"
	q := plan.Build(cgroups.Limits{Parent: parent, PIDs: 10})
	for range 2 {
		g, err := cgroups.Create(parent, cgroups.Limits{})
		require.NoError(t, err)
		s, err := beginPlan(t, q, launch.Options{}, "true")
		require.NoError(t, err)
		s.end()
		require.NoError(t, g.Delete())
	}
	_, err := beginPlan(t, q, launch.Options{}, "true")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestCVE_2022_0492: release_agent is a program that the kernel runs on the host. Whoever is root in a user namespace mounts
// version 1 himself and cannot write it.
func TestCVE_2022_0492(t *testing.T) {
	root(t)
	isolated := plan.Func(func(p *plan.Plan) error {
		p.Clone(unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP)
		p.While(plan.Action{Name: "write id maps", Do: func(r *plan.Run) error {
			for _, f := range []string{"gid_map", "uid_map"} {
				if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", r.PID, f), []byte("0 0 1"), 0); err != nil {
					return err
				}
			}
			return nil
		}})
		return nil
	})
	dir := t.TempDir()
	out, _ := run(t, fmt.Sprintf(`id -u
		for c in memory pids cpu rdma; do
			mount -t cgroup -o $c x %[1]s 2>/dev/null || { echo no mount; continue; }
			(echo %[1]s/evil > %[1]s/release_agent) 2>/dev/null && echo WRITTEN
			umount %[1]s
		done
		find /sys/fs/cgroup -name release_agent -maxdepth 3 | while read f; do (echo /evil > $f) 2>/dev/null && echo WRITTEN; done; true`, dir),
		isolated, cgroups.Limits{PIDs: 20})
	require.True(t, strings.HasPrefix(out, "0\n"), out)
	require.NotContains(t, out, "WRITTEN")
	for _, name := range []string{"release_agent", "memory.release_agent/../release_agent", "cgroup.release_agent", "cgroup.procs", "../x.y", "tasks", "memory..x"} {
		var e *cgroups.LimitError
		require.ErrorAs(t, plan.Build(cgroups.Limits{Files: []cgroups.File{{name, "/evil"}}}).Err(), &e, name)
	}
}

// TestDelegate: an ordinary user makes groups, and starts sandboxes with limits, in a group that was given to him, and nowhere else.
func TestDelegate(t *testing.T) {
	root(t)
	g, err := cgroups.Create("/caisson-test-delegate", cgroups.Limits{PIDs: 100, Memory: 256 * cgroups.MiB})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Delete()) })
	require.NoError(t, g.Delegate(65534, 65534))
	inner, err := g.Create("inner", cgroups.Limits{})
	require.NoError(t, err)
	require.NoError(t, inner.Delegate(65534, 65534))
	inner.Close()
	exe := t.TempDir() + "/test"
	data, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(exe, data, 0o755))
	for d := exe; strings.Count(d, "/") > 1; d = d[:strings.LastIndex(d, "/")] {
		if strings.HasPrefix(d, os.TempDir()+"/") {
			require.NoError(t, os.Chmod(d, 0o755))
		}
	}
	cmd := exec.Command("sh", "-c", "read x; exec "+exe+" -test.run '^TestAsUser$' -test.v")
	cmd.Env = append(os.Environ(), "CAISSON_DELEGATED="+g.Path()+"/inner", "CAISSON_PARENT="+g.Path())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	inner, err = g.Open("inner")
	require.NoError(t, err)
	defer inner.Close()
	require.NoError(t, inner.Add(cmd.Process.Pid))
	fmt.Fprintln(in)
	require.NoError(t, cmd.Wait(), out.String())
	require.Contains(t, out.String(), "PASS: TestAsUser")
}

// TestAsUser runs in a process of TestDelegate's, or of an ordinary user.
func TestAsUser(t *testing.T) {
	delegated := os.Getenv("CAISSON_DELEGATED")
	if delegated == "" {
		if os.Geteuid() == 0 {
			return // TestDelegate starts it again as a user
		}
		// The refusal: an ordinary user's own group has not been given to him.
		_, err := begin(t, "true", cgroups.Limits{PIDs: 10})
		require.ErrorIs(t, err, fs.ErrPermission)
		require.Contains(t, err.Error(), "delegated")
		return
	}
	_, err := cgroups.Create("/caisson-test-refused", cgroups.Limits{PIDs: 10})
	require.ErrorIs(t, err, fs.ErrPermission)
	g, err := cgroups.Open(delegated)
	require.NoError(t, err)
	defer g.Close()
	require.ErrorIs(t, g.Set(cgroups.Limits{PIDs: 1000}), fs.ErrPermission, "the limits of the group itself are not the user's")
	own, err := cgroups.Own()
	require.NoError(t, err)
	defer own.Close()
	if unified() {
		_, err = own.Create("x", cgroups.Limits{PIDs: 10})
		require.ErrorIs(t, err, syscall.EBUSY)
		require.Contains(t, err.Error(), "Vacate")
		require.NoError(t, g.Vacate())
	}
	out, r := run(t, "cat /proc/self/cgroup", cgroups.Limits{Parent: delegated, PIDs: 10, Memory: 64 * cgroups.MiB})
	require.Contains(t, out, delegated+"/caisson-")
	require.Positive(t, r.MemoryPeak)
	if unified() {
		out, _ = run(t, "cat /proc/self/cgroup", cgroups.Limits{PIDs: 10})
		require.Contains(t, out, delegated+"/caisson-", "not below "+cgroups.Leaf)
	}
}

func TestReclaimAndPeak(t *testing.T) {
	g := create(t, cgroups.Limits{Memory: 64 * cgroups.MiB})
	inside(t, g, "dd if=/dev/zero of=/dev/null bs=16M count=1 2>/dev/null")
	var peak int64
	require.Eventually(t, func() bool {
		s, err := g.Stats()
		require.NoError(t, err)
		peak = s.Memory.Peak
		return s.PIDs.Current == 0 && (peak > 16*cgroups.MiB || peak == cgroups.Unknown)
	}, 10*time.Second, 10*time.Millisecond)
	if err := g.ResetPeak(); err != nil {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.Contains(t, err.Error(), "6.12")
	} else {
		s, err := g.Stats()
		require.NoError(t, err)
		require.Less(t, s.Memory.Peak, peak)
	}
	switch err := g.Reclaim(1 << 20); {
	case !unified():
		require.ErrorIs(t, err, errors.ErrUnsupported)
	case err != nil:
		require.ErrorIs(t, err, syscall.EAGAIN)
	}
	require.Error(t, g.Reclaim(-1))
}

func TestStats(t *testing.T) {
	g := create(t, cgroups.Limits{PIDs: 10})
	s, err := g.Stats()
	require.NoError(t, err)
	require.True(t, s.Memory.Known && s.PIDs.Known && s.CPU.Known)
	require.LessOrEqual(t, testing.AllocsPerRun(50, func() { g.Stats() }), 10.0)
}

// TestStatsOfPlainGroup: one that somebody else has made, and to which no controllers were passed on.
func TestStatsOfPlainGroup(t *testing.T) {
	parent := create(t, cgroups.Limits{})
	for _, dir := range parent.Directories() {
		require.NoError(t, os.Mkdir(dir+"/plain", 0o755))
	}
	g, err := parent.Open("plain")
	require.NoError(t, err)
	s, err := g.Stats()
	require.NoError(t, err)
	require.True(t, s.CPU.Known)
	require.Equal(t, !unified(), s.Memory.Known)
	require.Equal(t, !unified(), s.PIDs.Known)
	require.NoError(t, g.Delete())
}

// TestConcurrentStarts: one plan starts many sandboxes at once, each in a group of its own.
func TestConcurrentStarts(t *testing.T) {
	root(t)
	q := plan.Build(cgroups.Limits{PIDs: 10})
	const n = 8
	var all [n]*started
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s, err := beginPlan(t, q, launch.Options{}, "cat /proc/self/cgroup")
			if err != nil {
				t.Error(err)
			}
			all[i] = s
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, s := range all {
		if s != nil {
			out, r := s.end()
			require.False(t, seen[out])
			require.EqualValues(t, 2, r.PIDsPeak)
			seen[out] = true
		}
	}
	require.Len(t, seen, n)
}
