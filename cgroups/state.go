//go:build linux

package cgroups

import (
	"bytes"
	"context"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

// state is what systemd says of a unit: all properties that it has for one of this kind.
type state map[string]dbus.Variant

// given reports whether the unit's group was given away with a controller.
func (s state) given(controller string) bool {
	delegated, _ := s["Delegate"].Value().(bool)
	controllers, _ := s["DelegateControllers"].Value().([]string)
	return delegated && slices.Contains(controllers, controller)
}

func (s state) knows(all []property) bool {
	return !slices.ContainsFunc(all, func(p property) bool { _, ok := s[p.Name]; return !ok })
}

// state asks for all properties of a unit.
func (b *bus) state(ctx context.Context, unit string) (all state, err error) {
	object, kind, err := b.unit(ctx, unit)
	if err != nil {
		return nil, err
	}
	err = b.Object(b.owner, object).CallWithContext(ctx, "org.freedesktop.DBus.Properties.GetAll", 0, kind).Store(&all)
	return all, err
}

// lacks names the first property that systemd has not taken as it was told, or "".
func (s state) lacks(told []property) string {
	last := map[string]uint64{} // of what is said of a device several times
	for _, p := range told {
		if devices, ok := p.Value.Value().([]perDevice); ok {
			last[p.Name+" "+devices[0].Path] = devices[0].Number
			continue
		}
		got := s[p.Name].Value()
		if set, ok := got.([]byte); ok { // in whole words
			got = bytes.TrimRight(set, "\x00")
		}
		if !reflect.DeepEqual(got, p.Value.Value()) {
			return p.Name
		}
	}
	for key, n := range last {
		name, device, _ := strings.Cut(key, " ")
		if got, ok := s.device(name, device); got != n && (ok || n != math.MaxUint64) {
			return name
		}
	}
	return ""
}

func (s state) device(name, device string) (n uint64, ok bool) {
	var all []perDevice
	if v, known := s[name]; !known || dbus.Store([]any{v.Value()}, &all) != nil {
		return 0, false
	}
	i := slices.IndexFunc(all, func(d perDevice) bool { return d.Path == device })
	if i < 0 {
		return 0, false
	}
	return all[i].Number, true
}
