//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caisson-dev/caisson/cgroups"
	"github.com/caisson-dev/caisson/plan"
)

// resources is what the command line says about the control group.
type resources struct {
	cgroups.Limits
	limited    bool  // some flag needs a group
	memorySwap int64 // memory and swap together; 0 is as much swap as memory
	rules      []cgroups.Device
}

// defineLimits gives the flags of the control group their names.
func (f *flags) defineLimits(def func(set func(string) error, names ...string)) {
	r := &f.resources
	limit := func(set func(string) error, names ...string) {
		def(func(s string) error {
			r.limited = true
			return set(s)
		}, names...)
	}
	limit(value(&r.Memory, cgroups.ParseBytes), "memory", "m")
	limit(value(&r.memorySwap, parseSwap), "memory-swap")
	limit(value(&r.MemoryLow, cgroups.ParseBytes), "memory-reservation")
	limit(value(&r.CPUs, cgroups.ParseCPUs), "cpus")
	limit(value(&r.CPUShares, number), "cpu-shares")
	limit(value(&r.CPUPeriod, microseconds), "cpu-period")
	limit(value(&r.CPUQuota, microseconds), "cpu-quota")
	limit(text(&r.CPUSet), "cpuset-cpus")
	limit(text(&r.MemoryNodes), "cpuset-mems")
	limit(value(&r.PIDs, parsePIDs), "pids-limit")
	limit(value(&r.IOWeight, parseBlockWeight), "blkio-weight")
	limit(r.throttle(cgroups.ParseBytes, func(io *cgroups.IO) *int64 { return &io.ReadBPS }), "device-read-bps")
	limit(r.throttle(cgroups.ParseBytes, func(io *cgroups.IO) *int64 { return &io.WriteBPS }), "device-write-bps")
	limit(r.throttle(number, func(io *cgroups.IO) *int64 { return &io.ReadIOPS }), "device-read-iops")
	limit(r.throttle(number, func(io *cgroups.IO) *int64 { return &io.WriteIOPS }), "device-write-iops")
	limit(each(&r.rules, cgroups.ParseDevice), "device-cgroup-rule")
	limit(value(&r.Parent, nonEmpty), "cgroup-parent")
}

// value sets what parse gives.
func value[T any](p *T, parse func(string) (T, error)) func(string) error {
	return func(s string) (err error) {
		*p, err = parse(s)
		return err
	}
}

// number parses a number above zero; 0 would mean that nothing is limited.
func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && n <= 0 {
		err = errors.New("not above zero")
	}
	return n, err
}

// microseconds parses --cpu-period and --cpu-quota; -1 is no quota.
func microseconds(s string) (time.Duration, error) {
	if s == "-1" {
		return cgroups.NoLimit, nil
	}
	n, err := number(s)
	if err == nil && n > int64(time.Hour/time.Microsecond) {
		err = errors.New("too large")
	}
	return time.Duration(n) * time.Microsecond, err
}

// parsePIDs: for docker run 0 and -1 are no limit.
func parsePIDs(s string) (int64, error) {
	if s == "0" || s == "-1" {
		return cgroups.NoLimit, nil
	}
	return number(s)
}

func parseSwap(s string) (int64, error) {
	if s == "-1" {
		return cgroups.NoLimit, nil
	}
	return cgroups.ParseBytes(s)
}

// parseBlockWeight parses a weight from 10 to 1000, of version 1's block controller, and gives that of version 2, from 1 to 10000.
func parseBlockWeight(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 10 || n > 1000 {
		return 0, errors.New("not a number from 10 to 1000")
	}
	return 1 + (n-10)*9999/990, nil
}

// throttle parses DEVICE:NUMBER, and collects what is said about one device.
func (r *resources) throttle(parse func(string) (int64, error), field func(*cgroups.IO) *int64) func(string) error {
	return func(s string) error {
		i := strings.LastIndexByte(s, ':')
		if i <= 0 || s[0] != '/' {
			return errors.New("not DEVICE:NUMBER")
		}
		n, err := parse(s[i+1:])
		if err == nil && n == 0 {
			err = errors.New("not above zero")
		}
		*field(r.io(s[:i])) = n
		return err
	}
}

func (r *resources) io(device string) *cgroups.IO {
	i := slices.IndexFunc(r.IO, func(io cgroups.IO) bool { return io.Device == device })
	if i < 0 {
		i, r.IO = len(r.IO), append(r.IO, cgroups.IO{Device: device})
	}
	return &r.IO[i]
}

// group is the control group of the command. Where nothing is limited there is none: an ordinary user may often make none.
func (f *flags) group() ([]plan.Primitive, error) {
	l := f.resources.Limits
	if f.oomKillDisable {
		l.OOMKill = cgroups.Off
	}
	if l.CPUQuota != 0 && l.CPUPeriod == 0 {
		l.CPUPeriod = 100 * time.Millisecond
	}
	var err error
	if l.Swap, err = f.swap(); err != nil {
		return nil, err
	}
	if l.Devices, err = f.deviceList(); err != nil {
		return nil, err
	}
	if !f.limited && !f.oomKillDisable && l.Devices == nil {
		return nil, nil
	}
	return []plan.Primitive{l}, nil
}

// swap is the limit of swap alone, which is what cgroups has. As for docker run it is the limit of memory again, if not said
// otherwise, on a machine that has swap.
func (f *flags) swap() (int64, error) {
	switch m := f.Memory; {
	case f.memorySwap == cgroups.NoLimit || f.memorySwap == 0 && (m == 0 || m == cgroups.NoLimit || !hasSwap()):
		return 0, nil
	case f.memorySwap == 0:
		return m, nil
	case m == 0 || f.memorySwap < m:
		return 0, errors.New("--memory-swap is memory and swap together: it needs --memory, and cannot be less")
	case f.memorySwap == m:
		return cgroups.None, nil
	}
	return f.memorySwap - f.Memory, nil
}

// hasSwap: the first line is a heading.
func hasSwap() bool {
	b, err := os.ReadFile("/proc/swaps")
	return err == nil && strings.Count(string(b), "\n") > 1
}

// deviceRules reports whether the control group is to decide about devices: where that is asked for, or a device is to be used in
// less than all ways.
func (f *flags) deviceRules() bool {
	return len(f.rules) > 0 || slices.ContainsFunc(f.devices, func(d device) bool { return d.access != "" && d.access != "rwm" })
}

// deviceList is what Docker allows, the devices that are shown, and what the rules say. Nil is no list.
func (f *flags) deviceList() ([]cgroups.Device, error) {
	if !f.deviceRules() {
		return nil, nil
	}
	list := cgroups.DockerDevices()
	for _, d := range f.devices {
		rule, err := cgroups.DeviceAt(d.Path)
		if err != nil {
			return nil, fmt.Errorf("--device %s: %w", d.Path, err)
		}
		if d.access != "" {
			rule.Access = d.access
		}
		list = append(list, rule)
	}
	return append(list, f.rules...), nil
}
