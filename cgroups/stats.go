//go:build linux

package cgroups

import (
	"errors"
	"syscall"
	"time"
)

// Unknown is a number that this kernel does not have.
const Unknown = -1

// Stats is what a group, with those below it, has used and uses. A part whose controller does not act in the group has Known false and is
// zero. A number that the kernel is too old for, or that only one version of control groups has, is [Unknown].
type Stats struct {
	Memory MemoryStats
	CPU    CPUStats
	PIDs   PIDStats
	IO     []IOStats // one for each device that has been used; nil too if the controller does not act
}

// MemoryStats is of the controller memory. All but the counts are bytes.
type MemoryStats struct {
	Known   bool
	Current int64 // memory.current
	Peak    int64 // memory.peak (Linux 5.19)
	Swap    int64 // memory.swap.current; Unknown without swap accounting
	Anon    int64 // memory.stat anon: memory of programs
	File    int64 // memory.stat file: cached files, with tmpfs
	Shmem   int64 // memory.stat shmem: of it tmpfs and shared memory
	Kernel  int64 // memory.stat kernel (Linux 5.18); Unknown in version 1

	Faults, MajorFaults int64 // page faults; those that needed input
	High                int64 // memory.events high: how often slowed down at MemoryHigh; Unknown in version 1
	Max                 int64 // memory.events max: how often the limit was met
	Kills               int64 // memory.events oom_kill: processes killed for lack of memory
}

// CPUStats is CPU time.
type CPUStats struct {
	Known              bool
	Usage              time.Duration // all CPU time
	User, System       time.Duration // outside and inside the kernel; in version 1 to 10 ms
	Periods, Throttled int64         // periods with a quota, and those in which it was used up; 0 without the controller cpu
	ThrottledTime      time.Duration // how long runnable threads were stopped
}

// PIDStats is processes and threads.
type PIDStats struct {
	Known   bool
	Current int64
	Peak    int64 // Linux 6.1
	Refused int64 // pids.events max: how often a fork was refused
}

// IOStats is what was done to one block device.
type IOStats struct {
	Major, Minor            int64
	ReadBytes, WrittenBytes int64
	Reads, Writes           int64
}

// Stats reads what the group has used. A file that should be there and cannot be read is an error, not a zero.
func (g *Group) Stats() (Stats, error) {
	r := &reader{buf: make([]byte, 8192)}
	var s Stats
	if d, ok := g.dir("memory"); ok {
		s.Memory.Known = true
		if d.v2 {
			r.memory(g, d, &s.Memory)
		} else {
			r.legacyMemory(d, &s.Memory)
		}
		if !r.acts(d, "memory") {
			s.Memory = MemoryStats{}
		}
	}
	r.cpu(g, &s.CPU)
	if d, ok := g.dir("pids"); ok {
		s.PIDs = r.pids(d)
	}
	if d, ok := g.dir("io"); ok {
		s.IO = r.io(d)
		r.acts(d, "io")
	} else if d, ok := g.dir("blkio"); ok {
		s.IO = r.legacyIO(d, legacyBytes, legacyCounts)
	}
	if r.err != nil {
		return Stats{}, r.err
	}
	return s, nil
}

// acts reports whether the controller acts in the group. It looks only if one of its files was not there, which is no error then: a group of
// version 2 has those controllers that the groups above have passed on, and a user's own systemd is given a few.
func (r *reader) acts(d *dir, controller string) bool {
	if !d.v2 || !errors.Is(r.err, syscall.ENOENT) {
		return true
	}
	lack, err := d.lacking("cgroup.controllers", []string{controller})
	if err != nil || len(lack) == 0 {
		return true
	}
	r.err = nil
	return false
}

func (r *reader) pids(d *dir) PIDStats {
	s := PIDStats{Known: true, Current: r.number(d, "pids.current"), Peak: r.optional(d, "pids.peak"), Refused: Unknown}
	if b := r.maybe(d, "pids.events"); b != nil {
		s.Refused, _ = fieldBytes(b, "max")
	}
	if !r.acts(d, "pids") {
		return PIDStats{}
	}
	return s
}

// total reads what a Result has room for, and leaves out the files for which the kernel has to add up much.
func (g *Group) total() (s Stats, err error) {
	r := &reader{buf: make([]byte, 4096)}
	if d, ok := g.dir("memory"); ok && d.v2 {
		s.Memory.Peak = r.optional(d, "memory.peak")
		r.keys(d, "memory.events", key{"oom_kill", &s.Memory.Kills})
		r.acts(d, "memory")
	} else if ok {
		s.Memory.Peak = r.number(d, "memory.max_usage_in_bytes")
		r.keys(d, "memory.oom_control", key{"oom_kill", &s.Memory.Kills})
	}
	if d := g.v2(); d != nil {
		s.CPU.Usage = micros(r.file(d, "cpu.stat"), "usage_usec")
	} else if d, ok := g.dir("cpuacct"); ok {
		s.CPU.Usage = time.Duration(r.number(d, "cpuacct.usage"))
	}
	if d, ok := g.dir("pids"); ok {
		s.PIDs.Peak = r.optional(d, "pids.peak")
	}
	if d, ok := g.dir("io"); ok {
		s.IO = r.io(d)
		r.acts(d, "io")
	} else if d, ok := g.dir("blkio"); ok {
		s.IO = r.legacyIO(d, legacyBytes)
	}
	return s, r.err
}

