package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// simulated is a host whose hierarchies are ordinary directories. Groups that are made have the files; a fault can be put into each.
type simulated struct {
	*host
	t      *testing.T
	dir    string
	v2     bool
	fault  func(op, name string) error // "open", "write", "mkdir", "rmdir"
	short  string                      // the file that takes a part of its value only
	writes []string
}

var v2Files = []string{"cgroup.procs", "cgroup.events", "cgroup.kill", "cgroup.freeze", "cgroup.controllers", "cgroup.subtree_control", "memory.max", "memory.high", "memory.low", "memory.min",
	"memory.swap.max", "memory.oom.group", "memory.current", "memory.peak", "memory.stat", "memory.events", "cpu.max", "cpu.max.burst", "cpu.weight", "cpu.idle", "cpu.stat",
	"cpu.uclamp.min", "cpu.uclamp.max", "cpuset.cpus", "cpuset.mems", "cpuset.cpus.effective", "cpuset.mems.effective", "cpuset.cpus.partition", "pids.max", "pids.current", "pids.peak", "pids.events", "io.max", "io.weight", "io.latency", "io.stat", "hugetlb.2MB.max", "rdma.max", "misc.max", "dmem.max", "dmem.low", "cgroup.max.descendants", "cgroup.max.depth"}

var v1Files = map[string][]string{
	"memory":  {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.oom_control", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.failcnt", "memory.stat"},
	"cpu":     {"cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.shares", "cpu.idle", "cpu.stat", "cpu.uclamp.min", "cpu.uclamp.max", "cpuacct.usage", "cpuacct.stat"},
	"cpuset":  {"cpuset.cpus", "cpuset.mems"},
	"pids":    {"pids.max", "pids.current", "pids.peak", "pids.events"},
	"blkio":   {"blkio.throttle.read_bps_device", "blkio.throttle.write_iops_device", "blkio.bfq.weight", "blkio.bfq.weight_device", "blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"},
	"freezer": {"freezer.state"},
	"devices": {"devices.allow", "devices.deny"},
	"net_cls": {"net_cls.classid"}, "net_prio": {"net_prio.ifpriomap"}, "hugetlb": {"hugetlb.2MB.limit_in_bytes"},
}

var content = map[string]string{"cgroup.controllers": "cpuset cpu io memory pids hugetlb rdma misc dmem\n", "cgroup.subtree_control": "cpuset cpu io memory pids hugetlb rdma misc dmem\n",
	"memory.stat": "anon 7\nfile 8\nshmem 9\nkernel 10\npgfault 11\npgmajfault 12\n", "memory.current": "4096\n", "memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n",
	"memory.peak": "8192\n", "cpu.stat": "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 5\nnr_throttled 4\nthrottled_usec 3\n", "pids.current": "1\n", "pids.peak": "2\n",
	"pids.events": "max 3\n", "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:1 \n259:3 rbytes=10\n", "cpuset.cpus": "0-3\n", "cpuset.mems": "0\n", "cpuset.cpus.effective": "0-1\n", "cpuset.mems.effective": "0\n",
	"memory.usage_in_bytes": "4096\n", "memory.max_usage_in_bytes": "8192\n", "memory.failcnt": "2\n", "cpuacct.usage": "3000000\n", "cpuacct.stat": "user 3\nsystem 4\n", "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
	"blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Sync 3\n8:0 Total 3\nTotal 3\n", "blkio.throttle.io_serviced_recursive": "8:0 Read 3\n8:0 Write 4\nTotal 7\n",
	"pids.max": "max\n"}

