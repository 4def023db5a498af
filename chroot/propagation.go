//go:build linux

package chroot

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Propagation says whether what is mounted or unmounted on one side of a mount appears on the other (mount_namespaces(7)).
type Propagation uint8

// The kinds of propagation.
const (
	Private Propagation = iota // neither way; the zero value
	Slave                      // what the host mounts below it appears in the sandbox
	Shared                     // both ways: what the sandbox mounts appears on the host, too
)

var propagations = [...]string{"private", "slave", "shared"}

// String gives the word of mount(8).
func (k Propagation) String() string {
	if int(k) < len(propagations) {
		return propagations[k]
	}
	return fmt.Sprintf("propagation %d", uint8(k))
}

func (k Propagation) check() error {
	if int(k) >= len(propagations) {
		return fmt.Errorf("%v: %w", k, syscall.EINVAL)
	}
	return nil
}

// later refuses attributes that are to hold for a tree in which the host's later mounts appear: those come with flags of their own.
func (k Propagation) later(attributes bool) error {
	if !attributes || k == Private {
		return nil
	}
	return fmt.Errorf("read-only and noexec cannot be made to hold for what is mounted later (%v): %w", k, errors.ErrUnsupported)
}

// makeShared makes all mounts of the sandbox shared among the mount namespaces that are made inside.
func makeShared() plan.Op {
	flags := []plan.Flag{{Bits: unix.MS_REC, Name: "MS_REC"}, {Bits: unix.MS_SHARED, Name: "MS_SHARED"}}
	return plan.Call("mount", unix.SYS_MOUNT, plan.Null(), plan.Str("/"), plan.Null(), plan.Flags(unix.MS_REC|unix.MS_SHARED, flags), plan.Null())
}
