//go:build linux

// Package chroot gives a sandbox its file systems: a root of its own, and what is mounted in it.
//
// A sandbox has one root: [Host], the host's own tree, read-only; [Pivot], any directory; or [Chroot], the historic call, which
// isolates nothing. Everything else is put into it. Each part is a value and a plan.Primitive; the order among mounts is the caller's:
//
//	[Proc] [Sysfs] [Cgroupfs]           the kernel's own file systems
//	[Dev] [Devpts] [Mqueue] [Device]    devices, terminals, message queues; a [DevTree] is a Dev that is built once for many starts
//	[Bind] [Optional]                   what is the host's, with all options
//	[Tmpfs] [File] [Dir] [Symlink]      what is the sandbox's own
//	[Mask] [ReadOnly]                   what is hidden or sealed; [DockerMasks] and [DockerReadOnly] are Docker's sets
//
// For example:
//
//	caisson.New(
//		namespaces.PID|namespaces.Net|namespaces.IPC|namespaces.Cgroup,
//		chroot.Pivot{Dir: "/srv/debian", ReadOnly: true},
//		chroot.Proc{}, chroot.Dev{Mqueue: true}, chroot.Sysfs{}, chroot.Cgroupfs{}, chroot.Tmpfs{Path: "/tmp"},
//		chroot.Bind{Source: "/srv/data", Target: "/mnt", ReadOnly: true},
//		chroot.Optional{Source: "/etc/resolv.conf", Target: "/etc/resolv.conf", ReadOnly: true},
//		chroot.DockerMasks(), chroot.DockerReadOnly(),
//	)
//
// # How a root is built
//
// The parts imply a mount namespace (mount_namespaces(7)). In it all mounts are first made private, so that nothing
// reaches the host. What comes from the host is then opened as detached mounts (open_tree(2), fsmount(2); Linux 5.2),
// the root is changed by pivot_root(2), and the host's tree is unmounted. Only now are the detached mounts attached:
// whatever links a hostile root file system holds, they are resolved in a world in which the host does not exist. Links of /proc to
// what a process has open are never followed. chroot(2) alone changes none of this: a process with CAP_SYS_CHROOT, or with
// one descriptor of the host, leaves it.
//
// What is put into a mount of the sandbox's own, as a mask into /proc, goes by the descriptor of that mount. Somebody who can write to the root
// from outside may rename the directory on which it is mounted, and put another one in its place, but not get between.
//
// # Processes outside
//
// A procfs that shows a process outside shows the way out, too: /proc/PID/root, for who is the same user and has no less capabilities. In a user namespace
// the kernel refuses it. Without one [Proc] needs a pid namespace, and each procfs that the host has mounted somewhere in what [Host], [Pivot] and [Bind]
// show is covered by an empty directory. That is looked for when the plan is made, and each start looks whether it is still so (some microseconds since Linux 6.8, where the kernel
// tells; before, the table of mounts is read, 50 microseconds). What the host mounts in the moment between that look and the making of the child is not covered. Who wants to see the
// host's processes says so: Bind{Source: "/proc", Target: "/proc"}.
//
// # Read-only is not for root
//
// Attributes of mounts and masks hold against who has no CAP_SYS_ADMIN in the sandbox's mount namespace. Root inside can change and unmount them. Drop the
// capability, with package caps, or run the command as another user.
//
// # Without a sandbox
//
// [Open] opens a directory as a [Root], in which a program on the host reads, writes, removes and copies while somebody hostile changes it.
// [Mounts] shows the mount table of a process.
//
// # Needs
//
// CAP_SYS_ADMIN, or a user namespace (namespaces.User), which gives it inside. Linux 5.2, for the mount API; options that need
// more say so. Elsewhere the start fails with an error that names the call and wraps errors.ErrUnsupported. A [Root] needs no privilege, and works without openat2(2) too.
//
// Where mount_setattr(2) is not to be had (before Linux 5.12, or an outer filter of system calls refuses it), the same is done by mount(2): what comes from the host is attached to
// a file system of the child's own, remounted mount by mount, verified by the parent, and copied to its place. It takes longer, and has limits:
//
//   - mounts with other ids (Bind.IDMap) are an error that wraps errors.ErrUnsupported;
//   - so is a mount below a tree that the caller cannot reach, and what a [ReadOnly] has mounted below it, unless that is read-only;
//   - what another mount covers wholly keeps the attributes that it had. No path leads there, and the kernel lets nobody take the cover away who could not change the attributes as well.
//
// Where openat2(2) is not to be had (before Linux 5.6), no symbolic link is followed on the way to a mount point, a [Mask] or a [ReadOnly]: one that is there is an error, which wraps
// errors.ErrUnsupported (with an outer filter that answers EPERM, that). Without the mount API, as under the filters of container engines before 2020, nothing of this works, and
// the error says so.
package chroot