func newSimulated(t *testing.T, v2 bool) *simulated {
	s := &simulated{t: t, dir: inMemory(t), v2: v2, fault: func(string, string) error { return nil }}
	real := realKernel()
	k := *real
	k.magic = func(int) (int64, error) {
		if v2 {
			return unix.CGROUP2_SUPER_MAGIC, nil
		}
		return unix.CGROUP_SUPER_MAGIC, nil
	}
	k.open = func(dir int, name string, flags int) (int, error) {
		if err := s.fault("open", name); err != nil {
			return -1, err
		}
		return real.open(dir, name, flags)
	}
	k.write = func(fd int, v string) (int, error) {
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		require.NoError(t, err)
		name := filepath.Base(target)
		if err := s.fault("write", name); err != nil {
			return -1, err
		}
		if s.short == name {
			v = v[:len(v)-1]
		} else {
			s.writes = append(s.writes, name+"="+v)
		}
		return real.write(fd, v)
	}
	k.mkdir = func(dir int, name string) error {
		if err := s.fault("mkdir", name); err != nil {
			return err
		}
		if err := real.mkdir(dir, name); err != nil {
			return err
		}
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir))
		require.NoError(t, err)
		s.fill(t, filepath.Join(target, name))
		return nil
	}
	k.rmdir = func(dir int, name string) error {
		if err := s.fault("rmdir", name); err != nil {
			return err
		}
		target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir))
		require.NoError(t, err)
		if _, err := os.Stat(filepath.Join(target, name)); err != nil {
			return syscall.ENOENT
		}
		return os.RemoveAll(filepath.Join(target, name))
	}
	mounts, groups := s.layout(t)
	s.host = &host{kernel: &k, proc: func(name string) ([]byte, error) {
		if strings.HasSuffix(name, "mountinfo") {
			return []byte(mounts), nil
		}
		return []byte(groups), nil
	}}
	return s
}

// inMemory is a directory that costs no disk, where there is such a place: a group has 40 files.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "caisson-simulated-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// openPath opens a group that is closed at the end of the test, and not by the garbage collector in the middle of another one.
func (s *simulated) openPath(p string) (*Group, error) {
	g, err := s.host.openPath(p)
	if err == nil {
		s.t.Cleanup(func() { g.Close() })
	}
	return g, err
}

func (s *simulated) layout(t *testing.T) (mounts, groups string) {
	if s.v2 {
		s.fill(t, s.dir)
		return "30 20 0:1 / " + s.dir + " rw - cgroup2 cgroup2 rw\n", "0::/\n"
	}
	for i, c := range []string{"memory", "cpu,cpuacct", "cpuset", "pids", "blkio", "freezer", "devices", "net_cls", "net_prio", "hugetlb"} {
		dir := filepath.Join(s.dir, c)
		require.NoError(t, os.Mkdir(dir, 0o755))
		s.fill(t, dir)
		mounts += fmt.Sprintf("3%d 20 0:%d / %s rw - cgroup cgroup rw,%s\n", i, i, dir, c)
		groups += fmt.Sprintf("%d:%s:/\n", i, c)
	}
	return mounts, groups
}

// fill makes the files of a group.
func (s *simulated) fill(t *testing.T, dir string) {
	files := v2Files
	if !s.v2 {
		rest, err := filepath.Rel(s.dir, dir)
		require.NoError(t, err)
		c, _, _ := strings.Cut(strings.Split(rest, "/")[0], ",")
		files = append([]string{"cgroup.procs", "tasks", "cgroup.event_control"}, v1Files[c]...)
	}
	for _, f := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, f), []byte(content[f]), 0o644))
	}
}

// left lists groups.
func (s *simulated) left(t *testing.T) (found []string) {
	require.NoError(t, filepath.WalkDir(s.dir, func(p string, d os.DirEntry, err error) error {
		if d.Name() == "g" {
			found = append(found, p)
		}
		return err
	}))
	return found
}

var many = Limits{Memory: 64 * MiB, MemoryLow: MiB, Swap: MiB, CPUs: 1.5, CPUBurst: time.Millisecond, CPUWeight: 100, CPUIdle: On, ClampMax: 50, CPUSet: "0-1", MemoryNodes: "0",
	PIDs: 64, IOWeight: 500, IO: []IO{{Device: "8:0", ReadBPS: MiB, WriteIOPS: 100, Weight: 200}}}

var only2 = Limits{MemoryHigh: 32 * MiB, MemoryMin: MiB, OOMGroup: On, Partition: "member", IO: []IO{{Device: "8:0", Latency: time.Millisecond}},
	HugePages: []HugePages{{"2MB", 2 * MiB}}, RDMA: []RDMA{{"mlx5_0", 1, NoLimit}}, Misc: []Misc{{"sev", 3}}, DMem: []DMem{{"drm/x", NoLimit, 0, 4}}, Descendants: 30, Depth: None}

