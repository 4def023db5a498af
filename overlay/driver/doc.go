//go:build linux

// Package driver keeps trees of files that are made from each other, in several ways behind one interface.
//
//	[Overlayfs]  a tree is what differs from its parent; the kernel puts them together. Root, or root of a user namespace
//	[Fuse]       the same by a program, fuse-overlayfs: for ordinary users
//	[Btrfs]      a tree is a snapshot, a subvolume of its own
//	[Zfs]        a tree is a clone, a dataset of its own
//	[Aufs]       as Overlayfs, with aufs, where the kernel has that
//	[Copy]       a tree is a copy that shares its data with the parent where the file system can (xfs, btrfs); anywhere
//
// Take one of them, or let [Probe] find one that works in a directory:
//
//	d, err := driver.Probe("/var/lib/trees")
//	err = d.Create("base", "")
//	tree, err := d.Open("base")      // fill tree.Path
//	err = tree.Close()
//	err = d.Create("job", "base")    // begins as base is now
//	tree, err = d.Open("job")
//	cmd := caisson.New(chroot.Pivot{Dir: tree.Path}, ...)
//
// [Layers] puts directories together as the root of one sandbox, in a way that is chosen by name, and commits what was written.
//
// A tree from which others have been made does not change any more: it cannot be opened, and not be removed while there are others. All of it holds
// among processes, too: what is open is locked, and the lock ends with the process.
package driver
