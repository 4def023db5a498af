//go:build linux

package cgroups

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// check says what makes no sense, whatever the version.
func (l *Limits) check() error {
	for _, f := range []func() error{l.checkNumbers, l.checkCPU, l.checkSets, l.checkIO, l.checkOthers, l.checkFiles} {
		if err := f(); err != nil {
			return err
		}
	}
	if l.Name != "" {
		return checkName(l.Name)
	}
	return nil
}

func (l *Limits) checkNumbers() error {
	for i := range table {
		if err := table[i].check(*table[i].at(l)); err != nil {
			return err
		}
	}
	if l.CPUWeight != 0 && l.CPUShares != 0 {
		return &LimitError{"CPUShares", strconv.FormatInt(l.CPUShares, 10), "CPUWeight says the same thing"}
	}
	return nil
}

func (l *Limits) checkCPU() error {
	cpus := strconv.FormatFloat(l.CPUs, 'g', -1, 64)
	switch quota, per := l.quota(); {
	case math.IsNaN(l.CPUs) || l.CPUs < 0:
		return &LimitError{"CPUs", cpus, "is no number of processors"}
	case l.CPUs > 1<<20 && l.CPUs < NoLimit || math.IsInf(l.CPUs, 1):
		return &LimitError{"CPUs", cpus, "is more than any machine has; NoLimit takes the limit away"}
	case l.CPUs != 0 && l.CPUQuota != 0:
		return &LimitError{"CPUQuota", l.CPUQuota.String(), "CPUs says the same thing"}
	case l.CPUQuota != 0 && l.CPUQuota != NoLimit && l.CPUPeriod == 0:
		return &LimitError{"CPUQuota", l.CPUQuota.String(), "needs CPUPeriod"}
	case l.CPUPeriod != 0 && (per < time.Millisecond || per > time.Second || per%time.Microsecond != 0):
		return &LimitError{"CPUPeriod", per.String(), "is not between 1 ms and 1 s in whole microseconds"}
	case l.CPUPeriod != 0 && quota == 0:
		return &LimitError{"CPUPeriod", per.String(), "needs CPUs or CPUQuota"}
	case quota != 0 && quota < 1000 || l.CPUs != 0 && quota == 0:
		return &LimitError{"CPUs", fmt.Sprintf("%v in %v", time.Duration(quota)*time.Microsecond, per), "is less than 1 ms in a period"}
	case l.CPUBurst < 0 || l.CPUBurst%time.Microsecond != 0:
		return &LimitError{"CPUBurst", l.CPUBurst.String(), "is no positive number of microseconds"}
	}
	for _, p := range []float64{l.ClampMin, l.ClampMax} {
		if !(p >= 0 && p <= 100) {
			return &LimitError{"ClampMin or ClampMax", strconv.FormatFloat(p, 'g', -1, 64), "is not between 0 and 100"}
		}
	}
	return nil
}

func (l *Limits) checkSets() error {
	for _, s := range [][2]string{{"CPUSet", l.CPUSet}, {"MemoryNodes", l.MemoryNodes}} {
		if s[1] != "" && !isList(s[1]) {
			return &LimitError{s[0], s[1], "is no list of numbers and ranges as 0-3,6"}
		}
	}
	switch l.Partition {
	case "", "root", "isolated", "member":
		return nil
	}
	return &LimitError{"Partition", l.Partition, "is none of root, isolated and member"}
}

// isList reports whether s is a list of numbers and ascending ranges (cpuset(7), List format).
func isList(s string) bool {
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(first, 10, 16)
		if err != nil || first[0] == '+' {
			return false
		}
		if !isRange {
			continue
		}
		if b, err := strconv.ParseUint(last, 10, 16); err != nil || b < a || last[0] == '+' {
			return false
		}
	}
	return true
}

func (l *Limits) checkIO() error {
	for _, io := range l.IO {
		if _, err := deviceNumber(io.Device); err != nil {
			return err
		}
		for _, n := range []int64{io.ReadBPS, io.WriteBPS, io.ReadIOPS, io.WriteIOPS, int64(io.Latency)} {
			if n < 0 {
				return &LimitError{"IO", strconv.FormatInt(n, 10), "is negative"}
			}
		}
		if io.Weight < 0 || io.Weight > 10000 {
			return &LimitError{"IO", strconv.FormatInt(io.Weight, 10), "a weight is between 1 and 10000"}
		}
	}
	return nil
}

