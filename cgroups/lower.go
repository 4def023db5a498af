//go:build linux

package cgroups

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// setting is one write to one file.
type setting struct {
	field, controller string
	file, value       string
	alt, altValue     string // the file where this one does not exist, and what is written there: value, if empty
}

// setting's text as a step of a plan.
func (s setting) String() string {
	return fmt.Sprintf("write %q > %s", s.value, s.file)
}

// settings lowers the limits to writes, for a controller of version 2 or 1 as has tells.
type lowering struct {
	*Limits
	v2  func(controller string) bool
	all []setting
	err error
}

// lower validates the limits and gives the writes that set them, in their order.
func (l *Limits) lower(at layout) ([]setting, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	w := &lowering{Limits: l, v2: func(c string) bool { return at.isV2(c) }}
	w.numbers()
	w.cpu()
	w.cpuset()
	w.io()
	w.others()
	w.net()
	w.files()
	return w.all, w.err
}

// isV2 reports whether a controller acts through the hierarchy of version 2. One that is nowhere does so if there is no
// version 1 at all.
func (l layout) isV2(controller string) bool {
	h := l.find(controller)
	if h == nil && legacyName(controller) != controller {
		h = l.find(legacyName(controller))
	}
	if h == nil {
		return len(l) == 1 && l[0].v2
	}
	return h.v2
}

func legacyName(controller string) string {
	if controller == "io" {
		return "blkio"
	}
	return controller
}

func (w *lowering) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// set appends a write. An empty file says that the version has no such limit.
func (w *lowering) set(field, controller, file, value, alt string) {
	v2 := w.v2(controller)
	if file == "" {
		w.fail(inexpressible(field, controller, v2))
		return
	}
	if !v2 {
		controller = legacyName(controller)
	}
	w.all = append(w.all, setting{field: field, controller: controller, file: file, value: value, alt: alt})
}

// instead says what is written to the last write's other file, if there is one.
func (w *lowering) instead(alt, value string) {
	if alt != "" {
		w.all[len(w.all)-1].altValue = value
	}
}

func (w *lowering) numbers() {
	for i := range table {
		r := &table[i]
		n := *r.at(w.Limits)
		if n == 0 {
			continue
		}
		controller, _, _ := strings.Cut(cmp.Or(r.file, r.legacy), ".")
		switch {
		case r.field == "Swap" && !w.v2(controller):
			w.memorySwap()
		case w.v2(controller):
			w.set(r.field, controller, r.file, r.code.value(n), alternative(controller, r.alt))
			w.instead(r.alt, strconv.FormatInt(bfqWeight(n), 10))
		default:
			w.set(r.field, controller, r.legacy, r.old.value(n), alternative("blkio", r.alt))
		}
	}
}

func (c code) value(n int64) string {
	if c.write == nil {
		return ""
	}
	return c.write(n)
}

func alternative(controller, name string) string {
	if name == "" {
		return ""
	}
	return controller + "." + name
}

// memorySwap is version 1's limit of memory and swap together.
func (w *lowering) memorySwap() {
	sum := int64(NoLimit)
	switch {
	case w.Memory == 0:
		w.fail(&LimitError{"Swap", number(w.Swap, "max"), "on version 1 of control groups it needs Memory, whose sum with it is limited"})
		return
	case w.Swap == None:
		sum = w.Memory
	case w.Swap < NoLimit-w.Memory:
		sum = w.Memory + w.Swap
	}
	w.set("Swap", "memory", "memory.memsw.limit_in_bytes", number(sum, "-1"), "")
}

const period = 100 * time.Millisecond

func (w *lowering) cpu() {
	v2 := w.v2("cpu")
	if quota, per := w.quota(); quota != 0 {
		us := strconv.FormatInt(per.Microseconds(), 10)
		if v2 {
			w.set("CPUs", "cpu", "cpu.max", number(quota, "max")+" "+us, "")
		} else {
			w.set("CPUs", "cpu", "cpu.cfs_period_us", us, "")
			w.set("CPUs", "cpu", "cpu.cfs_quota_us", number(quota, "-1"), "")
		}
	}
	if w.CPUBurst != 0 {
		w.set("CPUBurst", "cpu", either(v2, "cpu.max.burst", "cpu.cfs_burst_us"), strconv.FormatInt(w.CPUBurst.Microseconds(), 10), "")
	}
	for _, c := range []struct {
		field, file string
		percent     float64
	}{{"ClampMin", "cpu.uclamp.min", w.ClampMin}, {"ClampMax", "cpu.uclamp.max", w.ClampMax}} {
		if c.percent != 0 {
			w.set(c.field, "cpu", c.file, strconv.FormatFloat(c.percent, 'f', 2, 64), "")
		}
	}
}

