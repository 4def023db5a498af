//go:build linux

// Package chroot gives a sandbox its file systems: a root of its own, and what is mounted in it.
//
// A sandbox has one root: [Host], the host's own tree, read-only, or [Pivot], any directory. Everything else is put into it:
// [Proc], [Dev], [Tmpfs], [Bind]. Each is a value and a plan.Primitive; the order among mounts is the caller's.
//
//	caisson.New(
//		namespaces.PID,
//		chroot.Host{},
//		chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"},
//		chroot.Bind{Source: "/srv/data", Target: "/mnt", ReadOnly: true},
//	)
//
// # How a root is built
//
// The parts imply a mount namespace (mount_namespaces(7)). In it all mounts are first made private, so that nothing
// reaches the host. What comes from the host is then opened as detached mounts (open_tree(2), fsmount(2); Linux 5.2),
// the root is changed by pivot_root(2), and the host's tree is unmounted. Only now are the detached mounts attached:
// whatever links a hostile root file system holds, they are resolved in a world in which the host does not exist.
// chroot(2) alone changes none of this: a process with CAP_SYS_CHROOT, or with one descriptor of the host, leaves it.
//
// # Needs
//
// CAP_SYS_ADMIN, or a user namespace (namespaces.User), which gives it inside. Read-only and other attributes need mount_setattr(2), Linux
// 5.12; elsewhere the start fails with an error that names the call.
package chroot
