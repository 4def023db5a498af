//go:build linux

package cgroups

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits reads the limits back, in the fields by which they would be set: NoLimit where there is none, zero where the controller does
// not act in the group or the kernel has no such file. CPUs stands for CPUQuota, and for CPUPeriod unless that is given. CPUShares is set on version 1, CPUWeight on
// version 2. HugePages, RDMA, Misc, DMem, Devices, NetPriority and Files are not read.
func (g *Group) Limits() (Limits, error) {
	r := &limitReader{Group: g}
	r.numbers()
	r.cpu()
	r.text("cpuset.cpus", &r.l.CPUSet)
	r.text("cpuset.mems", &r.l.MemoryNodes)
	r.text("cpuset.cpus.partition", &r.l.Partition)
	r.io()
	if s, ok := r.file("net_cls.classid"); ok {
		n, _ := strconv.ParseUint(s, 10, 32)
		r.l.NetClass = uint32(n)
	}
	if r.err != nil {
		return Limits{}, r.err
	}
	return r.l, nil
}

type limitReader struct {
	*Group
	l   Limits
	err error
}

// file reads a file of the group; false where it is not there.
func (r *limitReader) file(name string) (string, bool) {
	controller, _, _ := strings.Cut(name, ".")
	d, ok := r.dir(controller)
	if !ok || r.err != nil {
		return "", false
	}
	b, err := d.read(name, make([]byte, 256))
	if err != nil {
		if !errors.Is(err, syscall.ENOENT) {
			r.err = err
		}
		return "", false
	}
	return strings.TrimSpace(string(b)), true
}

func (r *limitReader) bad(name, text string) {
	if r.err == nil {
		r.err = r.dirs[0].failed("read", name, text, syscall.EBADMSG)
	}
}

func (r *limitReader) text(name string, to *string) {
	if s, ok := r.file(name); ok {
		*to = s
	}
}

func (r *limitReader) numbers() {
	for i := range table {
		row := &table[i]
		d, ok := r.dir(strings.Split(row.file+row.legacy, ".")[0])
		if !ok && row.file == "io.weight" {
			d, ok = r.dir("blkio")
		}
		if !ok {
			continue
		}
		name, c := row.file, row.code
		if !d.v2 {
			name, c = row.legacy, row.old
		}
		if name == "" || c.read == nil {
			continue
		}
		s, ok := r.file(name)
		if !ok && row.alt != "" {
			name = alternative(strings.Split(name, ".")[0], row.alt)
			if s, ok = r.file(name); ok && d.v2 {
				c = schedulers
			}
		}
		if !ok {
			continue
		}
		n, ok := c.read(s)
		if !ok {
			r.bad(name, s)
			return
		}
		*row.at(&r.l) = n
	}
	r.memorySwap()
}

// memorySwap turns version 1's limit of memory and swap into one of swap.
func (r *limitReader) memorySwap() {
	s, ok := r.file("memory.memsw.limit_in_bytes")
	if !ok {
		return
	}
	sum, ok := readNumber(s)
	switch {
	case !ok:
		r.bad("memory.memsw.limit_in_bytes", s)
	case sum == NoLimit || r.l.Memory == NoLimit:
		r.l.Swap = NoLimit
	case sum <= r.l.Memory:
		r.l.Swap = None
	default:
		r.l.Swap = sum - r.l.Memory
	}
}

func (r *limitReader) cpu() {
	if s, ok := r.file("cpu.max"); ok {
		quota, per, _ := strings.Cut(s, " ")
		r.quota(quota, per)
	} else if quota, ok := r.file("cpu.cfs_quota_us"); ok {
		per, _ := r.file("cpu.cfs_period_us")
		r.quota(quota, per)
	}
	for _, name := range []string{"cpu.max.burst", "cpu.cfs_burst_us"} {
		if s, ok := r.file(name); ok {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				r.bad(name, s)
			}
			r.l.CPUBurst = time.Duration(n) * time.Microsecond
		}
	}
	for _, c := range []struct {
		name string
		to   *float64
	}{{"cpu.uclamp.min", &r.l.ClampMin}, {"cpu.uclamp.max", &r.l.ClampMax}} {
		if s, ok := r.file(c.name); ok {
			f, err := strconv.ParseFloat(strings.Replace(s, "max", "100", 1), 64)
			if err != nil {
				r.bad(c.name, s)
			}
			*c.to = f
		}
	}
}

func (r *limitReader) quota(quota, per string) {
	p, err := strconv.ParseInt(per, 10, 64)
	q, ok := readNumber(quota)
	if err != nil || !ok || p <= 0 {
		r.bad("cpu.max", quota+" "+per)
		return
	}
	if q == NoLimit {
		r.l.CPUs = NoLimit
		return
	}
	r.l.CPUs = float64(q) / float64(p)
	if p := time.Duration(p) * time.Microsecond; p != period {
		r.l.CPUPeriod = p
	}
}

// limits of a device, by the keys of io.max and by the files of version 1.
func (i *IO) limit(key string) *int64 {
	switch key {
	case "rbps", "read_bps":
		return &i.ReadBPS
	case "wbps", "write_bps":
		return &i.WriteBPS
	case "riops", "read_iops":
		return &i.ReadIOPS
	case "wiops", "write_iops":
		return &i.WriteIOPS
	}
	return nil
}

func (r *limitReader) device(dev string) *IO {
	i := slices.IndexFunc(r.l.IO, func(io IO) bool { return io.Device == dev })
	if i < 0 {
		r.l.IO = append(r.l.IO, IO{Device: dev})
		i = len(r.l.IO) - 1
	}
	return &r.l.IO[i]
}

func (r *limitReader) io() {
	if s, ok := r.file("io.max"); ok {
		for line := range strings.Lines(s) {
			words := strings.Fields(line)
			for _, w := range words[min(1, len(words)):] {
				key, v, _ := strings.Cut(w, "=")
				if n, ok := readNumber(v); ok && n != NoLimit && new(IO).limit(key) != nil {
					*r.device(words[0]).limit(key) = n
				}
			}
		}
	}
	for _, key := range []string{"read_bps", "write_bps", "read_iops", "write_iops"} {
		s, _ := r.file("blkio.throttle." + key + "_device")
		for line := range strings.Lines(s) {
			words := strings.Fields(line)
			if len(words) == 2 {
				if n, ok := readNumber(words[1]); ok {
					*r.device(words[0]).limit(key) = n
				}
			}
		}
	}
}
