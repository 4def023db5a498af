//go:build linux

// Package overlay mounts layers on top of each other as one file system (overlayfs, Documentation/filesystems/overlayfs.rst).
//
// A [Stack] says what lies on what. It is the root of a sandbox, a mount in it, or a mount of the caller's own:
//
//	[Root]        a plan.Primitive: the stack is the root, as chroot.Pivot makes a directory the root
//	[Mount]       a plan.Primitive: the stack at a path of the root
//	[Stack.Open]  a mount that is attached nowhere; [Stack.Mount] attaches it to a directory of the host
//
// Layers are only read. What the command changes is written into an upper directory: one of the caller's, or a scratch one in memory, with a
// size, that ends with the sandbox. [Quota] limits one on the disk.
//
//	caisson.New(
//		namespaces.PID|namespaces.Net|namespaces.IPC,
//		overlay.Root{Lower: []string{"/layers/python", "/layers/debian"}, Size: 64 << 20},
//		chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"},
//	)
//
// [Take] makes the upper directory of a sandbox that has ended a layer, at no cost; [Freeze] copies that of one that runs, and
// [Scratch.Freeze] one in memory. Any number of sandboxes start from it.
//
// # How a stack is mounted
//
// The child opens each layer as a directory, without following a symbolic link that has been put in its place, enters it and names it
// "." to the kernel. So no path has to be quoted, none is too long, there may be 500 of them, which is the kernel's limit, and what a path leads to cannot be changed
// between. The sandbox does not see in its mount table where the layers lie on the host.
//
// That is how Linux takes layers since 6.7. Before, all of them have to be named in one text: there the layers are bound in a file system of
// the sandbox's own, by names as short as 0 and 1, before the root is changed. The plan has both ways, and the kernel's answers decide which one is gone: nothing is
// concluded from its version.
//
// # User namespaces
//
// In a user namespace the kernel neither reads nor writes the extended attributes trusted.overlay.*, which mark a directory that hides
// the one below it. There the stack is mounted with the option userxattr, and the marks are user.overlay.*: layers have to
// be unpacked with these. Linux 5.11; a scratch upper needs Linux 6.6, since when tmpfs has such attributes.
//
// # Needs
//
// CAP_SYS_ADMIN, or a user namespace of the sandbox's own. Linux 5.12; what needs more says so. What the kernel cannot do is an error that wraps
// errors.ErrUnsupported and names the option.
package overlay
