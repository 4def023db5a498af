//go:build linux

package cgroups

import (
	"math"
	"time"
)

// Sizes in bytes, and the extremes of a limit.
const (
	KiB = 1 << 10
	MiB = 1 << 20
	GiB = 1 << 30
	TiB = 1 << 40

	NoLimit = math.MaxInt64 // takes a limit away; zero leaves it as it is
	None    = math.MinInt64 // the limit 0, for example of Swap
)

// Switch turns something on or off. The zero value leaves it alone.
type Switch int64

// The positions of a Switch.
const (
	On Switch = iota + 1
	Off
)

// Limits is the part of a sandbox that puts it into a control group of its own, with limits, and with accounts that the
// command's Result is filled from. The group is made for each start and removed, with all that still runs in it, when
// the command has ended. It is also what [Group.Set] sets and [Group.Limits] reads back.
//
// The zero value of each field leaves the kernel's own value alone; of Limits{} as a whole only the group is left. The name of
// each field's file is that of version 2; on version 1 what means the same is set, and what has no counterpart there is an error for
// errors.ErrUnsupported.
//
// Making a group needs root or a delegated group: see [Limits.Parent].
type Limits struct {
	// Parent is the group below which the group is made: a path from the mount point of the hierarchies, "/batch/jobs".
	// It must exist. "" is the caller's own group ([Own]). Below names it as an open group instead, which must stay open until
	// the last start.
	Parent string
	Below  *Group
	Name   string // of the group; "" is a fresh one, "caisson-" and a random number

	Memory     int64  // memory.max: bytes; at more, and nothing to reclaim, processes inside are killed
	MemoryHigh int64  // memory.high: bytes; at more, processes inside are slowed down and reclaimed from. Not in version 1
	MemoryLow  int64  // memory.low: bytes that are reclaimed last; in version 1 memory.soft_limit_in_bytes, as --memory-reservation
	MemoryMin  int64  // memory.min: bytes that are never reclaimed. Not in version 1
	Swap       int64  // memory.swap.max: bytes of swap, beside Memory; None forbids it. Version 1 limits the sum and wants Memory too
	OOMGroup   Switch // memory.oom.group: kill all processes inside, or one (Linux 4.19). Not in version 1
	OOMKill    Switch // Off: processes wait for memory instead of being killed. Only in version 1

	CPUs      float64       // cpu.max: processors' worth of time, 1.5 for one and a half; at least 0.01
	CPUQuota  time.Duration // cpu.max: CPU time in each CPUPeriod, which must be given too; instead of CPUs
	CPUPeriod time.Duration // cpu.max: 1 ms to 1 s; 0 is 100 ms
	CPUBurst  time.Duration // cpu.max.burst: unused time that may be saved up, at most the quota (Linux 5.14)
	CPUWeight int64         // cpu.weight: 1 to 10000, 100 is normal; in version 1 turned into shares
	CPUShares int64         // version 1's cpu.shares: 2 to 262144, 1024 is normal; in version 2 turned into a weight. Instead of CPUWeight
	CPUIdle   Switch        // cpu.idle: runs only when nothing else wants to (Linux 5.15)
	ClampMin  float64       // cpu.uclamp.min: percent of the fastest speed that is asked for at least (Linux 5.4)
	ClampMax  float64       // cpu.uclamp.max: percent that is asked for at most (Linux 5.4)

	CPUSet      string // cpuset.cpus: which processors, "0-3,6"
	MemoryNodes string // cpuset.mems: which memory nodes, "0,1"
	Partition   string // cpuset.cpus.partition: "root", "isolated", "member" (Linux 5.0). Not in version 1

	PIDs int64 // pids.max: processes and threads at once

	// Descendants and Depth bound what somebody makes to whom the group was given, by [Group.Delegate] or as the root of a cgroup namespace: without
	// them as many groups as there is kernel memory for, which the caller then has to remove. None forbids groups below. Not in version 1, and so
	// not on a host that has both.
	Descendants int64 // cgroup.max.descendants: groups below it, on all levels
	Depth       int64 // cgroup.max.depth: levels of groups below it

	IOWeight int64 // io.weight: 1 to 10000, 100 is normal
	IO       []IO  // io.max and the like, for each device. In version 1 what is read and written is counted only if IO is not nil

	HugePages []HugePages
	RDMA      []RDMA
	Misc      []Misc
	DMem      []DMem

	// Devices are the devices that may be used: all others are refused. Nil leaves all as they are; an empty list refuses
	// every device. Later rules go before earlier ones. Version 2 needs CAP_BPF and CAP_NET_ADMIN, or root.
	Devices []Device

	NetClass    uint32        // net_cls.classid, for tc(8). Only in version 1
	NetPriority []NetPriority // net_prio.ifpriomap. Only in version 1

	// Files are written last and as they are, for what has no field: File{"memory.swappiness", "10"}. They are not
	// translated: the name must be that of the version that is there.
	Files []File
}

// IO limits what is done to one block device. Zero fields are left alone.
type IO struct {
	Device string // a path, "/dev/sda", or numbers, "8:0": the whole disk, not a partition

	ReadBPS, WriteBPS   int64 // io.max rbps, wbps: bytes in a second
	ReadIOPS, WriteIOPS int64 // io.max riops, wiops: operations in a second

	Weight  int64         // io.weight: 1 to 10000, for this device
	Latency time.Duration // io.latency: the target; others are slowed down to reach it. Not in version 1
}

// HugePages limits huge pages of one size: hugetlb.SIZE.max.
type HugePages struct {
	Size  string // as the kernel writes it: "2MB", "1GB"
	Bytes int64
}

// RDMA limits what is used of one device: rdma.max (Linux 4.11). Zero fields are left alone.
type RDMA struct {
	Device           string // "mlx5_0"
	Handles, Objects int64  // hca_handle, hca_object
}

// Misc limits another countable resource: misc.max (Linux 5.13).
type Misc struct {
	Name string // "sev"
	Max  int64
}

// DMem limits the memory of a device: dmem.max, dmem.min, dmem.low (Linux 6.14). Zero fields are left alone.
type DMem struct {
	Region        string // "drm/0000:03:00.0/vram0"
	Max, Min, Low int64  // bytes
}

// NetPriority is the priority of what is sent by one interface.
type NetPriority struct {
	Interface string
	Priority  uint32
}

// File is a file of the group, and what is written to it.
type File struct{ Name, Value string }