// reader reads files until one fails.
type reader struct {
	buf []byte
	err error
}

func (r *reader) file(d *dir, name string) []byte {
	if r.err != nil {
		return nil
	}
	b, err := d.read(name, r.buf)
	r.err = err
	return b
}

// maybe reads a file that not every kernel has: nil where it is not there. The group itself must be, so some other file is read before or after.
func (r *reader) maybe(d *dir, name string) []byte {
	if r.err != nil {
		return nil
	}
	b, err := d.kernel.readFile(d.fd(), name, r.buf)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		r.err = d.failed("read", name, "", err)
	}
	if err != nil {
		return nil
	}
	return b
}

func (r *reader) number(d *dir, name string) int64 {
	b := r.file(d, name)
	if r.err != nil {
		return 0
	}
	return r.parse(d, name, b)
}

func (r *reader) parse(d *dir, name string, b []byte) int64 {
	n, ok := parseInt(b)
	if !ok {
		r.err = d.failed("read", name, string(b), syscall.EBADMSG)
	}
	return n
}

func (r *reader) optional(d *dir, name string) int64 {
	b := r.maybe(d, name)
	if b == nil {
		return Unknown
	}
	return r.parse(d, name, b)
}

// keys reads numbers by their keys from a file: Unknown where the key is not there.
func (r *reader) keys(d *dir, name string, want ...key) {
	r.find(r.file(d, name), want)
}

func (r *reader) find(b []byte, want []key) {
	for _, k := range want {
		n, ok := fieldBytes(b, k.name)
		if !ok {
			n = Unknown
		}
		*k.to = n
	}
}

type key struct {
	name string
	to   *int64
}

func (r *reader) memory(g *Group, d *dir, m *MemoryStats) {
	m.Current = r.number(d, "memory.current")
	m.Peak = r.peak(g, d)
	m.Swap = r.optional(d, "memory.swap.current")
	r.keys(d, "memory.stat", key{"anon", &m.Anon}, key{"file", &m.File}, key{"shmem", &m.Shmem}, key{"kernel", &m.Kernel},
		key{"pgfault", &m.Faults}, key{"pgmajfault", &m.MajorFaults})
	r.keys(d, "memory.events", key{"high", &m.High}, key{"max", &m.Max}, key{"oom_kill", &m.Kills})
}

// peak reads memory.peak, by the descriptor by which it was reset if it was.
func (r *reader) peak(g *Group, d *dir) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.peak == nil {
		return r.optional(d, "memory.peak")
	}
	if r.err != nil {
		return 0
	}
	b, err := readAll(int(g.peak.Fd()), r.buf)
	if err != nil {
		r.err = d.failed("read", "memory.peak", "", err)
		return 0
	}
	return r.parse(d, "memory.peak", b)
}

func (r *reader) legacyMemory(d *dir, m *MemoryStats) {
	m.Kernel, m.High = Unknown, Unknown
	m.Current = r.number(d, "memory.usage_in_bytes")
	m.Peak = r.number(d, "memory.max_usage_in_bytes")
	m.Max = r.number(d, "memory.failcnt")
	r.keys(d, "memory.stat", key{"total_rss", &m.Anon}, key{"total_cache", &m.File}, key{"total_shmem", &m.Shmem}, key{"total_swap", &m.Swap},
		key{"total_pgfault", &m.Faults}, key{"total_pgmajfault", &m.MajorFaults})
	r.keys(d, "memory.oom_control", key{"oom_kill", &m.Kills}) // Linux 4.13
}

// cpu reads CPU time from the hierarchy of version 2, which has it with no controller too, else from that of cpuacct.
func (r *reader) cpu(g *Group, c *CPUStats) {
	d := g.v2()
	if d != nil {
		c.Known = true
		b := r.file(d, "cpu.stat")
		c.Usage, c.User, c.System = micros(b, "usage_usec"), micros(b, "user_usec"), micros(b, "system_usec")
		if d.has("cpu") {
			c.throttled(b, "throttled_usec", time.Microsecond)
		}
	} else if old, ok := g.dir("cpuacct"); ok {
		c.Known = true
		c.Usage = time.Duration(r.number(old, "cpuacct.usage"))
		b := r.file(old, "cpuacct.stat")
		c.User, c.System = ticks(b, "user"), ticks(b, "system")
	}
	if old, ok := g.dir("cpu"); ok && !old.v2 {
		c.throttled(r.file(old, "cpu.stat"), "throttled_time", time.Nanosecond)
	}
}

func (c *CPUStats) throttled(b []byte, key string, unit time.Duration) {
	c.Periods, _ = fieldBytes(b, "nr_periods")
	c.Throttled, _ = fieldBytes(b, "nr_throttled")
	n, _ := fieldBytes(b, key)
	c.ThrottledTime = time.Duration(n) * unit
}

func micros(b []byte, key string) time.Duration {
	n, _ := fieldBytes(b, key)
	return time.Duration(n) * time.Microsecond
}

// ticks reads times in USER_HZ, which is 100 on all that Go runs on.
func ticks(b []byte, key string) time.Duration {
	n, _ := fieldBytes(b, key)
	return time.Duration(n) * 10 * time.Millisecond
}