var only1 = Limits{OOMKill: Off, NetClass: 0x10001, NetPriority: []NetPriority{{"eth0", 5}}, CPUShares: 512, HugePages: []HugePages{{"2MB", NoLimit}}}

func TestWrites(t *testing.T) {
	two := newSimulated(t, true)
	g, err := two.openPath("/")
	require.NoError(t, err)
	defer g.Close()
	for _, l := range []Limits{many, only2} {
		sub, err := g.Create("g", l)
		require.NoError(t, err)
		require.NoError(t, sub.Delete())
	}
	require.Equal(t, strings.Fields(`memory.max=67108864 memory.swap.max=1048576 memory.low=1048576 cpu.weight=100 cpu.idle=1 pids.max=64 io.weight=default_500
		cpu.max=150000_100000 cpu.max.burst=1000 cpu.uclamp.max=50.00 cpuset.cpus=0-1 cpuset.mems=0 io.max=8:0_rbps=1048576_wiops=100 io.weight=8:0_200
		memory.high=33554432 memory.min=1048576 memory.oom.group=1 cgroup.max.descendants=30 cgroup.max.depth=0 cpuset.cpus.partition=member io.latency=8:0_target=1000 hugetlb.2MB.max=2097152
		rdma.max=mlx5_0_hca_handle=1_hca_object=max misc.max=sev_3 dmem.max=drm/x_max dmem.low=drm/x_4`), spaceless(two.writes))
	one := newSimulated(t, false)
	g, err = one.openPath("/")
	require.NoError(t, err)
	defer g.Close()
	for _, l := range []Limits{many, only1} {
		sub, err := g.Create("g", l)
		require.NoError(t, err)
		require.NoError(t, sub.Delete())
	}
	require.Equal(t, strings.Fields(`cpuset.cpus=0-3 cpuset.mems=0 memory.limit_in_bytes=67108864 memory.memsw.limit_in_bytes=68157440 memory.soft_limit_in_bytes=1048576
		cpu.shares=1024 cpu.idle=1 pids.max=64 blkio.bfq.weight=59 cpu.cfs_period_us=100000 cpu.cfs_quota_us=150000 cpu.cfs_burst_us=1000 cpu.uclamp.max=50.00 cpuset.cpus=0-1 cpuset.mems=0
		blkio.throttle.read_bps_device=8:0_1048576 blkio.throttle.write_iops_device=8:0_100 blkio.bfq.weight_device=8:0_29
		memory.oom_control=1 cpu.shares=512 hugetlb.2MB.limit_in_bytes=-1 net_cls.classid=65537 net_prio.ifpriomap=eth0_5`), spaceless(one.writes))
}

func spaceless(all []string) []string {
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], " ", "_")
	}
	return all
}

// TestInexpressible: what a version does not have is an error that names it.
func TestInexpressible(t *testing.T) {
	for _, c := range []struct {
		v2    bool
		l     Limits
		field string
	}{
		{false, Limits{MemoryHigh: MiB}, "MemoryHigh"}, {false, Limits{MemoryMin: MiB}, "MemoryMin"}, {false, Limits{OOMGroup: On}, "OOMGroup"},
		{false, Limits{Partition: "root"}, "Partition"}, {false, Limits{Depth: 3}, "Depth"}, {false, Limits{Descendants: None}, "Descendants"}, {false, Limits{IO: []IO{{Device: "8:0", Latency: 1000}}}, "IO"},
		{true, Limits{OOMKill: Off}, "OOMKill"}, {true, Limits{NetClass: 1}, "NetClass"}, {true, Limits{NetPriority: []NetPriority{{"eth0", 1}}}, "NetPriority"},
	} {
		s := newSimulated(t, c.v2)
		g, err := s.openPath("/")
		require.NoError(t, err)
		_, err = g.Create("g", c.l)
		require.ErrorIs(t, err, errors.ErrUnsupported, c.field)
		require.Contains(t, err.Error(), c.field)
		require.ErrorIs(t, plan.Build(plan.Func(func(p *plan.Plan) error { return c.l.apply(p, s.host) })).Err(), errors.ErrUnsupported)
		require.Empty(t, s.left(t))
		g.Close()
	}
	s := newSimulated(t, false)
	g, err := s.openPath("/")
	require.NoError(t, err)
	_, err = g.Create("g", Limits{RDMA: []RDMA{{"mlx5_0", 1, 1}}})
	require.ErrorIs(t, err, errors.ErrUnsupported, "a controller that is not there")
	require.Contains(t, err.Error(), "rdma")
}

