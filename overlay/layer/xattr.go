//go:build linux

package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	paxAttr    = "SCHILY.xattr." // how all tools write attributes
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	capability = "security.capability"

	attrName  = 255 // XATTR_NAME_MAX and XATTR_SIZE_MAX of the kernel
	attrValue = 64 << 10
	attrsKept = 32 << 20 // bytes of attributes of all directories together, which are set in the end
)

// attr is an extended attribute, xattr(7).
type attr struct{ name, value string }

// attrsOf reads the attributes of an entry, in the order of their names. Labels of security modules and attributes that only the kernel writes are left out: they
// are the host's to decide.
func attrsOf(h *tar.Header, unprivileged bool) (list []attr, skipped int, err error) {
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxAttr)
		if !ok {
			if name, value, err = aclOf(key, value); err != nil {
				return nil, 0, err
			}
			if name == "" {
				continue
			}
		}
		keep, err := carried(name, unprivileged)
		if err != nil {
			return nil, 0, err
		}
		if keep {
			if len(name) > attrName || len(value) > attrValue {
				return nil, 0, refuse(IsBadAttr, name[:min(len(name), attrName)])
			}
			list = append(list, attr{strings.Clone(name), strings.Clone(value)}) // not the whole header for the sake of a part of it
		} else {
			skipped++
		}
	}
	slices.SortFunc(list, func(a, b attr) int { return strings.Compare(a.name, b.name) })
	// A list that is there twice, as text and as bytes, must be one.
	for i := 1; i < len(list); i++ {
		if list[i].name == list[i-1].name && list[i].value != list[i-1].value {
			return nil, 0, refuse(IsBadAttr, list[i].name)
		}
	}
	return list, skipped, nil
}

// carried reports whether layers carry an attribute.
func carried(name string, unprivileged bool) (bool, error) {
	space, rest, _ := strings.Cut(name, ".")
	switch {
	case overlayAttr(name):
		return false, refuse(IsOverlayAttr, name)
	case rest == "" || strings.IndexByte(name, 0) >= 0:
		return false, refuse(IsBadAttr, name)
	case space == "user" || name == aclAccess || name == aclDefault:
		return true, nil
	case space == "trusted" || name == capability:
		return !unprivileged, nil
	case space == "security" || space == "system":
		return false, nil
	}
	return false, refuse(IsBadAttr, name)
}

// attrFile has the calls for the attributes of one file.
type attrFile struct {
	fd   int
	path string // instead of fd
	link bool   // the path is one of a name, which is not followed
}

func openFile(fd int) attrFile { return attrFile{fd: fd} }

// openPlace gives access to the attributes of what has been opened as a place only: by way of /proc, which leads to just this inode.
func openPlace(fd int) (attrFile, error) {
	return attrFile{path: "/proc/self/fd/" + strconv.Itoa(fd)}, ownProc()
}

// named gives access to the attributes of a name in a directory, for reading.
func named(dir int, name string) attrFile {
	return attrFile{path: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name, link: true}
}

func (f attrFile) set(name, value string) error {
	if f.path != "" {
		return unix.Setxattr(f.path, name, []byte(value), 0)
	}
	return unix.Fsetxattr(f.fd, name, []byte(value), 0)
}

func (f attrFile) remove(name string) error {
	if f.path != "" {
		return unix.Removexattr(f.path, name)
	}
	return unix.Fremovexattr(f.fd, name)
}

func (f attrFile) read(name string) (string, error) {
	return grow(func(b []byte) (int, error) {
		if f.link {
			return unix.Lgetxattr(f.path, name, b)
		}
		if f.path != "" {
			return unix.Getxattr(f.path, name, b)
		}
		return unix.Fgetxattr(f.fd, name, b)
	})
}

// names lists the attributes; none where the file system has none.
func (f attrFile) names() ([]string, error) {
	text, err := grow(func(b []byte) (int, error) {
		if f.link {
			return unix.Llistxattr(f.path, b)
		}
		if f.path != "" {
			return unix.Listxattr(f.path, b)
		}
		return unix.Flistxattr(f.fd, b)
	})
	if err == syscall.ENOTSUP {
		return nil, nil
	}
	var names []string
	for name := range bytes.SplitSeq([]byte(text), []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names, err
}

// grow calls until the answer fits. The kernel's limit is 64 KiB, so rounds end.
func grow(call func(b []byte) (int, error)) (string, error) {
	for size := 512; ; size *= 4 {
		b := make([]byte, size)
		n, err := call(b)
		if err == syscall.ERANGE && size < 1<<20 {
			continue
		}
		if err != nil {
			return "", err
		}
		return string(b[:n]), nil
	}
}

// setAttrs makes the attributes of a file those of the entry. Only where it may have others is that looked up.
func (m *meta) setAttrs(f attrFile) error {
	if m.existed {
		if err := m.removeOthers(f); err != nil {
			return err
		}
	}
	for _, a := range m.attrs {
		if err := f.set(a.name, a.value); err != nil {
			return fmt.Errorf("set the attribute %s: %w", a.name, err)
		}
	}
	return nil
}

func (m *meta) removeOthers(f attrFile) error {
	names, err := f.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if slices.ContainsFunc(m.attrs, func(a attr) bool { return a.name == name }) {
			continue
		}
		if ours, err := carried(name, false); err != nil || !ours {
			continue // the mount's, or the host's
		}
		if err := f.remove(name); err != nil && err != syscall.ENODATA {
			return fmt.Errorf("remove the attribute %s: %w", name, err)
		}
	}
	return nil
}