func (l *Limits) checkOthers() error {
	type one struct {
		field, name string
		n           []int64
	}
	var all []one
	for _, h := range l.HugePages {
		all = append(all, one{"HugePages", h.Size, []int64{h.Bytes}})
	}
	for _, r := range l.RDMA {
		all = append(all, one{"RDMA", r.Device, []int64{r.Handles, r.Objects}})
	}
	for _, m := range l.Misc {
		all = append(all, one{"Misc", m.Name, []int64{m.Max}})
	}
	for _, d := range l.DMem {
		all = append(all, one{"DMem", d.Region, []int64{d.Max, d.Min, d.Low}})
	}
	for _, p := range l.NetPriority {
		all = append(all, one{"NetPriority", p.Interface, []int64{1}})
	}
	for _, o := range all {
		if !word(o.name, "._-:/") || o.field == "HugePages" && !word(o.name, "") {
			return &LimitError{o.field, o.name, "is no name"}
		}
		set := false
		for _, n := range o.n {
			set = set || n != 0
			if n < 0 && n != None {
				return &LimitError{o.field, strconv.FormatInt(n, 10), "is negative"}
			}
		}
		if !set {
			return &LimitError{o.field, o.name, "has no limit"}
		}
	}
	return checkDevices(l.Devices)
}

// word reports whether s is letters, digits and the other characters.
func word(s, others string) bool {
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return s != ""
}

// checkFiles refuses what is no limit. release_agent would have the kernel execute a program of the host (CVE-2022-0492); the other
// files move processes or give rights away, for which a Group has methods.
func (l *Limits) checkFiles() error {
	for _, f := range l.Files {
		controller, name, _ := strings.Cut(f.Name, ".")
		bad := !word(controller, "_") || !word(name, "._-") || strings.Contains(f.Name, "..")
		if controller == "cgroup" {
			bad = bad || name != "max.depth" && name != "max.descendants" && name != "pressure"
		}
		if bad {
			return &LimitError{"Files", f.Name, "is no file of a limit"}
		}
		if f.Value == "" || strings.ContainsAny(f.Value, "\x00") {
			return &LimitError{"Files", f.Name, "has no value, or one with a NUL byte"}
		}
	}
	return nil
}

// checkName says whether the name can be that of one group.
func checkName(name string) error {
	reason := ""
	switch {
	case name == "" || name == "." || name == "..":
		reason = "is no name"
	case strings.ContainsAny(name, "/\x00\n"):
		reason = "has a slash, a NUL byte or a line break"
	case len(name) > unix.NAME_MAX:
		reason = "is longer than 255 bytes"
	case strings.HasPrefix(name, "cgroup."):
		reason = "begins as the kernel's own files do"
	default:
		return nil
	}
	return &NameError{name, reason}
}

// checkPath says whether the path can be that of a group below a mount point.
func checkPath(p string) error {
	if !strings.HasPrefix(p, "/") {
		return &NameError{p, "does not begin with a slash"}
	}
	if p == "/" {
		return nil
	}
	for name := range strings.SplitSeq(p[1:], "/") {
		if err := checkName(name); err != nil {
			return &NameError{p, err.(*NameError).Reason}
		}
	}
	return nil
}

// deviceNumber gives "8:0" for itself and for the path of a block device.
func deviceNumber(device string) (string, error) {
	if major, minor, ok := strings.Cut(device, ":"); ok && !strings.Contains(device, "/") {
		for _, s := range []string{major, minor} {
			if n, err := strconv.ParseUint(s, 10, 32); err != nil || strconv.FormatUint(n, 10) != s {
				return "", &LimitError{"IO", device, "is no device number as 8:0"}
			}
		}
		return device, nil
	}
	if !strings.HasPrefix(device, "/") {
		return "", &LimitError{"IO", device, "is neither an absolute path nor a device number"}
	}
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: device, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", &LimitError{"IO", device, "is no block device"}
	}
	return fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))), nil
}
