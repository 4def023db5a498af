//go:build linux

// Package caisson starts programs in sandboxes that the caller assembles from parts.
//
//	base := caisson.New(
//		namespaces.User|namespaces.PID|namespaces.Mount|namespaces.IPC|namespaces.UTS|namespaces.Net,
//		chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"},
//	)
//	out, err := base.Command("python3", "-c", "print(6*7)").CombinedOutput()
//
// [New] takes parts and gives a [Sandbox], an immutable value; [Sandbox.With] gives a further one with more parts. Each
// part wraps one primitive of the kernel and comes from a package of its own: namespaces, chroot, caps, seccomp, cgroups, lsm, overlay, netstack; a few that
// concern the process alone are here: [User], [Umask], [Rlimit], [Nice], [Affinity], [Session], [DieWithParent], [Init]. The parts that a sandbox
// does not have are not there: New() isolates nothing.
//
// A [Cmd] has the fields, methods and behaviour of os/exec's. Whoever knows os/exec knows caisson.
// Beyond it there are [Cmd.Result], which tells why the command ended, [Process.Exec], which executes a further
// command inside a running sandbox, and [Cmd.Terminal], which gives a command a terminal.
//
// [Sandbox.Plan] prints every system call before any is made. An error of a start is a [*Error]: it names the part, the
// call, and the step of the plan.
//
// # How it starts
//
// There is no cgo, no second execution of the caller's binary, no hook in main. (A script inside a root of its own is executed by way
// of a program of 2 KB from sealed memory, and SubordinateIDs of package namespaces uses newuidmap(1).) The child shares the
// caller's memory until it executes the command (CLONE_VM and CLONE_VFORK, clone(2)), so a start takes the same time
// however large the caller is, and it makes its system calls without running Go code. Linux 5.12 and later, amd64 and arm64; on other architectures of Linux
// the child gets a copy of the memory, as with fork(2).
package caisson