func either(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// quota gives the microseconds of CPU time in each period; 0 leaves them alone.
func (l *Limits) quota() (quota int64, per time.Duration) {
	per = cmp.Or(l.CPUPeriod, period)
	switch {
	case l.CPUQuota == NoLimit, l.CPUs >= NoLimit:
		return NoLimit, per
	case l.CPUQuota != 0:
		return l.CPUQuota.Microseconds(), per
	}
	return int64(math.Round(l.CPUs * float64(per.Microseconds()))), per
}

func (w *lowering) cpuset() {
	if w.CPUSet != "" {
		w.set("CPUSet", "cpuset", "cpuset.cpus", w.CPUSet, "")
	}
	if w.MemoryNodes != "" {
		w.set("MemoryNodes", "cpuset", "cpuset.mems", w.MemoryNodes, "")
	}
	if w.Partition != "" {
		w.set("Partition", "cpuset", either(w.v2("cpuset"), "cpuset.cpus.partition", ""), w.Partition, "")
	}
}

func (w *lowering) io() {
	v2 := w.v2("io")
	for _, io := range w.IO {
		dev, err := deviceNumber(io.Device)
		if err != nil {
			w.fail(err)
			return
		}
		w.throttle(io, dev, v2)
		if io.Weight != 0 {
			weight := io.Weight
			if !v2 {
				weight = oldWeight(weight)
			}
			w.set("IO", "io", either(v2, "io.weight", "blkio.weight_device"), dev+" "+strconv.FormatInt(weight, 10),
				either(v2, "io.bfq.weight", "blkio.bfq.weight_device"))
			if v2 {
				w.instead("bfq.weight", dev+" "+strconv.FormatInt(bfqWeight(weight), 10))
			}
		}
		if io.Latency != 0 {
			w.set("IO", "io", either(v2, "io.latency", ""), dev+" target="+strconv.FormatInt(io.Latency.Microseconds(), 10), "")
		}
	}
}

func (w *lowering) throttle(io IO, dev string, v2 bool) {
	text := dev
	for _, t := range []struct {
		key, legacy string
		n           int64
	}{{"rbps", "read_bps", io.ReadBPS}, {"wbps", "write_bps", io.WriteBPS}, {"riops", "read_iops", io.ReadIOPS}, {"wiops", "write_iops", io.WriteIOPS}} {
		switch {
		case t.n == 0:
		case v2:
			text += " " + t.key + "=" + number(t.n, "max")
		default:
			w.set("IO", "io", "blkio.throttle."+t.legacy+"_device", dev+" "+number(t.n, "0"), "")
		}
	}
	if text != dev {
		w.set("IO", "io", "io.max", text, "")
	}
}

func (w *lowering) others() {
	for _, h := range w.HugePages {
		v2 := w.v2("hugetlb")
		w.set("HugePages", "hugetlb", "hugetlb."+h.Size+either(v2, ".max", ".limit_in_bytes"), number(h.Bytes, either(v2, "max", "-1")), "")
	}
	for _, r := range w.RDMA {
		text := r.Device
		if r.Handles != 0 {
			text += " hca_handle=" + number(r.Handles, "max")
		}
		if r.Objects != 0 {
			text += " hca_object=" + number(r.Objects, "max")
		}
		w.set("RDMA", "rdma", "rdma.max", text, "")
	}
	for _, m := range w.Misc {
		w.set("Misc", "misc", "misc.max", m.Name+" "+number(m.Max, "max"), "")
	}
	for _, d := range w.DMem {
		for _, f := range []struct {
			file string
			n    int64
		}{{"dmem.max", d.Max}, {"dmem.min", d.Min}, {"dmem.low", d.Low}} {
			if f.n != 0 {
				w.set("DMem", "dmem", f.file, d.Region+" "+number(f.n, "max"), "")
			}
		}
	}
}

func (w *lowering) net() {
	if w.NetClass != 0 {
		w.set("NetClass", "net_cls", either(w.v2("net_cls"), "", "net_cls.classid"), strconv.FormatUint(uint64(w.NetClass), 10), "")
	}
	for _, n := range w.NetPriority {
		w.set("NetPriority", "net_prio", either(w.v2("net_prio"), "", "net_prio.ifpriomap"),
			n.Interface+" "+strconv.FormatUint(uint64(n.Priority), 10), "")
	}
}

func (w *lowering) files() {
	for _, f := range w.Files {
		controller, _, _ := strings.Cut(f.Name, ".")
		w.all = append(w.all, setting{field: "Files", controller: controller, file: f.Name, value: f.Value})
	}
}
