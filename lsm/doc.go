//go:build linux

// Package lsm puts the command of a sandbox under the rules of the Linux security modules: Landlock, AppArmor, SELinux.
//
// A security module decides on top of users, capabilities and mounts, at the moment of each access. It is the layer that holds
// when another one has a hole: a program that has got hold of a descriptor of the host outside its root is still refused.
//
//	Landlock  the command's own rules, no privilege needed   landlock(7)               Linux 5.13
//	AppArmor  the administrator's profiles, by path          apparmor.d(5)             the system's choice
//	SELinux   the administrator's policy, by label           selinux(8)                the system's choice
//
// [Active] says which of them the running kernel has, and [Labels] what a process is labelled with.
//
// # Landlock
//
// Rules are intentions. What they do not allow is denied, of the kinds that they speak of:
//
//	lsm.Landlock{
//		lsm.Execute("/usr"), lsm.ReadOnly("/etc"), lsm.ReadWrite("/tmp"),
//		lsm.Connect(443), lsm.ScopeSignals(),
//	}
//
// They are exact: a kernel that cannot enforce one of them is an error that names it. [BestEffort] is the weaker value, and says what
// it leaves out. [Landlock.Prepare] does the work once for many starts, [Landlock.RestrictSelf] restricts the caller. Package
// lsm/learn finds the rules that a program needs.
//
// # Labels
//
// [AppArmor] names a profile, [SELinux] a context. The command has it from its first instruction on; a start that could not give it
// fails. The child asks for the label by a file of /proc that no root file system can replace, reads back what the kernel has understood, and the parent looks once more
// at what has been executed (CVE-2019-16884, CVE-2025-52881).
//
// # Errors
//
// What the kernel lacks is errors.ErrUnsupported for errors.Is. A rule that cannot be enforced is a [*RuleError], a label that differs a
// [*LabelError], everything else an [*Error] with the errno. When a sandbox is started they stand inside a plan.Error, which names the step.
//
// # Example
//
//	sandbox := caisson.New(
//		namespaces.User|namespaces.PID|namespaces.Mount,
//		chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"},
//		lsm.Landlock{lsm.Execute("/usr"), lsm.ReadWrite("/tmp")},
//	)
//	out, err := sandbox.Command("/usr/bin/ls", "/etc").CombinedOutput() // ls: cannot open directory '/etc': Permission denied
package lsm
