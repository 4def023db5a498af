//go:build linux

package caps

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// File is what the capabilities of a file give to who executes it (capabilities(7), "File capabilities"). The zero value gives nothing, which
// is something else than a file without any: user 0 who executes it gains nothing either.
type File struct {
	Permitted   Set  // are gained, as far as they are in the bounding set
	Inheritable Set  // are gained, as far as they are in the inheritable set of who executes the file
	Effective   bool // what is gained is effective at once; for programs that know nothing of capabilities

	// RootID is the user that is 0 in the user namespace in which the file gives capabilities, and in those below it, as an id of the caller's own
	// namespace (Linux 4.14). 0 is everywhere that the caller's root is.
	RootID uint32
}

// The format, struct vfs_cap_data of linux/capability.h: a word with revision and flag, then for 32 capabilities each a word of
// permitted and one of inheritable ones, then the id of root. All are little endian.
const (
	revisionMask  = 0xff000000
	revision1     = 0x01000000
	revision2     = 0x02000000
	revision3     = 0x03000000
	effectiveFlag = 1
)

func revisionSize(revision uint32) int {
	switch revision {
	case revision1:
		return 12
	case revision2:
		return 20
	case revision3:
		return 24
	}
	return -1
}

// FormatError says that the capabilities of a file are not in a format that capabilities(7) knows. It is an EINVAL for errors.Is.
type FormatError struct {
	Size     int // bytes
	Revision int // 0 where there are not even four bytes
}

// Error gives size and revision.
func (e *FormatError) Error() string {
	return fmt.Sprintf("file capabilities of revision %d do not have %d bytes", e.Revision, e.Size)
}

// Unwrap gives EINVAL.
func (e *FormatError) Unwrap() error { return syscall.EINVAL }

// UnmarshalBinary reads the value of the extended attribute security.capability, in revision 1, 2 or 3. Flags that have no meaning are
// passed over, as by the kernel. The error is a [*FormatError].
func (c *File) UnmarshalBinary(b []byte) error {
	if len(b) < 4 {
		return &FormatError{Size: len(b)}
	}
	word := func(n int) uint32 { return binary.LittleEndian.Uint32(b[4*n:]) }
	revision := word(0) & revisionMask
	if len(b) != revisionSize(revision) {
		return &FormatError{Size: len(b), Revision: int(revision >> 24)}
	}
	*c = File{Permitted: Set(word(1)), Inheritable: Set(word(2)), Effective: word(0)&effectiveFlag != 0}
	if revision != revision1 {
		c.Permitted, c.Inheritable = halves(word(1), word(3)), halves(word(2), word(4))
	}
	if revision == revision3 {
		c.RootID = word(5)
	}
	return nil
}

// MarshalBinary gives the value of the extended attribute: revision 3 where there is a RootID, else revision 2. The error is nil.
func (c File) MarshalBinary() ([]byte, error) {
	head := uint32(revision2)
	if c.RootID != 0 {
		head = revision3
	}
	if c.Effective {
		head |= effectiveFlag
	}
	var b []byte
	for _, w := range []uint32{head, uint32(c.Permitted), uint32(c.Inheritable), uint32(c.Permitted >> 32), uint32(c.Inheritable >> 32)} {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	if c.RootID != 0 {
		b = binary.LittleEndian.AppendUint32(b, c.RootID)
	}
	return b, nil
}

// String gives what getcap -n prints: "cap_net_raw=ep", "cap_chown=p [rootid=1000]".
func (c File) String() string {
	s := State{Permitted: c.Permitted, Inheritable: c.Inheritable}
	if c.Effective {
		s.Effective = c.Permitted | c.Inheritable
	}
	if c.RootID != 0 {
		return fmt.Sprintf("%s [rootid=%d]", s.Text(), c.RootID)
	}
	return s.Text()
}

// ParseFile reads what String gives, and what setcap(8) takes. Effective are all that the file gives or none: the kernel keeps only one bit of
// it. The error is a [*TextError].
func ParseFile(text string) (File, error) {
	clauses, root, _ := strings.Cut(text, "[rootid=")
	c := File{}
	if digits, ok := strings.CutSuffix(root, "]"); ok {
		id, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			return File{}, &TextError{Text: "[rootid=" + root}
		}
		c.RootID = uint32(id)
	} else if clauses != text {
		return File{}, &TextError{Text: "[rootid=" + root}
	}
	s, err := ParseText(clauses)
	if err != nil {
		return File{}, err
	}
	gives := s.Permitted | s.Inheritable
	if s.Effective != 0 && s.Effective != gives {
		return File{}, &TextError{Text: text}
	}
	c.Permitted, c.Inheritable, c.Effective = s.Permitted, s.Inheritable, s.Effective != 0
	return c, nil
}

// MarshalText gives what String gives.
func (c File) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what [ParseFile] reads.
func (c *File) UnmarshalText(text []byte) (err error) {
	*c, err = ParseFile(string(text))
	return err
}