// TestFaultOfEachFile: whichever file is missing, read-only, busy, without device or takes half a value: a typed error that names it, and no group is left.
func TestFaultOfEachFile(t *testing.T) {
	for _, v2 := range []bool{true, false} {
		s := newSimulated(t, v2)
		g, err := s.openPath("/")
		require.NoError(t, err)
		l := many
		l.Devices = DockerDevices()
		if v2 {
			l.Devices = nil
		}
		sub, err := g.Create("g", l)
		require.NoError(t, err)
		require.NoError(t, sub.Delete())
		var files []string
		for _, w := range s.writes {
			name, _, _ := strings.Cut(w, "=")
			if !slices.Contains(files, name) {
				files = append(files, name)
			}
		}
		require.Greater(t, len(files), 10)
		for _, name := range files {
			for op, errnos := range map[string][]syscall.Errno{"open": {syscall.ENOENT, syscall.EACCES, syscall.EROFS}, "write": {syscall.EBUSY, syscall.ENODEV}} {
				for _, errno := range errnos {
					s.fault = func(o, n string) error {
						if o == op && n == name {
							return errno
						}
						return nil
					}
					_, err := g.Create("g", l)
					if name == "cpuset.cpus" || name == "cpuset.mems" || !strings.Contains(name, "bfq") {
						var e *Error
						require.ErrorAs(t, err, &e, "%s of %s: %v", op, name, errno)
						require.ErrorIs(t, err, errno)
						require.Equal(t, name, e.File)
					}
					s.fault = func(string, string) error { return nil }
					require.Empty(t, s.left(t), "%s of %s: %v", op, name, errno)
				}
			}
			s.short = name
			_, err := g.Create("g", l)
			require.ErrorIs(t, err, io.ErrShortWrite, name)
			s.short = ""
			require.Empty(t, s.left(t))
		}
		g.Close()
	}
}

// TestNotTaken: processors that are not given, and a partition that is none, are errors although the kernel has taken the value.
func TestNotTaken(t *testing.T) {
	s := newSimulated(t, true)
	g, err := s.openPath("/")
	require.NoError(t, err)
	reads := func(file, text string) func(op, name string) error {
		return func(op, name string) error {
			if op == "open" && name == file {
				return os.WriteFile(filepath.Join(s.dir, "g", file), []byte(text), 0o644)
			}
			return nil
		}
	}
	for _, c := range []struct {
		file, text string
		l          Limits
	}{
		{"cpuset.cpus.effective", "0-3\n", Limits{CPUSet: "0-1"}}, {"cpuset.cpus.effective", "9\n", Limits{CPUSet: "0-7"}}, {"cpuset.mems.effective", "1\n", Limits{MemoryNodes: "0"}},
		{"cpuset.cpus.partition", "???? invalid (no processor is free)\n", Limits{Partition: "root"}},
	} {
		s.fault = reads(c.file, c.text)
		_, err := g.Create("g", c.l)
		require.ErrorIs(t, err, syscall.EINVAL, c.file)
		require.Empty(t, s.left(t))
		s.fault = func(op, name string) error {
			if op == "open" && name == c.file {
				return syscall.EACCES
			}
			return nil
		}
		_, err = g.Create("g", c.l)
		require.ErrorIs(t, err, syscall.EACCES, c.file)
		require.Empty(t, s.left(t))
	}
	s.fault = reads("cpuset.cpus.effective", "3\n")
	sub, err := g.Create("g", Limits{CPUSet: "2-3"})
	require.NoError(t, err, "less than was asked for")
	require.NoError(t, sub.Delete())
}

