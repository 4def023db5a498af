//go:build linux

// Package cgroups limits what processes use, counts it, and tells what happens to them, by Linux control groups (cgroups(7)).
//
// A control group is a directory whose files set limits for the processes in it and show what they have used. There are
// two versions. In version 2 all controllers act in one hierarchy of groups; in version 1 there is a hierarchy for each controller or
// two; a hybrid host has controllers in version 1 and a hierarchy of version 2 without, or with few. This package speaks of
// limits as version 2 does, and translates them where it finds version 1.
//
// # A sandbox with limits
//
// [Limits] is the part of a sandbox that gives it a group:
//
//	cgroups.Limits{Memory: 512 * cgroups.MiB, CPUs: 1.5, PIDs: 64}
//
// The group is made for each start, entered before anything else happens, and removed in the end together with all that
// still runs in it. The command's Result then says what was used, and OutOfMemory where the limit of memory
// ended it. [Of] finds the group of a running sandbox by the command's pid, for [Group.Set], [Group.Stats], [Group.Freeze] and
// the like.
//
// # Groups
//
// [Group] is a group without a sandbox. [Own] opens the caller's, [Open] one at a path, [Create] and [Group.Create] make one.
//
// # Where a group may be made
//
// Below the caller's own group, if not said otherwise. Root may do so; an ordinary user where the group has been delegated,
// as systemd does with Delegate=yes and for each user's own manager. In version 2 a group with processes in it gives no controllers
// to groups below it, unless it is the topmost: such a caller first moves itself, and those who share its group, out of the way:
//
//	own, err := cgroups.Own()
//	if err != nil {
//		return err
//	}
//	defer own.Close()
//	err = own.Vacate()
//
// What is enabled in cgroup.subtree_control of the groups above stays enabled.
//
// Where systemd manages the hierarchy and the caller's group was not given to it, [Systemd] asks for a scope in which groups may be made, over D-Bus: root the
// system's manager, a user his own. The limits of such a unit itself are set by [Unit.Set], or systemd would write its own over them; those of the groups below
// do not concern it.
//
// # Events
//
// A [Watcher] tells of kills for lack of memory, of groups that become empty, of pressure, and more, for any number of groups by one
// thread and no goroutine.
//
// # Values
//
// [ParseBytes] and [ParseCPUs] take what docker run takes, [ParseQuantity] what Kubernetes takes.
//
// # Errors
//
// A value that makes no sense is a [*LimitError] or a [*NameError], with EINVAL, before anything is done. Everything else is an [*Error]
// with the errno, naming group, file and value. What this kernel, or this version of control groups, cannot enforce is
// errors.ErrUnsupported for errors.Is. When a sandbox is started they stand inside a plan.Error, which names the step.
//
// # Needs
//
// Linux 5.6 (openat2(2)), 5.7 for version 2 (CLONE_INTO_CGROUP).
package cgroups
