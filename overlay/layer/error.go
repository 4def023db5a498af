//go:build linux

package layer

import (
	"errors"
	"strconv"
	"syscall"
)

// Error says what could not be done with which entry. It unwraps to the errno, to a [*RefusedError], to ErrCorrupt, io.ErrUnexpectedEOF or the
// context's error.
type Error struct {
	Op    string // what was tried: "apply", "diff", "convert"
	Entry string // the name in the archive or tree; "" where there is none
	Err   error
	Hint  string // what to do, where the errno alone would mislead; or ""
}

// Error gives all that is known on one line.
func (e *Error) Error() string {
	text := e.Op
	if e.Entry != "" {
		text += " " + quote(e.Entry)
	}
	text += ": " + e.Err.Error()
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// quote keeps a line a line, and short: an entry's name may have a megabyte.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		return strconv.Quote(name[:most/2]) + "..." + strconv.Quote(name[len(name)-most/2:])
	}
	return strconv.Quote(name)
}

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// fail makes an error one that names the entry, unless it does so already.
func fail(op, entry string, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{Op: op, Entry: entry, Err: err, Hint: hint(err)}
}

func hint(err error) string {
	if errors.Is(err, errOwner) {
		return "to set owners takes CAP_CHOWN; Unprivileged leaves them out"
	}
	return ""
}

// errOwner marks the failure to set an owner.
var errOwner = errors.New("owner")

// ErrCorrupt says that the compressed bytes or the archive are not what they claim to be. Where the data end too early, the error
// is io.ErrUnexpectedEOF as well.
var ErrCorrupt = errors.New("corrupt layer")

type corrupt struct{ err error }

func (c *corrupt) Error() string   { return ErrCorrupt.Error() + ": " + c.err.Error() }
func (c *corrupt) Unwrap() []error { return []error{ErrCorrupt, c.err} }

// Refusal is a reason for which an entry is not unpacked, or a file not packed.
type Refusal uint8

// The reasons.
const (
	IsAbsolute    Refusal = iota + 1 // the name, or the target of a hard link, begins with a slash
	IsDotDot                         // the name, or the target of a hard link, has a ".." in it
	IsNoName                         // the name is empty, or has a NUL in it
	IsRoot                           // only a directory can be the root
	IsBadWhiteout                    // a whiteout of nothing, of "." or "..", an unknown special one, or a name below one
	IsWhiteout                       // a device 0:0, or a name with .wh., which would be taken for a whiteout
	IsDevice                         // a device, which the caller has not asked for
	IsUnknown                        // an entry of a type that layers do not have
	IsBelowFile                      // a directory on the way is something else
	IsLoop                           // more than 40 symbolic links on the way
	IsMount                          // another file system is mounted on the way
	IsReplaced                       // a directory has become another one meanwhile
	IsTooMany                        // more entries than the limit
	IsTooLarge                       // more bytes than the limit
	IsTooDeep                        // more levels than the limit
	IsHeader                         // more header than any entry needs
	IsBadOwner                       // a user or group that no file can have
	IsOverlayAttr                    // an attribute that an overlay mount would obey
	IsBadAttr                        // an attribute or an access control list that cannot be read
	IsChanged                        // the file has changed while it was read
	IsNeedsLower                     // the file's contents are in a lower layer (metacopy, redirect_dir)
	IsBusy                           // somebody holds a lease on the file and would make us wait (fcntl(2), F_SETLEASE)
)

var refusals = [...]struct {
	text  string
	errno syscall.Errno
}{IsAbsolute: {"an absolute name", syscall.EINVAL}, IsDotDot: {`".." in a name`, syscall.EINVAL}, IsNoName: {"not a name", syscall.EINVAL},
	IsRoot: {"the root is not a directory", syscall.ENOTDIR}, IsBadWhiteout: {"not a whiteout that makes sense", syscall.EINVAL},
	IsWhiteout: {"would be taken for a whiteout", syscall.EINVAL}, IsDevice: {"a device", syscall.EPERM}, IsUnknown: {"of a type that layers do not have", syscall.EINVAL},
	IsBelowFile: {"below something that is not a directory", syscall.ENOTDIR},
	IsLoop:      {"too many symbolic links on the way", syscall.ELOOP}, IsMount: {"another file system is mounted on the way", syscall.EXDEV},
	IsReplaced: {"a directory was replaced meanwhile", syscall.EAGAIN}, IsTooMany: {"more entries than the limit", syscall.EFBIG},
	IsTooLarge: {"larger than the limit", syscall.EFBIG}, IsTooDeep: {"deeper than the limit", syscall.ENAMETOOLONG},
	IsHeader: {"a header larger than any entry needs", syscall.EFBIG}, IsBadOwner: {"an owner that no file can have", syscall.EINVAL},
	IsOverlayAttr: {"an attribute of overlay mounts", syscall.EPERM}, IsBadAttr: {"an attribute that cannot be read", syscall.EINVAL},
	IsChanged: {"changed while it was read", syscall.EAGAIN}, IsNeedsLower: {"its contents are in a lower layer", syscall.EINVAL},
	IsBusy: {"under a lease", syscall.EWOULDBLOCK}}

// String gives the reason in words.
func (r Refusal) String() string {
	if int(r) < len(refusals) && refusals[r].text != "" {
		return refusals[r].text
	}
	return "refused"
}

// RefusedError says why an entry is refused. What stands in the [*Error] around it is the entry's name.
type RefusedError struct {
	Why    Refusal
	Detail string // the attribute, the limit, the link's target; or ""
}

// Error gives the reason.
func (e *RefusedError) Error() string {
	text := "refused: " + e.Why.String()
	if e.Detail != "" {
		text += ": " + quote(e.Detail)
	}
	return text
}

// Unwrap gives the errno that is nearest.
func (e *RefusedError) Unwrap() error {
	if int(e.Why) < len(refusals) && refusals[e.Why].errno != 0 {
		return refusals[e.Why].errno
	}
	return syscall.EPERM
}

func refuse(why Refusal, detail string) error { return &RefusedError{why, detail} }
