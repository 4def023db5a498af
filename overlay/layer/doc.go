//go:build linux

// Package layer unpacks and makes the layers of container images: tar archives that say what has changed against the layers
// below (OCI image-spec, layer.md), plain or compressed with gzip or zstd.
//
//	[Apply]  [Unpack]   a layer becomes files of a directory
//	[Diff]   [Pack]     a directory, or the upper directory of an overlay mount, becomes a layer
//	[Pack.Compare]      what has changed between two trees becomes a layer
//	[Convert]           whiteouts of one form become those of another
//
// What is deleted is a whiteout. There are several ways to write one down, and a [Form] names each: in an archive it is an empty file
// .wh.NAME, or .wh..wh..opq for all that is below a directory; in the upper directory of an overlay mount a device 0:0, or an attribute;
// aufs has the files of the archive; and in a plain tree nothing is left of it, because the file is gone.
//
// # A layer is hostile
//
// Whoever made the archive may be the enemy of whoever unpacks it. Every name is resolved word by word from the descriptor of the directory,
// and nothing is ever opened, made or removed by a path. A symbolic link on the way is followed as a process inside would: an absolute one begins
// in the directory, ".." ends there. So a layer may write through /lib to /usr/lib, as images expect, but never out of the tree, also if
// somebody changes the tree meanwhile; nor into a file system that is mounted in it. What is there is never written to, only replaced: through a hard link nothing
// reaches another file. A fifo or a device is never opened.
//
// What no honest layer has is refused, as a [*RefusedError] that stands in an [*Error] with the entry's name: names with "..", absolute names,
// whiteouts of nothing, attributes of overlay mounts, more entries, bytes or levels than the [Limits] allow. Devices are refused unless
// the caller asks for them.
//
// # The same tree gives the same bytes
//
// Diff sorts names, and writes neither access times nor inode numbers nor whether a file has holes. Owners, modes, attributes, and times of
// modification to the nanosecond are exact. Compressed bytes depend on the version of the compressor, too: compare the digest of
// the archive (the OCI's DiffID).
//
// # Needs
//
// Linux 5.8, and /proc for attributes of other things than files and directories. Apply keeps owners as the archive has them, which takes CAP_CHOWN; file
// capabilities take CAP_SETFCAP, and trusted attributes CAP_SYS_ADMIN. A user namespace gives the first two. An ordinary user takes Unprivileged, which leaves out what such a user
// cannot have, and counts it.
package layer
