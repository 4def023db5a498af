//go:build linux

package chroot

import (
	"errors"
	"strings"
	"syscall"
)

// Error says what could not be done, with which path, and why. It unwraps to the errno, so that errors.Is works with
// fs.ErrPermission, fs.ErrNotExist, errors.ErrUnsupported and the errno itself.
type Error struct {
	Op   string // what was tried: "open", "rename"
	Path string // as it was given; inside the root for a [Root]
	Err  error  // most often a syscall.Errno or a *RefusedError
	Hint string // what to do, where the errno alone would mislead; or ""
}

// Error gives all that is known on one line.
func (e *Error) Error() string {
	text := "chroot: " + e.Op
	if e.Path != "" {
		text += " " + strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(e.Path)
	}
	text += ": " + e.Err.Error()
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

func hintFor(err error, e syscall.Errno, hint string) string {
	if errors.Is(err, e) {
		return hint
	}
	return ""
}

// unsupported is errors.ErrUnsupported for errors.Is, and its errno.
type unsupported struct {
	text  string
	errno error
}

func (u *unsupported) Error() string   { return u.text }
func (u *unsupported) Unwrap() []error { return []error{errors.ErrUnsupported, u.errno} }

// Refusal is why a file is not copied, or not opened.
type Refusal uint8

// The reasons of a refusal.
const (
	IsSymlink   Refusal = iota + 1 // it is a symbolic link, or the way to it leads through one
	IsFIFO                         // opening it could block, and its contents are somebody's who lives
	IsDevice                       // opening a device does something
	IsSocket                       // it has no contents
	IsDirectory                    // a file is wanted
	IsHardLink                     // the file has a further name, perhaps one that is not the sandbox's
	IsTooLarge                     // it has more bytes than the limit
	IsBusy                         // somebody holds a lease on it and would make us wait (fcntl(2), F_SETLEASE)
	IsReplaced                     // it has become another file while it was opened
	IsKernels                      // it is a file of /proc, /sys or the like: whoever reads it decides what it says
)

var refusals = [...]struct {
	text  string
	errno syscall.Errno
}{IsSymlink: {"a symbolic link", syscall.ELOOP}, IsFIFO: {"a fifo", syscall.EPERM}, IsDevice: {"a device", syscall.EPERM},
	IsSocket: {"a socket", syscall.EPERM}, IsDirectory: {"a directory", syscall.EISDIR},
	IsHardLink: {"a file with a further hard link", syscall.EMLINK}, IsTooLarge: {"larger than the limit", syscall.EFBIG},
	IsBusy: {"under a lease", syscall.EWOULDBLOCK}, IsReplaced: {"replaced meanwhile", syscall.EAGAIN},
	IsKernels: {"a file of the kernel's", syscall.EPERM}}

// String gives the reason in words.
func (r Refusal) String() string {
	if int(r) < len(refusals) && refusals[r].text != "" {
		return refusals[r].text
	}
	return "refused"
}

// RefusedError says that a file is nothing that should be opened. The target of a link, a device or a fifo has not been touched.
type RefusedError struct{ Why Refusal }

// Error gives the reason.
func (e *RefusedError) Error() string { return "refused: " + e.Why.String() }

// Unwrap gives the errno that is nearest: ELOOP, EPERM, EISDIR, EMLINK, EFBIG, EWOULDBLOCK, EAGAIN.
func (e *RefusedError) Unwrap() error {
	if int(e.Why) < len(refusals) && refusals[e.Why].errno != 0 {
		return refusals[e.Why].errno
	}
	return syscall.EPERM
}
