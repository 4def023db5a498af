//go:build linux

package layer

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Form is a way to write down in a directory what is deleted from the layers below.
type Form uint8

// The forms.
const (
	// Plain is a tree that is complete by itself: what is deleted is not there. Apply removes what whiteouts name; for Diff the tree
	// is a base layer.
	Plain Form = iota
	// Overlay is what the kernel's overlay mounts have in their upper and lower directories: a device 0:0, and the attribute trusted.overlay.opaque,
	// which takes CAP_SYS_ADMIN in the initial user namespace.
	Overlay
	// UserOverlay is the same for mounts with userxattr (Linux 5.11), with user.overlay.opaque: it takes no privilege.
	UserOverlay
	// AUFS is files .wh.NAME and .wh..wh..opq, as in an archive. fuse-overlayfs understands it, too.
	AUFS
)

var errBadValue = fmt.Errorf("no such value: %w", syscall.EINVAL)

const (
	whiteout = ".wh."         // prefix of a name that is deleted
	special  = ".wh..wh."     // prefix of what aufs keeps for itself
	opaque   = ".wh..wh..opq" // nothing of the lower layers is in the directory
)

// String gives the form's name.
func (f Form) String() string {
	switch f {
	case Plain:
		return "plain"
	case Overlay:
		return "overlay"
	case UserOverlay:
		return "user overlay"
	case AUFS:
		return "aufs"
	}
	return fmt.Sprintf("form %d", uint8(f))
}

// kernels reports whether the kernel's overlay understands the form.
func (f Form) kernels() bool { return f == Overlay || f == UserOverlay }

// attr gives the name of one of overlay's attributes.
func (f Form) attr(name string) string {
	if f == UserOverlay {
		return "user.overlay." + name
	}
	return "trusted.overlay." + name
}

// isWhiteout reports whether a file is a whiteout of the kernel's.
func isWhiteout(mode uint32, rdev uint64) bool {
	return mode&unix.S_IFMT == unix.S_IFCHR && rdev == 0
}

// hidden gives what a name of a whiteout stands for: another name, or for an opaque directory "".
func hidden(base string) (string, error) {
	if base == opaque {
		return "", nil
	}
	name := strings.TrimPrefix(base, whiteout)
	if name == "" || name == "." || name == ".." || strings.HasPrefix(base, special) {
		return "", refuse(IsBadWhiteout, "")
	}
	return name, nil
}

// overlayAttr reports whether an attribute is one that overlay mounts obey.
func overlayAttr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}
