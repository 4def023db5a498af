//go:build linux

package overlay

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Stack is a set of directories that are seen as one. Names of directories are absolute paths of the host, with any character in them.
// The last component of none may be a symbolic link.
type Stack struct {
	// Lower are the layers, the topmost first: 1 to 500 of them. They must not change while the stack is mounted.
	Lower []string

	// Upper receives what is changed, and Work is for the kernel's own use: two directories of one mount. Without them what is
	// changed is kept in memory and ends with the mount. Work is locked (flock(2)) for as long as the sandbox lives, or the [Tree]
	// is open: a second use is an EBUSY. Before Linux 6.7 both must be in the same directory.
	Upper, Work string

	// Size limits the memory of a scratch upper, in bytes, and Inodes its files and directories. Zero leaves the kernel's
	// defaults, half of the memory (tmpfs(5)).
	Size, Inodes int64

	// Keep receives the scratch upper, so that it can be made a layer; nil: it ends with the mount.
	Keep *Scratch

	// ReadOnly makes the stack read-only. It has no upper then; for the mount points of other parts a [Root] has a scratch one all the
	// same, until it is sealed.
	ReadOnly bool

	Dev    bool // device nodes in the layers work
	NoSUID bool // set-user-ID and set-group-ID bits and file capabilities do not count

	// Data are layers with data only: what is in them is not seen, but files of Lower refer to it (MetaCopy must be On).
	// Linux 6.7.
	Data []string

	// IDMap is a user namespace (/proc/PID/ns/user, package namespaces). What belongs to id 0 in the layers is then seen as belonging to the
	// host's id that 0 inside the namespace stands for. Upper is not mapped: what is written there belongs to the host's ids, and the
	// directory must do so, too. The caller mounts the stack, and needs CAP_SYS_ADMIN on the host. Linux 5.19; file systems that
	// cannot be mounted with other ids are errors.ErrUnsupported (tmpfs can since Linux 6.3).
	IDMap *os.File

	// Volatile leaves out all that makes the upper directory survive a crash of the machine (option volatile). Linux 5.10. It is of no use
	// for a scratch upper.
	Volatile bool

	// UserXattr has the marks of layers as extended attributes user.overlay.* instead of trusted.overlay.*. In a user namespace it is always
	// so.
	UserXattr bool

	MetaCopy    Setting // On, Off: a change of mode or owner copies no data. Trust the layers: it makes files refer to others
	RedirectDir Setting // On, Off, Follow, NoFollow: a directory is renamed without copying what is in it
	Index       Setting // On, Off: hard links stay hard links when they are copied up
	XIno        Setting // On, Off, Auto: inode numbers are unique in the whole stack, whatever file systems the layers are on
	UUID        Setting // On, Off, Auto, Null: the identity of the file system. Auto and Null: Linux 6.6
	NFSExport   Setting // On, Off: it can be exported; needs Index
}

// Setting is the value of an option of overlayfs. The zero value leaves the kernel's default.
type Setting string

// The values. Which of them an option has stands with its field.
const (
	On       Setting = "on"
	Off      Setting = "off"
	Auto     Setting = "auto"
	Null     Setting = "null"
	Follow   Setting = "follow"
	NoFollow Setting = "nofollow"
)

// maxLayers is the kernel's OVL_MAX_STACK.
const maxLayers = 500

// option is one option of overlayfs.
type option struct {
	key     string
	value   Setting // "" is a flag
	allowed []Setting
	modern  bool // the old interface lacks the value
}

func (s Stack) settings() []option {
	onOff := []Setting{On, Off}
	return []option{
		{key: "metacopy", value: s.MetaCopy, allowed: onOff},
		{key: "redirect_dir", value: s.RedirectDir, allowed: []Setting{On, Off, Follow, NoFollow}},
		{key: "index", value: s.Index, allowed: onOff},
		{key: "xino", value: s.XIno, allowed: []Setting{On, Off, Auto}},
		{key: "uuid", value: s.UUID, allowed: []Setting{On, Off, Auto, Null}, modern: s.UUID == Auto || s.UUID == Null},
		{key: "nfs_export", value: s.NFSExport, allowed: onOff},
	}
}

// options are those that have been asked for.
func (s Stack) options(userxattr bool) (all []option) {
	if userxattr {
		all = append(all, option{key: "userxattr"})
	}
	if s.Volatile {
		all = append(all, option{key: "volatile"})
	}
	for _, o := range s.settings() {
		if o.value != "" {
			all = append(all, o)
		}
	}
	return all
}

