package chroot

import "os"

// ByHand makes the root resolve names as on a kernel without openat2.
func (r *Root) ByHand() { r.walk = true }

// HaveOpenat2 reports whether the root uses it.
func (r *Root) HaveOpenat2() bool { return !r.walk }

// Tree is what is cloned, or nil.
func (t *DevTree) Tree() *os.File { return t.tree }

// WithTree is a DevTree that clones the file; with nil, one as on a kernel that does not clone.
func (d Dev) WithTree(f *os.File) *DevTree { return &DevTree{dev: d, tree: f} }

// MayMakeNodes reports whether the nodes of a Dev without a user namespace are its own.
var MayMakeNodes = mayMakeNodes