// TestFaultOfDirectories: one directory of several cannot be made.
func TestFaultOfDirectories(t *testing.T) {
	s := newSimulated(t, false)
	g, err := s.openPath("/")
	require.NoError(t, err)
	for n := range 7 {
		made := 0
		s.fault = func(op, name string) error {
			if op == "mkdir" {
				if made++; made == n+1 {
					return syscall.ENOSPC
				}
			}
			return nil
		}
		sub, err := g.Create("g", many)
		s.fault = func(string, string) error { return nil }
		if made <= n {
			require.NoError(t, err)
			require.NoError(t, sub.Delete())
			continue
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.Empty(t, s.left(t))
	}
	t.Run("not permitted, and only for the accounts", func(t *testing.T) {
		made := 0
		s.fault = func(op, name string) error {
			if op == "mkdir" {
				if made++; made > 1 {
					return syscall.EACCES
				}
			}
			return nil
		}
		sub, err := g.Create("g", Limits{Memory: MiB})
		require.NoError(t, err)
		require.Len(t, sub.dirs, 1)
		require.NoError(t, sub.Delete())
		made = 0
		_, err = g.Create("g", Limits{Memory: MiB, PIDs: 10})
		require.ErrorIs(t, err, os.ErrPermission)
		s.fault = func(string, string) error { return nil }
		require.Empty(t, s.left(t))
	})
}

// TestFaultOfStats: a file that cannot be read is an error, not a zero.
func TestFaultOfStats(t *testing.T) {
	for _, v2 := range []bool{true, false} {
		s := newSimulated(t, v2)
		g, err := s.openPath("/")
		require.NoError(t, err)
		sub, err := g.Create("g", Limits{IO: []IO{}})
		require.NoError(t, err)
		var opened []string
		s.fault = func(op, name string) error { opened = append(opened, name); return nil }
		st, err := sub.Stats()
		require.NoError(t, err)
		require.EqualValues(t, 4096, st.Memory.Current)
		require.EqualValues(t, 8192, st.Memory.Peak)
		require.EqualValues(t, 4, st.Memory.Kills)
		require.Equal(t, 3*time.Millisecond, st.CPU.Usage)
		require.EqualValues(t, 5, st.CPU.Periods)
		require.Equal(t, IOStats{8, 0, 1, 2, 3, 4}, st.IO[0])
		require.Equal(t, PIDStats{true, 1, 2, 3}, st.PIDs)
		require.EqualValues(t, Unknown, st.Memory.Swap+map[bool]int64{true: 0, false: 0}[v2])
		for _, name := range slices.Clone(opened) {
			for _, errno := range []syscall.Errno{syscall.EACCES, syscall.ENODEV, syscall.ENOENT} {
				s.fault = func(op, n string) error {
					if n == name {
						return errno
					}
					return nil
				}
				optional := slices.Contains([]string{"memory.peak", "memory.swap.current", "pids.peak", "pids.events"}, name)
				_, err := sub.Stats()
				if errno == syscall.ENOENT && optional {
					require.NoError(t, err, name)
				} else {
					require.ErrorIs(t, err, errno, name)
				}
			}
		}
		s.fault = func(string, string) error { return nil }
		require.NoError(t, os.WriteFile(filepath.Join(sub.dirs[0].String(), map[bool]string{true: "memory.current", false: "memory.usage_in_bytes"}[v2]), []byte("many\n"), 0o644))
		_, err = sub.Stats()
		require.ErrorIs(t, err, syscall.EBADMSG)
		require.NoError(t, sub.Delete())
		g.Close()
	}
}

// TestControllerNotPassedOn: a file that is not there because its controller does not act in the group is no error, and no zero that looks like a number.
func TestControllerNotPassedOn(t *testing.T) {
	s := newSimulated(t, true)
	g, err := s.openPath("/")
	require.NoError(t, err)
	defer g.Close()
	sub, err := g.Create("g", Limits{})
	require.NoError(t, err)
	for controller, files := range map[string][]string{"io": {"io.stat"}, "memory": {"memory.current", "memory.stat", "memory.events", "memory.peak"}, "pids": {"pids.current"}} {
		for _, f := range files {
			require.NoError(t, os.Remove(filepath.Join(sub.String(), f)))
		}
		_, err = sub.Stats()
		require.ErrorIs(t, err, syscall.ENOENT, "it says that it acts")
		rest := strings.ReplaceAll(content["cgroup.controllers"], controller, "")
		require.NoError(t, os.WriteFile(filepath.Join(sub.String(), "cgroup.controllers"), []byte(rest), 0o644))
		st, err := sub.Stats()
		require.NoError(t, err, controller)
		_, err = sub.total()
		require.NoError(t, err, controller)
		require.Equal(t, controller != "memory", st.Memory.Known)
		require.Equal(t, controller != "pids", st.PIDs.Known)
		require.Equal(t, controller != "io", st.IO != nil)
		for _, f := range append(files, "cgroup.controllers") {
			require.NoError(t, os.WriteFile(filepath.Join(sub.String(), f), []byte(content[f]), 0o644))
		}
	}
	require.NoError(t, sub.Delete())
}

// TestNoHierarchy: a directory at the mount point that is no hierarchy takes nothing; a host without control groups is said to be one.
func TestNoHierarchy(t *testing.T) {
	s := newSimulated(t, true)
	s.host.kernel.magic = magic
	_, err := s.openPath("/")
	require.ErrorContains(t, err, "no hierarchy of control groups")
	s.host.proc = func(string) ([]byte, error) { return nil, nil }
	_, err = s.openOwn()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	s.host.proc = func(string) ([]byte, error) { return nil, syscall.EACCES }
	_, err = s.openOwn()
	require.ErrorIs(t, err, syscall.EACCES)
}

// TestLinks: no component of a path may be a link, however it came there.
func TestLinks(t *testing.T) {
	s := newSimulated(t, true)
	victim := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(victim, "memory.max"), nil, 0o644))
	require.NoError(t, os.Symlink(victim, filepath.Join(s.dir, "link")))
	_, err := s.openPath("/link")
	require.ErrorIs(t, err, syscall.ELOOP)
	require.NoError(t, os.Mkdir(filepath.Join(s.dir, "real"), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(victim, "memory.max"), filepath.Join(s.dir, "real", "memory.max")))
	g, err := s.openPath("/real")
	require.NoError(t, err)
	err = g.Set(Limits{Files: []File{{"memory.max", "1"}}})
	require.Error(t, err)
	b, err := os.ReadFile(filepath.Join(victim, "memory.max"))
	require.NoError(t, err)
	require.Empty(t, b)
}

