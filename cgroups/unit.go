//go:build linux

package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Unit is a running unit of systemd with its group. [Group.Close] closes the group and leaves the unit.
type Unit struct {
	*Group
	Name string

	systemd Systemd
}

// Set changes limits of the unit's own group, also while it runs. What systemd manages is given to it as properties, until the next boot: into the files alone
// it would write its own values again, at the next daemon-reload or change of another property. They are in the files, too, when Set returns.
//
// What systemd has no property for is only written to the files, of a unit whose group was given away with the controller, as a scope's. Elsewhere it does not hold, and
// is errors.ErrUnsupported, as are OOMGroup, Files of systemd's own controllers, and on version 1 Devices: a group below the unit takes them all. CPUIdle is
// a weight to systemd: Off gives the unit the normal one, if CPUWeight does not say another. Set stops at the first error; what has been
// set before stays.
func (u *Unit) Set(ctx context.Context, l Limits) error {
	s := u.systemd
	b, err := s.dial(ctx)
	if err != nil {
		return s.failed(ctx, "ask systemd for", err)
	}
	defer b.Close()
	now, err := b.state(ctx, u.Name)
	if err != nil {
		return s.failed(ctx, "look for", err)
	}
	told, err := l.properties(u.all, now, now.given)
	if err != nil {
		return err
	}
	if len(told) > 0 {
		if err := b.manager(ctx, "SetUnitProperties", u.Name, true, told).Err; err != nil {
			return s.failed(ctx, "set properties of", err)
		}
	}
	return u.hold(ctx, b, told, l)
}

// hold sees that systemd has taken the properties. To answer that it comes back to its loop, in which it writes files first, and so what is then written
// here is not written over.
func (u *Unit) hold(ctx context.Context, b *bus, told []property, l Limits) error {
	now, err := b.state(ctx, u.Name)
	if err != nil {
		return u.systemd.failed(ctx, "look for", err)
	}
	if name := now.lacks(told); name != "" {
		return u.systemd.failed(ctx, "set properties of", &reason{fmt.Sprintf("systemd has not taken %s as it was told", name), syscall.EPROTO})
	}
	return u.Group.Set(l)
}

// settle makes sure that the processes have come, and moves them out of the way.
func (u *Unit) settle(pids []int) error {
	if len(pids) == 0 {
		pids = []int{os.Getpid()}
	}
	there, err := u.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if !slices.Contains(there, pid) && unix.Kill(pid, 0) != unix.ESRCH {
			return &Error{Op: "start", Value: u.Name, Err: &reason{fmt.Sprintf("systemd has made the group %s, and process %d is not in it", u.Group, pid), syscall.EPROTO}}
		}
	}
	return u.Vacate()
}

// Stop has systemd end the unit: it kills all processes in it, and removes its group. A unit that is gone is no error. One that the calling process is in
// is EDEADLK; it ends with the process.
func (u *Unit) Stop(ctx context.Context) error {
	pids, err := u.Procs()
	if err != nil && !gone(err) {
		return err
	}
	s := u.systemd
	if slices.Contains(pids, os.Getpid()) {
		return s.failed(ctx, "stop", &reason{"the calling process is in it", syscall.EDEADLK})
	}
	b, err := s.dial(ctx)
	if err != nil {
		return s.failed(ctx, "ask systemd for", err)
	}
	defer b.Close()
	err = s.failed(ctx, "stop", b.job(ctx, "StopUnit", u.Name, "fail"))
	if err == nil || errors.Is(err, syscall.ENOENT) {
		return u.Close()
	}
	return err
}

// giveUp ends a slice that could not be set up. A scope has processes, which would be killed: it ends with them.
func (u *Unit) giveUp(ctx context.Context, b *bus) error {
	defer u.Close()
	if u.systemd.scope() {
		return nil
	}
	return u.systemd.failed(ctx, "stop", b.job(ctx, "StopUnit", u.Name, "fail"))
}