func (s Stack) scratch() bool { return s.Upper == "" && !s.ReadOnly }

// together reports whether Upper and Work are in one directory.
func (s Stack) together() bool {
	return s.Upper == "" || path.Dir(path.Clean(s.Upper)) == path.Dir(path.Clean(s.Work))
}

// check finds what can be said without a look at the file systems.
func (s Stack) check() error {
	for _, f := range []func() error{s.checkCounts, s.checkUpper, s.checkSettings, s.checkNames} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (s Stack) checkCounts() error {
	switch n := len(s.Lower) + len(s.Data); {
	case len(s.Lower) == 0:
		return invalid("a stack needs a lower layer")
	case n > maxLayers:
		return invalid("%d layers; the kernel takes %d at most", n, maxLayers)
	case len(s.Data) > 0 && s.MetaCopy != On:
		return invalid("Data without MetaCopy: On")
	case s.Size < 0 || s.Inodes < 0:
		return invalid("a scratch upper of %d bytes and %d inodes", s.Size, s.Inodes)
	}
	return nil
}

// checkUpper: what has no effect is refused.
func (s Stack) checkUpper() error {
	switch {
	case (s.Upper == "") != (s.Work == ""):
		return invalid("Upper and Work go together: %q, %q", s.Upper, s.Work)
	case s.Upper != "" && s.ReadOnly:
		return invalid("a read-only stack has no upper directory; put %q first in Lower", s.Upper)
	case s.Upper != "" && (s.Size > 0 || s.Inodes > 0):
		return invalid("Size and Inodes are for a scratch upper, not for %q", s.Upper)
	case s.Keep != nil && (s.Upper != "" || s.ReadOnly):
		return invalid("Keep is for a scratch upper; there is none")
	case s.Volatile && s.Upper == "":
		return invalid("Volatile without Upper")
	case s.Upper == "" && (s.Index == On || s.NFSExport == On):
		return invalid("Index and NFSExport without Upper")
	case s.ReadOnly && (s.UUID == On || s.RedirectDir == On):
		return invalid("uuid=on and redirect_dir=on in a read-only stack")
	}
	return nil
}

func (s Stack) checkSettings() error {
	for _, o := range s.settings() {
		if o.value != "" && !slices.Contains(o.allowed, o.value) {
			return invalid("%s %q", o.key, string(o.value))
		}
	}
	switch {
	case s.NFSExport == On && s.Index != On:
		return invalid("nfs_export without index")
	case s.NFSExport == On && s.MetaCopy == On:
		return invalid("nfs_export together with metacopy")
	case s.MetaCopy == On && s.Upper != "" && s.RedirectDir != "" && s.RedirectDir != On:
		return invalid("metacopy together with redirect_dir=%s", string(s.RedirectDir))
	}
	return nil
}

// checkUserXattr: the kernel refuses what trusts the marks of layers that anybody may have made.
func (s Stack) checkUserXattr() error {
	switch {
	case s.MetaCopy == On:
		return invalid("metacopy in a user namespace, or with UserXattr")
	case s.RedirectDir != "" && s.RedirectDir != NoFollow:
		return invalid("redirect_dir=%s in a user namespace, or with UserXattr", string(s.RedirectDir))
	}
	return nil
}

// checkNames refuses directories that lie in each other. The kernel finds those that do so by way of a link or a mount.
func (s Stack) checkNames() error {
	type use struct{ clean, name string }
	var all []use
	for _, name := range s.directories() {
		if !path.IsAbs(name) {
			return invalid("%q is not an absolute path", name)
		}
		all = append(all, use{strings.TrimSuffix(path.Clean(name), "/") + "/", name})
	}
	slices.SortFunc(all, func(a, b use) int { return strings.Compare(a.clean, b.clean) })
	for i := range all {
		if i > 0 && strings.HasPrefix(all[i].clean, all[i-1].clean) {
			return &Error{Op: "stack", Path: all[i].name, Err: syscall.ELOOP, Hint: fmt.Sprintf("it overlaps with %q", all[i-1].name)}
		}
	}
	return nil
}

func (s Stack) directories() []string {
	all := slices.Concat(s.Lower, s.Data)
	if s.Upper != "" {
		all = append(all, s.Upper, s.Work)
	}
	return all
}