func TestMounts(t *testing.T) {
	h := func(mounts, groups string) (layout, error) {
		return (&host{kernel: realKernel(), proc: func(name string) ([]byte, error) {
			if strings.HasSuffix(name, "info") {
				return []byte(mounts), nil
			}
			return []byte(groups), nil
		}}).look(0)
	}
	all, err := h("1 2 0:3 /docker/x /sys/fs/cgroup/memory rw shared:1 master:2 - cgroup cgroup rw,memory\n"+
		"2 2 0:4 / /with\\040space/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu\n"+
		"3 2 0:4 / /again rw - cgroup cgroup rw,cpuacct,cpu\n"+
		"4 2 0:5 /other /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"+
		"5 2 0:6 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"+
		"6 2 0:7 /.. /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n"+
		"garbage\n7 2 0:8 / /tmp rw - tmpfs tmpfs rw\n",
		"1:memory:/docker/x/y\n2:cpu,cpuacct:/\n3:pids:/\n4:blkio:/\n5:name=systemd:/\nx\n")
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "/y", all.find("memory").own)
	require.Equal(t, "/with space/cpu,cpuacct", all.find("cpuacct").mount)
	require.Nil(t, all.v2())
	_, err = h("x", "0::/..\n")
	require.ErrorIs(t, err, errors.ErrUnsupported)
	for p, want := range map[string]string{"/a": "", "/a/b": "", "/ab": "", "/docker/x": "/", "/docker/x/y": "/y", "/docker/xy": ""} {
		got, ok := below(p, "/docker/x")
		require.Equal(t, want != "", ok, p)
		require.Equal(t, want, got, p)
	}
}

// legacyHost is this machine without version 2, where it has version 1.
func legacyHost(t *testing.T) (*host, *Group) {
	h := realHost()
	h.v1 = true
	all, err := h.look(0)
	if errors.Is(err, errors.ErrUnsupported) || err == nil && all.find("freezer") == nil {
		t.Skip("the machine has no version 1 of control groups")
	}
	require.NoError(t, err)
	if os.Geteuid() != 0 {
		t.Skip("needs root: the caller's group has not been delegated to an ordinary user")
	}
	own, err := h.openOwn()
	require.NoError(t, err)
	t.Cleanup(func() { own.Close() })
	return h, own
}

