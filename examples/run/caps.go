//go:build linux

package main

import (
	"slices"
	"strings"

	"github.com/caisson-dev/caisson/caps"
)

// capabilities are those of docker run. Docker keeps CAP_MKNOD, and relies on the rules for devices of a control group, which
// refuse the host's disks; where there are no such rules, the capability goes.
//
// With CAP_SYS_ADMIN nothing is read-only: who has it in the user namespace that owns the mounts, be it one of the sandbox's
// own, can mount them writable again.
func (f *flags) capabilities() caps.Bound {
	add, drop := f.capAdd, f.capDrop
	if f.privileged {
		add = caps.All
	}
	if add != caps.All && !f.deviceRules() {
		drop |= caps.Mknod
	}
	return caps.Docker(add, drop)
}

// capabilityNames are the names that profiles of system calls ask for.
func (f *flags) capabilityNames() []string {
	b := f.capabilities()
	return (b.Keep | b.Need).Names()
}

// addCapability collects names into a set.
func addCapability(to *caps.Set) func(string) error {
	return func(s string) error {
		set, err := parseCapability(s)
		if err == nil {
			*to |= set
		}
		return err
	}
}

// parseCapability reads what docker run takes, a name or ALL. Masks, numbers and "none" are refused.
func parseCapability(s string) (caps.Set, error) {
	set, err := caps.Parse(s)
	name := "CAP_" + strings.TrimPrefix(strings.ToUpper(s), "CAP_")
	if err == nil && name != "CAP_ALL" && !slices.Equal(set.Names(), []string{name}) {
		err = &caps.NameError{Text: s}
	}
	return set, err
}
