package chroot

// ByHand makes the root resolve names as on a kernel without openat2.
func (r *Root) ByHand() { r.walk = true }

// HaveOpenat2 reports whether the root uses it.
func (r *Root) HaveOpenat2() bool { return !r.walk }
