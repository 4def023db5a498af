//go:build linux

package cgroups

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Any is every number of a device.
const Any = -1

// Device is a rule of [Limits.Devices]: who it is about, and what may be done.
type Device struct {
	Kind         byte   // 'c' for character devices, 'b' for block devices, 'a' for both
	Major, Minor int64  // numbers, or Any
	Access       string // some of "rwm": read, write, mknod
	Deny         bool   // refuses what an earlier rule allows
}

// DockerDevices gives the devices that Docker's containers may use: null, zero, full, random, urandom, tty, console, pseudoterminals and
// mknod of any.
func DockerDevices() []Device {
	all := []Device{{Kind: 'c', Major: Any, Minor: Any, Access: "m"}, {Kind: 'b', Major: Any, Minor: Any, Access: "m"}}
	for _, n := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}, {136, Any}} {
		all = append(all, Device{Kind: 'c', Major: n[0], Minor: n[1], Access: "rwm"})
	}
	return all
}

// ParseDevice reads a rule as docker run --device-cgroup-rule takes it: "c 1:3 rwm", "b 8:* r", "a *:* rwm". "a" alone is all. The error is
// a [*LimitError].
func ParseDevice(s string) (Device, error) {
	if s == "a" {
		return Device{Kind: 'a', Major: Any, Minor: Any, Access: "rwm"}, nil
	}
	bad := &LimitError{"device", s, "is no rule as \"c 1:3 rwm\""}
	f := strings.Split(s, " ")
	if len(f) != 3 || len(f[0]) != 1 {
		return Device{}, bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	d := Device{Kind: f[0][0], Access: f[2]}
	var okMajor, okMinor bool
	d.Major, okMajor = parseDeviceNumber(major)
	d.Minor, okMinor = parseDeviceNumber(minor)
	if !ok || !okMajor || !okMinor || d.check() != nil {
		return Device{}, bad
	}
	return d, nil
}

func parseDeviceNumber(s string) (int64, bool) {
	if s == "*" {
		return Any, true
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int64(n), err == nil && strconv.FormatUint(n, 10) == s
}

// DeviceAt gives the rule that allows the device node at a path to be read, written and made.
func DeviceAt(path string) (Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Device{}, &Error{Op: "stat " + path, Controller: "devices", Err: err}
	}
	d := Device{Kind: 'c', Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev))), Access: "rwm"}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
	case unix.S_IFBLK:
		d.Kind = 'b'
	default:
		return Device{}, &LimitError{"device", path, "is no device"}
	}
	return d, nil
}

// String gives the rule as ParseDevice reads it.
func (d Device) String() string {
	return fmt.Sprintf("%c %s:%s %s", d.Kind, star(d.Major), star(d.Minor), d.Access)
}

func star(n int64) string {
	if n == Any {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

func (d Device) check() error {
	switch {
	case d.Kind != 'a' && d.Kind != 'b' && d.Kind != 'c':
		return &LimitError{"Devices", string(rune(d.Kind)), "a kind is one of a, b and c"}
	case d.Major < Any || d.Major > 1<<32-1 || d.Minor < Any || d.Minor > 1<<32-1:
		return &LimitError{"Devices", d.String(), "is no device number"}
	case d.bits() == 0:
		return &LimitError{"Devices", d.Access, "access is some of r, w and m"}
	}
	return nil
}

func checkDevices(all []Device) error {
	for _, d := range all {
		if err := d.check(); err != nil {
			return err
		}
	}
	return nil
}

// The bits of access, as the kernel has them (BPF_DEVCG_ACC_...).
const (
	accessMknod = 1 << iota
	accessRead
	accessWrite
)

// bits gives the access as bits; 0 where it is none.
func (d Device) bits() (bits uint32) {
	for _, c := range []byte(d.Access) {
		i := strings.IndexByte("mrw", c)
		if i < 0 || bits&(1<<i) != 0 {
			return 0
		}
		bits |= 1 << i
	}
	return bits
}

func accessText(bits uint32) (s string) {
	for i, c := range []byte("rwm") {
		if bits&[]uint32{accessRead, accessWrite, accessMknod}[i] != 0 {
			s += string(c)
		}
	}
	return s
}

// setDevices has the group refuse all devices but those of the rules.
func (g *Group) setDevices(rules []Device) error {
	if rules == nil {
		return nil
	}
	if d, ok := g.dir("devices"); ok {
		writes, err := legacyDevices(rules)
		if err != nil {
			return err
		}
		for _, w := range writes {
			if err := d.write(w.file, w.value); err != nil {
				return err
			}
		}
		return nil
	}
	return g.v2().attachDevices(rules)
}

// legacyDevices gives version 1's writes. There what an earlier rule allows can be refused only as a whole: the kernel keeps a list of
// exceptions, and takes those out that are equal.
func legacyDevices(rules []Device) ([]setting, error) {
	allowed := []Device{}
	for _, r := range rules {
		if !r.Deny {
			allowed = append(allowed, r)
			continue
		}
		for i, a := range allowed {
			if r.covers(a) {
				allowed[i].Access = accessText(a.bits() &^ r.bits())
			} else if r.overlaps(a) {
				return nil, &Error{Op: "deny " + r.String(), Controller: "devices", Hint: "allow less instead",
					Err: &reason{"control groups version 1 cannot refuse a part of what " + a.String() + " allows", errors.ErrUnsupported}}
			}
		}
	}
	writes := []setting{{file: "devices.deny", value: "a"}}
	for _, a := range allowed {
		for _, kind := range kinds(a) {
			a.Kind = kind
			if a.Access != "" && !slices.ContainsFunc(writes, func(w setting) bool { return w.value == a.String() }) {
				writes = append(writes, setting{file: "devices.allow", value: a.String()})
			}
		}
	}
	return writes, nil
}

// kinds: to version 1, "a" means all devices whatever else the rule says.
func kinds(d Device) []byte {
	if d.Kind == 'a' {
		return []byte("cb")
	}
	return []byte{d.Kind}
}

// covers reports whether all devices of a are devices of d.
func (d Device) covers(a Device) bool {
	return (d.Kind == 'a' || d.Kind == a.Kind) && (d.Major == Any || d.Major == a.Major) && (d.Minor == Any || d.Minor == a.Minor)
}

// overlaps reports whether some device and access is of both.
func (d Device) overlaps(a Device) bool {
	same := func(x, y int64) bool { return x == y || x == Any || y == Any }
	return (d.Kind == 'a' || a.Kind == 'a' || d.Kind == a.Kind) && same(d.Major, a.Major) && same(d.Minor, a.Minor) && d.bits()&a.bits() != 0
}