// TestLegacyKill: without version 2 the freezer holds a fork bomb while it is killed, and without the freezer pids.max does.
func TestLegacyKill(t *testing.T) {
	_, own := legacyHost(t)
	defer own.Close()
	for _, without := range []string{"", "freezer", "freezer pids"} {
		g, err := own.Create("caisson-test-legacy", Limits{PIDs: 50, CPUs: 0.5})
		require.NoError(t, err)
		require.Nil(t, g.v2())
		full := slices.Clone(g.dirs)
		bomb := exec(t, g, `exec perl -e 'while (1) { fork; select(undef, undef, undef, 0.001) }'`)
		require.Eventually(t, func() bool { pids, err := g.Procs(); return err == nil && len(pids) > 10 }, 5*time.Second, time.Millisecond)
		g.dirs = slices.DeleteFunc(g.dirs, func(d dir) bool { return slices.ContainsFunc(strings.Fields(without), d.has) })
		if without != "freezer pids" { // nothing holds it then but its limit; Delete tries again
			require.NoError(t, g.Kill())
			require.Error(t, bomb.Wait())
			require.Eventually(t, func() bool { pids, err := g.Procs(); return err == nil && len(pids) == 0 }, 5*time.Second, time.Millisecond)
			if p, ok := g.dir("pids"); ok {
				b, err := p.read("pids.max", make([]byte, 16))
				require.NoError(t, err)
				require.Equal(t, "50\n", string(b), "the limit is put back")
			}
		}
		g.dirs = full
		require.NoError(t, g.Delete())
		bomb.Wait()
	}
}

func TestLegacyFreeze(t *testing.T) {
	_, own := legacyHost(t)
	defer own.Close()
	g, err := own.Create("caisson-test-legacy-freeze", Limits{})
	require.NoError(t, err)
	cmd := exec(t, g, "while :; do sleep 0.01; done")
	require.NoError(t, g.Freeze(context.Background()))
	frozen, err := g.Frozen()
	require.NoError(t, err)
	require.True(t, frozen)
	require.NoError(t, g.Thaw())
	frozen, err = g.Frozen()
	require.NoError(t, err)
	require.False(t, frozen)
	st, err := g.Stats()
	require.NoError(t, err)
	require.True(t, st.CPU.Known)
	require.NoError(t, g.Freeze(context.Background()))
	require.NoError(t, g.Delete(), "what is frozen can be deleted")
	require.Error(t, cmd.Wait())
}

func TestWeights(t *testing.T) {
	require.EqualValues(t, 100, weightOf(1024))
	require.EqualValues(t, 1, weightOf(2))
	require.EqualValues(t, 10000, weightOf(262144))
	require.EqualValues(t, 1024, sharesOf(100))
	require.EqualValues(t, 2, sharesOf(1))
	require.EqualValues(t, 262144, sharesOf(10000))
	last := int64(0)
	for w := int64(1); w <= 10000; w++ {
		require.Equal(t, w, weightOf(sharesOf(w)), "each weight survives the way to version 1 and back")
		require.Greater(t, sharesOf(w), last)
		last = sharesOf(w)
	}
	require.EqualValues(t, 10, oldWeight(1))
	require.EqualValues(t, 1000, oldWeight(10000))
	require.EqualValues(t, 10000, newWeight(1000))
}

