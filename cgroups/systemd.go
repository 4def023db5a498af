//go:build linux

package cgroups

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"syscall"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Systemd asks systemd for a place where groups may be made, on hosts where systemd manages the hierarchy: there a group may only be made below a unit
// that was given away (Delegate=, systemd.resource-control(5)). A service that has Delegate=yes needs none, and finds its place by [Own].
//
//	unit, err := cgroups.Systemd{}.Start(ctx)
//	...
//	sandbox := caisson.New(cgroups.Limits{Below: unit.Group, Memory: 512 * cgroups.MiB})
//
// It is asked once, over D-Bus (org.freedesktop.systemd1(5)), and not for each sandbox: what is made below the unit does not concern systemd. Root
// may ask the system's manager, everybody his own.
type Systemd struct {
	// Unit is the name: "jobs.scope" for a unit of processes that exist already, with a group that is given away; "jobs.slice" for one that holds
	// other units, and in which systemd alone makes groups. "" is a fresh scope, "caisson-" and a random number.
	Unit string

	// Slice is the slice that a scope is put in, "batch.slice"; systemd makes it. "" leaves that to systemd: system.slice, or app.slice of a user.
	Slice string

	// User asks the caller's own manager, by the session bus, and not the system's.
	User bool

	// PIDs are moved into a scope; there is no scope without processes, and it ends with the last one. Nil is the calling process.
	PIDs []int

	// Limits are the unit's own: of all together that it holds. Systemd is given them as properties, and they are in the files when Start returns: see [Unit.Set]
	// for what is not possible. Parent, Below and Name are not used.
	Limits Limits

	// Address is that of the bus, "unix:path=/run/dbus/system_bus_socket", which is also what "" means; for a user $DBUS_SESSION_BUS_ADDRESS, or bus in
	// $XDG_RUNTIME_DIR. Others than unix: are EINVAL.
	Address string
}

// Start has systemd make a transient unit, and waits until it has. The processes of a scope are then in its group [Leaf] (see [Group.Vacate]), so that the
// group of the unit itself may have groups with controllers below it.
//
// A name that is taken is EEXIST; an ordinary user who asks the system's manager, EACCES; no bus, or no systemd on it, errors.ErrUnsupported; a job that
// systemd gave up, ECANCELED, ETIMEDOUT or EIO. All are an [*Error] whose Value is the name of the unit. Limits that cannot be are found before there is a unit. A kernel
// that refuses a value afterwards leaves no slice, but a scope: to end it would kill its processes. A context that ends while systemd is at work
// leaves open whether there is a unit.
func (s Systemd) Start(ctx context.Context) (*Unit, error) {
	if s.Unit == "" {
		var b [8]byte
		rand.Read(b[:]) // it never fails
		s.Unit = "caisson-" + hex.EncodeToString(b[:]) + ".scope"
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	b, err := s.dial(ctx)
	if err != nil {
		return nil, s.failed(ctx, "ask systemd for", err)
	}
	defer b.Close()
	limits, err := s.limits(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := b.job(ctx, "StartTransientUnit", s.Unit, "fail", append(s.properties(), limits...), []auxiliary{}); err != nil {
		return nil, s.failed(ctx, "start", err)
	}
	u, err := s.open(ctx, b)
	if err != nil {
		return nil, err
	}
	if s.limited() {
		err = u.hold(ctx, b, limits, s.Limits)
	}
	if err == nil && s.scope() {
		err = u.settle(s.PIDs)
	}
	if err != nil {
		return nil, errors.Join(err, u.giveUp(ctx, b))
	}
	return u, nil
}

// limited reports whether the unit has limits of its own.
func (s Systemd) limited() bool { return !reflect.DeepEqual(s.Limits, Limits{}) }

// limits gives the properties for the unit's limits. Which properties this systemd has, a unit of the same kind says that is always there.
func (s Systemd) limits(ctx context.Context, b *bus) ([]property, error) {
	if !s.limited() {
		return nil, nil
	}
	known, err := b.state(ctx, map[bool]string{true: "init.scope", false: "-.slice"}[s.scope()])
	if err != nil {
		return nil, s.failed(ctx, "ask systemd for", err)
	}
	at, err := realHost().look(0)
	if err != nil {
		return nil, err
	}
	return s.Limits.properties(at, known, func(controller string) bool {
		return s.scope() && (controller != "cpuset" || at.isV2(controller)) // in version 1 systemd leaves cpuset alone
	})
}

// Open opens the group of a unit that exists, also of a service. One that does not is ENOENT.
func (s Systemd) Open(ctx context.Context) (*Unit, error) {
	if err := checkUnit(s.Unit); err != nil {
		return nil, err
	}
	b, err := s.dial(ctx)
	if err != nil {
		return nil, s.failed(ctx, "ask systemd for", err)
	}
	defer b.Close()
	return s.open(ctx, b)
}

func (s Systemd) open(ctx context.Context, b *bus) (*Unit, error) {
	p, err := b.groupOf(ctx, s.Unit)
	if err != nil {
		return nil, s.failed(ctx, "look for", err)
	}
	g, err := Open(p)
	if err != nil {
		return nil, err
	}
	return &Unit{g, s.Unit, s}, nil
}

func (s Systemd) scope() bool { return strings.HasSuffix(s.Unit, ".scope") }

func (s Systemd) check() error {
	if err := checkUnit(s.Unit); err != nil {
		return err
	}
	for _, pid := range s.PIDs {
		if pid <= 0 {
			return s.failed(context.Background(), "start", &reason{fmt.Sprintf("%d is no process", pid), syscall.EINVAL})
		}
	}
	slice := strings.HasSuffix(s.Unit, ".slice")
	switch {
	case !slice && !s.scope():
		return &NameError{s.Unit, "is neither a scope nor a slice"}
	case slice && s.Slice != "":
		return &NameError{s.Slice, "is not for a slice, whose own name says in which it is"}
	case slice && s.PIDs != nil:
		return &NameError{s.Unit, "is a slice, which has no processes"}
	case s.Slice != "" && !strings.HasSuffix(s.Slice, ".slice"):
		return &NameError{s.Slice, "is no slice"}
	case s.Slice != "":
		return checkUnit(s.Slice)
	}
	return nil
}

// checkUnit says whether it can be a unit's name (systemd.unit(5)).
func checkUnit(name string) error {
	stem, kind, ok := cutLast(name, ".")
	switch {
	case !ok || stem == "" || !word(kind, ""):
		return &NameError{name, "is no unit's name, as jobs.scope"}
	case len(name) > unix.NAME_MAX:
		return &NameError{name, "is longer than 255 bytes"}
	case !word(name, `:-_.\@`) || strings.HasPrefix(name, "."):
		return &NameError{name, "has other characters than letters, digits and :-_.\\@"}
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (s Systemd) properties() []property {
	all := []property{
		{"Description", dbus.MakeVariant("sandboxes of process " + fmt.Sprint(os.Getpid()))},
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")}, // a unit that has ended with a failure does not keep its name
	}
	if !s.scope() {
		return all
	}
	pids := []uint32{0} // who asks, whatever number systemd knows it by
	if len(s.PIDs) > 0 {
		pids = nil
		for _, pid := range s.PIDs {
			pids = append(pids, uint32(pid))
		}
	}
	all = append(all, property{"PIDs", dbus.MakeVariant(pids)}, property{"Delegate", dbus.MakeVariant(true)})
	if s.Slice != "" {
		all = append(all, property{"Slice", dbus.MakeVariant(s.Slice)})
	}
	return all
}
