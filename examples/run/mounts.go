//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// root is the sandbox's root directory. The host's own is always read-only.
func (f *flags) root() plan.Primitive {
	if f.rootfs == "" {
		return chroot.Host{}
	}
	return chroot.Pivot{Dir: f.rootfs, ReadOnly: f.readOnly}
}

// mount is something mounted at a path of the sandbox.
type mount struct {
	at   string
	part plan.Primitive
}

// mounts gives all of them, parents before what is below them.
func (f *flags) mounts() ([]plan.Primitive, error) {
	all, err := f.asked()
	if err != nil {
		return nil, err
	}
	for _, d := range f.defaults() {
		if !slices.ContainsFunc(all, func(m mount) bool { return m.at == d.at }) {
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b mount) int { return cmp.Compare(strings.Count(a.at, "/"), strings.Count(b.at, "/")) })
	parts := []plan.Primitive{f.proc(), chroot.Dev{}}
	for _, m := range all {
		parts = append(parts, m.part)
	}
	return parts, nil
}

// asked are the mounts of the command line.
func (f *flags) asked() (all []mount, err error) {
	for _, v := range f.volumes {
		all = append(all, mount{v.Target, v})
	}
	for _, t := range f.tmpfs {
		all = append(all, mount{t.Path, t})
	}
	for i, m := range all {
		if slices.ContainsFunc(all[:i], func(o mount) bool { return o.at == m.at }) {
			return nil, fmt.Errorf("two mounts at %s", m.at)
		}
	}
	return all, nil
}

// defaults are the mounts that nobody has to ask for.
func (f *flags) defaults() (all []mount) {
	if f.ipc == "host" {
		all = append(all, bind("/dev/shm"))
	}
	if f.rootfs != "" {
		return all
	}
	all = append(all, mount{"/tmp", chroot.Tmpfs{Path: "/tmp"}})
	if st, err := os.Stat("/run"); err != nil || !st.IsDir() {
		return all
	}
	// In /run are the sockets of the host's daemons. A read-only file system would not keep anyone from using them.
	all = append(all, mount{"/run", chroot.Tmpfs{Path: "/run", Mode: 0o755}})
	if f.network == "host" {
		all = append(all, resolver()...)
	}
	return all
}

// resolver: with systemd /etc/resolv.conf is a link into /run.
func resolver() []mount {
	file, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil || !strings.HasPrefix(file, "/run/") {
		return nil
	}
	return []mount{bind(file)}
}

// bind shows a path of the host under its own name.
func bind(name string) mount { return mount{name, chroot.Bind{Source: name, Target: name}} }

// proc: the processes of the host are in the host's /proc only. An ordinary user could not mount another one.
func (f *flags) proc() plan.Primitive {
	if f.pid == "host" {
		return chroot.Bind{Source: "/proc", Target: "/proc"}
	}
	return chroot.Proc{}
}

// parseVolume parses SOURCE:TARGET[:ro].
func parseVolume(s string) (b chroot.Bind, err error) {
	p := strings.Split(s, ":")
	if len(p) < 2 || len(p) > 3 || p[0] == "" {
		return b, errors.New("not SOURCE:TARGET or SOURCE:TARGET:ro")
	}
	if !path.IsAbs(p[0]) && p[0][0] != '.' {
		return b, errors.New("there are no named volumes; a directory begins with / or ./")
	}
	if b.Source, err = filepath.Abs(p[0]); err != nil {
		return b, err
	}
	if b.Target, err = target(p[1]); err != nil || len(p) == 2 {
		return b, err
	}
	switch p[2] {
	case "ro":
		b.ReadOnly = true
	case "rw":
	default:
		return b, fmt.Errorf("option %q is neither ro nor rw", p[2])
	}
	return b, nil
}

func target(s string) (string, error) {
	if s = path.Clean(s); !path.IsAbs(s) || s == "/" {
		return "", fmt.Errorf("%q is not an absolute path below /", s)
	}
	return s, nil
}

// parseTmpfs parses TARGET[:size=64m,mode=1777].
func parseTmpfs(s string) (t chroot.Tmpfs, err error) {
	name, options, some := strings.Cut(s, ":")
	if t.Path, err = target(name); err != nil || !some {
		return t, err
	}
	for o := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "size":
			t.Size, err = parseSize(value)
		case "mode":
			t.Mode, err = parseMode(value)
		default:
			err = fmt.Errorf("option %q is neither size nor mode", key)
		}
		if err != nil {
			return t, err
		}
	}
	return t, nil
}

// parseSize parses a number of bytes: 4096, 64k, 64m, 1g.
func parseSize(s string) (int64, error) {
	lower := strings.ToLower(s)
	digits := strings.TrimRight(lower, "bkmg")
	shift, known := map[string]int{"": 0, "b": 0, "k": 10, "kb": 10, "m": 20, "mb": 20, "g": 30, "gb": 30}[lower[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 63-shift)
	if err != nil || !known || n == 0 {
		return 0, fmt.Errorf("size %q is not a number of bytes above zero, such as 64m", s)
	}
	return int64(n) << shift, nil
}

// parseMode parses the octal digits of chmod(1). Zero would be the default.
func parseMode(s string) (os.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n == 0 || n > 0o1777 {
		return 0, fmt.Errorf("mode %q is not an octal number from 1 to 1777", s)
	}
	mode := os.FileMode(n).Perm()
	if n&0o1000 != 0 {
		mode |= os.ModeSticky
	}
	return mode, nil
}