func TestBadLimits(t *testing.T) {
	for _, l := range []Limits{{Memory: -1}, {Depth: -1}, {Descendants: 1 << 40}, {Memory: math.MinInt64 + 1}, {Swap: -7}, {PIDs: 1 << 40}, {PIDs: -3}, {CPUs: math.NaN()}, {CPUs: -1}, {CPUs: math.Inf(1)}, {CPUs: 1e7}, {CPUs: 1e-9},
		{CPUQuota: time.Second}, {CPUPeriod: time.Second}, {CPUs: 1, CPUQuota: time.Millisecond, CPUPeriod: time.Second}, {CPUs: 1, CPUPeriod: time.Hour}, {CPUs: 1, CPUPeriod: -1},
		{CPUWeight: 10001}, {CPUShares: 1}, {CPUWeight: 1, CPUShares: 2}, {CPUBurst: -1}, {ClampMin: math.NaN()}, {ClampMax: 101}, {CPUSet: "3-1"}, {CPUSet: "a"}, {CPUSet: "1,"}, {CPUSet: "-1"},
		{CPUSet: "1\n2"}, {MemoryNodes: "+1"}, {Partition: "x"}, {IOWeight: 0x7fff}, {IO: []IO{{}}}, {IO: []IO{{Device: "8"}}}, {IO: []IO{{Device: "8:x"}}}, {IO: []IO{{Device: "/dev/null", ReadBPS: 1}}},
		{IO: []IO{{Device: "8:0", ReadBPS: -1}}}, {IO: []IO{{Device: "8:0", Weight: 10001}}}, {HugePages: []HugePages{{"../x", 1}}}, {HugePages: []HugePages{{"", 1}}}, {HugePages: []HugePages{{"2MB", -1}}},
		{RDMA: []RDMA{{"a b", 1, 1}}}, {RDMA: []RDMA{{"a", 0, 0}}}, {Misc: []Misc{{"x\n", 1}}}, {DMem: []DMem{{"x", -1, 0, 0}}}, {OOMGroup: 3}, {CPUIdle: -1}, {Devices: []Device{{}}},
		{Devices: []Device{{Kind: 'c', Major: -2, Minor: 1, Access: "r"}}}, {Devices: []Device{{Kind: 'c', Access: "rx"}}}, {Devices: []Device{{Kind: 'c', Access: "rr"}}}, {Files: []File{{"memory.max", ""}}},
		{Files: []File{{"memory", "1"}}}, {Files: []File{{"a/b.c", "1"}}}, {NetPriority: []NetPriority{{"a b", 1}}}} {
		err := l.check()
		require.ErrorIs(t, err, syscall.EINVAL, "%+v", l)
		var e *LimitError
		require.ErrorAs(t, err, &e)
		require.NotEmpty(t, e.Error())
	}
	require.ErrorIs(t, (&Limits{IO: []IO{{Device: "/dev/nothing", ReadBPS: 1}}}).check(), syscall.ENOENT)
	require.NoError(t, many.check())
	require.NoError(t, only2.check())
}

// allows decides as the rules say, the slow way.
func allows(rules []Device, kind byte, major, minor int64, bit uint32) bool {
	for _, r := range slices.Backward(rules) {
		if (r.Kind == 'a' || r.Kind == kind) && (r.Major == Any || r.Major == major) && (r.Minor == Any || r.Minor == minor) && r.bits()&bit != 0 {
			return !r.Deny
		}
	}
	return false
}

// TestLegacyDevices compares version 1's list of exceptions with the rules.
func TestLegacyDevices(t *testing.T) {
	c := func(major, minor int64, access string, deny bool) Device {
		return Device{Kind: 'c', Major: major, Minor: minor, Access: access, Deny: deny}
	}
	for _, rules := range [][]Device{{}, DockerDevices(), {c(1, 3, "rwm", false), c(1, 3, "w", true)}, {c(1, 3, "r", true)}, {c(1, 3, "rw", false), c(1, Any, "r", true), c(1, 5, "r", false)},
		{{Kind: 'a', Major: Any, Minor: Any, Access: "r"}}} {
		writes, err := legacyDevices(rules)
		require.NoError(t, err)
		require.Equal(t, "a", writes[0].value)
		var allowed []Device
		for _, w := range writes[1:] {
			d, err := ParseDevice(w.value)
			require.NoError(t, err)
			require.NotEqual(t, byte('a'), d.Kind, "to version 1 that would be everything")
			allowed = append(allowed, d)
		}
		for _, kind := range []byte("bc") {
			for major := range int64(3) {
				for minor := range int64(9) {
					for _, bit := range []uint32{accessMknod, accessRead, accessWrite} {
						got := slices.ContainsFunc(allowed, func(d Device) bool { return allows([]Device{d}, kind, major, minor, bit) })
						require.Equal(t, allows(rules, kind, major, minor, bit), got, "%v: %c %d:%d %d", rules, kind, major, minor, bit)
					}
				}
			}
		}
	}
	_, err := legacyDevices([]Device{c(1, Any, "rw", false), c(1, 3, "w", true)})
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
