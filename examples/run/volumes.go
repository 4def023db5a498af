//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/caisson-dev/caisson/chroot"
)

// volume is a file or directory of the host.
type volume struct {
	chroot.Bind
	relabel byte // 'z' and 'Z' of --volume; or 0
}

// parseVolume parses SOURCE:TARGET[:OPTIONS].
func parseVolume(s string) (v volume, err error) {
	p := strings.Split(s, ":")
	if len(p) < 2 || len(p) > 3 || p[0] == "" {
		return v, errors.New("not SOURCE:TARGET or SOURCE:TARGET:OPTIONS")
	}
	if v.Source, err = source(p[0]); err != nil {
		return v, err
	}
	if v.Target, err = target(p[1]); err != nil || len(p) == 2 {
		return v, err
	}
	for o := range strings.SplitSeq(p[2], ",") {
		if err := v.set(o); err != nil {
			return v, err
		}
	}
	return v, nil
}

// source gives the absolute path of a file or directory of the host.
func source(s string) (string, error) {
	if !path.IsAbs(s) && !strings.HasPrefix(s, ".") {
		return "", errors.New("there are no named volumes; a directory begins with / or ./")
	}
	return filepath.Abs(s)
}

// set takes an option as docker run and podman run name it. Binds are always recursive in their propagation.
func (v *volume) set(o string) error {
	switch o {
	case "ro", "rw":
		v.ReadOnly = o == "ro"
	case "z", "Z":
		v.relabel = o[0]
	case "exec", "noexec":
		v.NoExec = o == "noexec"
	case "dev", "nodev":
		v.Dev = o == "dev"
	case "suid", "nosuid":
		v.SUID = o == "suid"
	case "bind", "rbind":
		v.NonRecursive = o == "bind"
	default:
		return v.setPropagation(o)
	}
	return nil
}

func (v *volume) setPropagation(o string) error {
	switch o {
	case "rprivate", "private":
		v.Propagation = chroot.Private
	case "rslave", "slave":
		v.Propagation = chroot.Slave
	case "rshared", "shared":
		v.Propagation = chroot.Shared
	default:
		return fmt.Errorf("there is no option %q", o)
	}
	return nil
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
		if err = setTmpfs(&t, o); err != nil {
			return t, err
		}
	}
	return t, nil
}

func setTmpfs(t *chroot.Tmpfs, option string) (err error) {
	key, value, _ := strings.Cut(option, "=")
	switch key {
	case "size":
		t.Size, err = parseSize(value)
	case "mode":
		t.Mode, err = parseMode(value)
	case "nr_inodes":
		t.Inodes, err = number(value)
	case "exec", "noexec":
		t.NoExec = key == "noexec"
	case "rw", "nosuid", "nodev": // as they all are
	default:
		err = fmt.Errorf("option %q is none of size, mode, nr_inodes, exec, noexec, rw, nosuid, nodev", key)
	}
	return err
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

// device is a device of the host. Its access is some of rwm, or "" for all.
type device struct {
	chroot.Device
	access string
}

// parseDevice parses HOST[:TARGET][:rwm].
func parseDevice(s string) (d device, err error) {
	p := strings.Split(s, ":")
	if last := p[len(p)-1]; len(p) > 1 && last != "" && strings.Trim(last, "rwm") == "" {
		d.access, p = last, p[:len(p)-1]
	}
	if d.Path, err = target(p[0]); err != nil {
		return d, err
	}
	switch len(p) {
	case 1:
		d.Target = d.Path
	case 2:
		d.Target, err = target(p[1])
	default:
		err = errors.New("not HOST[:TARGET][:rwm]")
	}
	return d, err
}
