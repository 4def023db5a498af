//go:build linux

package cgroups

import (
	"errors"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

// property and auxiliary are what StartTransientUnit takes: a(sv) and a(sa(sv)).
type property struct {
	Name  string
	Value dbus.Variant
}

type auxiliary struct {
	Name       string
	Properties []property
}

// perDevice is an element of a property about devices: (st).
type perDevice struct {
	Path   string
	Number uint64
}

// systemdOwn are the controllers that systemd turns on and off. A group that it has not given away has one only as long as a property needs it.
var systemdOwn = []string{"cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids"}

// properties gives what systemd is told of the limits, and refuses what it would not let stand. What it has no property for, it does not write
// either; memory.oom.group it does, by a policy for services.
func (l *Limits) properties(at layout, known state, given func(controller string) bool) (all []property, err error) {
	writes, err := l.lower(at)
	if err != nil {
		return nil, err
	}
	if l.Devices != nil && at.find("devices") != nil {
		return nil, notForUnit("Devices", "devices", "devices.allow", "systemd allows all devices again when it reads its units anew")
	}
	for _, w := range writes {
		own := slices.Contains(systemdOwn, w.controller)
		told := l.property(w, at.isV2(w.controller))
		switch {
		case w.controller != "cgroup" && at.find(w.controller) == nil:
			return nil, missing("set", w.field, w.controller, "", "the kernel does not have the controller, or it is not mounted")
		case own && w.field == "Files":
			return nil, notForUnit(w.field, w.controller, w.file, "systemd may write the file, too")
		case w.file == "memory.oom.group":
			return nil, notForUnit(w.field, w.controller, w.file, "systemd writes the file as its OOMPolicy says")
		case len(told) > 0 && known.knows(told):
			all = append(all, told...)
		case len(told) > 1 && known.knows(told[:1]):
			return nil, notForUnit(w.field, w.controller, w.file, "this systemd writes the file, and has no property "+told[1].Name)
		case own && !given(w.controller):
			return nil, notForUnit(w.field, w.controller, w.file, "systemd has no property for it, and takes the controller away when no property needs it")
		}
	}
	return all, nil
}

func notForUnit(field, controller, file, why string) error {
	return &Error{Op: "set " + field + " of a unit of systemd", Controller: controller, File: file, Err: &reason{why, errors.ErrUnsupported},
		Hint: "give the limit to a group below the unit"}
}

// numberProperties are those of the limits that are one number.
var numberProperties = map[string]string{
	"memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin", "memory.swap.max": "MemorySwapMax",
	"pids.max": "TasksMax", "cpu.weight": "CPUWeight", "io.weight": "IOWeight",
	"memory.limit_in_bytes": "MemoryLimit", "cpu.shares": "CPUShares", "blkio.weight": "BlockIOWeight",
}

// deviceProperties are those that are a number for each device, by the file and the key in it.
var deviceProperties = map[string]string{
	"io.max rbps": "IOReadBandwidthMax", "io.max wbps": "IOWriteBandwidthMax", "io.max riops": "IOReadIOPSMax", "io.max wiops": "IOWriteIOPSMax",
	"io.weight": "IODeviceWeight", "io.latency target": "IODeviceLatencyTargetUSec",
	"blkio.weight_device": "BlockIODeviceWeight", "blkio.throttle.read_bps_device": "BlockIOReadBandwidth", "blkio.throttle.write_bps_device": "BlockIOWriteBandwidth",
}

// property gives the properties that stand for one write: none where systemd has none. Where it has some it writes the file.
func (l *Limits) property(w setting, v2 bool) []property {
	value, name := strings.TrimPrefix(w.value, "default "), numberProperties[w.file]
	switch {
	case w.file == "cpu.max" || w.file == "cpu.cfs_quota_us":
		return l.quotaProperties()
	case w.file == "cpu.cfs_period_us":
		return l.quotaProperties()[1:]
	case w.file == "cpu.idle" && v2:
		return l.idleProperty()
	case w.file == "cpu.weight" && l.CPUIdle == On: // one property for both
		return l.idleProperty()
	case w.file == "cpuset.cpus" && v2:
		return []property{{"AllowedCPUs", dbus.MakeVariant(bitmap(value))}}
	case w.file == "cpuset.mems" && v2:
		return []property{{"AllowedMemoryNodes", dbus.MakeVariant(bitmap(value))}}
	case strings.Contains(value, " "):
		return deviceProperty(w.file, value)
	case name != "":
		return []property{{name, dbus.MakeVariant(unsigned(value))}}
	}
	return nil
}

// quotaProperties gives a quota in a second and the period. Systemd multiplies and cuts off: what is rounded up here comes out as it was.
func (l *Limits) quotaProperties() []property {
	quota, per := l.quota()
	us := uint64(per.Microseconds())
	second := uint64(math.MaxUint64)
	if quota != NoLimit {
		second = inSecond(uint64(quota), us)
	}
	return []property{{"CPUQuotaPerSecUSec", dbus.MakeVariant(second)}, {"CPUQuotaPeriodUSec", dbus.MakeVariant(us)}}
}

// inSecond is quota * 1000000 / period, rounded up. What does not fit, a kernel will refuse; it must not become the number that means no limit.
func inSecond(quota, period uint64) uint64 {
	high, low := bits.Mul64(quota, 1000000)
	low, carry := bits.Add64(low, period-1, 0)
	if high += carry; high >= period {
		return math.MaxUint64 - 1
	}
	quotient, _ := bits.Div64(high, low, period)
	return min(quotient, math.MaxUint64-1)
}

// idleProperty: to systemd, a weight of 0 is idle, and any other is not.
func (l *Limits) idleProperty() []property {
	switch {
	case l.CPUIdle == On:
		return []property{{"CPUWeight", dbus.MakeVariant(uint64(0))}}
	case l.CPUWeight == 0 && l.CPUShares == 0:
		return []property{{"CPUWeight", dbus.MakeVariant(uint64(100))}}
	case l.CPUShares != 0:
		return []property{{"CPUWeight", dbus.MakeVariant(uint64(weightOf(l.CPUShares)))}}
	}
	return []property{{"CPUWeight", dbus.MakeVariant(uint64(l.CPUWeight))}}
}

// deviceProperty reads "8:0 200" and "8:0 rbps=1048576 wiops=max". Systemd looks a device up by a path, which need not be there if it has the numbers.
func deviceProperty(file, value string) (all []property) {
	words := strings.Fields(value)
	for _, w := range words[1:] {
		key, n, ok := strings.Cut(w, "=")
		if ok {
			key = file + " " + key
		} else {
			key, n = file, w
		}
		if name := deviceProperties[key]; name != "" {
			if n == "0" { // of version 1: no limit
				n = "max"
			}
			all = append(all, property{name, dbus.MakeVariant([]perDevice{{"/dev/block/" + words[0], unsigned(n)}})})
		}
	}
	return all
}

// unsigned reads a number that we have written.
func unsigned(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil { // max, or -1
		return math.MaxUint64
	}
	return n
}

// bitmap turns a list of numbers and ranges into bits, the least first.
func bitmap(list string) (set []byte) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		a, _ := strconv.Atoi(first)
		b, _ := strconv.Atoi(last)
		for n := a; n <= b; n++ {
			set = append(set, make([]byte, max(0, n/8+1-len(set)))...)
			set[n/8] |= 1 << (n % 8)
		}
	}
	return set
}
