//go:build linux

package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/caisson-dev/caisson/chroot"
)

// setMount reads --mount type=bind,source=DIR,target=DIR,readonly or type=tmpfs,target=DIR,tmpfs-size=64m,tmpfs-mode=1777.
func (f *flags) setMount(s string) error {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return err
	}
	kind := ""
	var v volume
	var t chroot.Tmpfs
	for _, field := range fields {
		key, value, given := strings.Cut(field, "=")
		switch {
		case key == "type":
			kind = value
		case key == "target" || key == "destination" || key == "dst":
			v.Target, err = target(value)
		case strings.HasPrefix(key, "tmpfs-"):
			err = setTmpfs(&t, strings.TrimPrefix(field, "tmpfs-"))
		default:
			err = v.setMount(key, value, given)
		}
		if err != nil {
			return err
		}
	}
	return f.addMount(kind, v, t)
}

// setMount takes a key of type=bind.
func (v *volume) setMount(key, value string, given bool) (err error) {
	switch key {
	case "source", "src":
		v.Source, err = source(value)
	case "readonly", "ro":
		v.ReadOnly = true
		if given {
			v.ReadOnly, err = strconv.ParseBool(value)
		}
	case "bind-propagation":
		err = v.setPropagation(value)
	default:
		err = fmt.Errorf("there is no key %q", key)
	}
	return err
}

func (f *flags) addMount(kind string, v volume, t chroot.Tmpfs) error {
	bare := v
	bare.Target = ""
	t.Path = v.Target
	switch {
	case v.Target == "":
		return errors.New("no target")
	case kind == "bind" && v.Source == "":
		return errors.New("no source")
	case kind == "bind" && t == chroot.Tmpfs{Path: v.Target}:
		f.volumes = append(f.volumes, v)
	case kind == "tmpfs" && bare == volume{}:
		f.tmpfs = append(f.tmpfs, t)
	case kind == "bind" || kind == "tmpfs":
		return errors.New("a key that is not of this type")
	default:
		return fmt.Errorf("type %q is neither bind nor tmpfs", kind)
	}
	return nil
}
