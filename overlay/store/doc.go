//go:build linux

// Package store keeps the layers of images, each once, unpacked and ready to be lower directories of overlay mounts.
//
// A layer is known by its DiffID, the digest of its uncompressed archive. A chain is a list of them, as the configuration of an image has it: the base first.
// What several images have in common is there once, on disk and in the page cache.
//
//	[Dir.Open]        opens a directory as a Store
//	[Store.Add]       unpacks a layer; one that is known is not even read
//	[Store.Import]    reads an image: an OCI layout, an archive of docker save, the tarball of a root file system
//	[Store.Export]    writes one that the OCI's tools and docker load read
//	[Store.Lease]     holds layers and gives their directories, the topmost first
//	[Store.Collect]   removes what no image and no lease needs
//
// For example:
//
//	s, err := store.Dir{Path: "/var/lib/app/layers"}.Open()
//	images, err := s.Import(ctx, "python.tar")
//	lease, err := s.Lease(ctx, images[0].Layers...)
//	defer lease.Release()
//	root := overlay.Root{Lower: lease.Lowers()}
//
// # Complete or absent
//
// A layer is unpacked beside its place, verified, written to disk (syncfs(2)) and then renamed. Whenever the process is killed, the machine or the disk fails, a layer is there as a whole or not at
// all; what is left over is removed by the next Collect. Processes share a store: they hold locks (flock(2)), which the kernel lets go when they end, so that a lease never outlives
// its holder. Two that want the same layer at the same time unpack it once.
//
// # Whom it trusts
//
// Nobody who makes images: package layer is what unpacks, digests are verified on the way, and sizes, numbers and names of an image have limits. The store's directory belongs to one user and
// must be closed to all others, since set-user-ID programs of images are in it.
//
// # Needs
//
// A root process with the capabilities of package layer, or Unprivileged, for mounts with userxattr. The file system must have what overlay mounts want of a lower directory: extended attributes
// of trusted, or of user for an ordinary user.
package store
