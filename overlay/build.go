//go:build linux

package overlay

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// build turns a stack into calls. They are made by the child of a sandbox, or by a thread of the caller's.
type build struct {
	p         *plan.Plan
	s         Stack
	userxattr bool
	idmap     *plan.File // the user namespace
	top       root       // of the topmost layer

	layers      []layer
	upper, work plan.Slot  // directories of the caller's
	store       *plan.Slot // a file system of our own, for what has to be there for a moment, and for a scratch upper
	mount       plan.Slot  // the result
}

// layer is a lower directory.
type layer struct {
	name, key string
	at        plan.Slot
	short     string // its name in the store
}

// record adds the calls to the plan. Paths are resolved in phase Sources; the rest is done at the beginning of phase Root, when nobody needs
// the host's /proc any more.
func (b *build) record() error {
	if b.userxattr {
		if err := b.s.checkUserXattr(); err != nil {
			return err
		}
	}
	b.p.Child(plan.Sources, b.open()...)
	var common []plan.Op
	if b.s.scratch() || b.idmap != nil || b.padded() {
		common = b.makeStore()
	}
	if b.idmap != nil {
		common = append(common, b.bindLayers()...)
	}
	if b.s.Index == On {
		common = append(common, b.tryHandles()...)
	}
	if b.s.Upper != "" {
		common = append(common, b.tryXattr(b.work, fmt.Sprintf("the file system of Work %q has no extended attributes", b.s.Work))...)
	}
	b.p.Child(plan.Root, common...)
	b.takeScratch()
	b.p.Child(plan.Root, b.choose()...)
	if !b.s.ReadOnly {
		b.p.Child(plan.Root, b.tryWrite())
	}
	return nil
}

// padded: the kernel wants two layers where there is no upper directory, and an empty one makes no difference.
func (b *build) padded() bool { return b.s.ReadOnly && len(b.s.Lower)+len(b.s.Data) == 1 }

// open opens all directories.
func (b *build) open() (ops []plan.Op) {
	for i, name := range b.s.directories() {
		l := layer{name: name, key: "lowerdir+", at: b.p.Slot(), short: strconv.FormatInt(int64(i), 36)} // two small letters at most
		if i >= len(b.s.Lower) {
			l.key = "datadir+"
		}
		ops = append(ops, openDir(name, l.at))
		if n := len(b.s.Lower) + len(b.s.Data); i < n {
			b.layers = append(b.layers, l)
		} else if i == n {
			b.upper = l.at
		} else {
			b.work = l.at
		}
	}
	return ops
}

// makeStore makes a file system in memory and attaches it to a place that nobody looks at any more: /proc of the host's tree, which goes
// when the root has changed. What is attached nowhere could not be a layer (until Linux 6.15).
func (b *build) makeStore() []plan.Op {
	store := b.p.Slot()
	b.store = &store
	options := []mnt.Option{{Key: "mode", Value: "755"}}
	if b.s.Size > 0 {
		options = append(options, mnt.Option{Key: "size", Value: strconv.FormatInt(b.s.Size, 10)})
	}
	if b.s.Inodes > 0 {
		options = append(options, mnt.Option{Key: "nr_inodes", Value: strconv.FormatInt(b.s.Inodes, 10)})
	}
	ops := append(mnt.New(b.p, "tmpfs", store, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, options...),
		mnt.Attach(store, "/proc").Hint(syscall.ENOENT, "the host has no /proc"))
	if b.padded() {
		ops = append(ops, mnt.Mkdir(store, "empty", 0o755))
	}
	if b.s.scratch() {
		ops = append(ops, b.makeScratch()...)
	}
	return ops
}

// makeScratch makes the directories of a scratch upper. The root of the stack has the mode and the owner of the upper directory.
func (b *build) makeScratch() []plan.Op {
	ops := []plan.Op{mnt.Mkdir(*b.store, "upper", b.top.mode), mnt.Mkdir(*b.store, "work", 0o700)}
	if b.top.uid != 0 || b.top.gid != 0 {
		ops = append(ops,
			plan.Call("fchownat", unix.SYS_FCHOWNAT, plan.Saved(*b.store), plan.Str("upper"), id(b.top.uid), id(b.top.gid), plan.Int(0)),
			plan.Call("fchmodat", unix.SYS_FCHMODAT, plan.Saved(*b.store), plan.Str("upper"), plan.Octal(b.top.mode)))
	}
	if b.userxattr { // the others tmpfs has always had
		ops = append(ops, b.tryXattr(*b.store, "a scratch upper in a user namespace needs extended attributes user.* on tmpfs, Linux 6.6; give Upper and Work")...)
	}
	return ops
}

// bindLayers puts the layers into the store, by short names.
func (b *build) bindLayers() (ops []plan.Op) {
	for i := range b.layers {
		l := &b.layers[i]
		at, more := b.bind(l.at, l.short, l.name)
		if l.at = at; b.idmap != nil {
			more = slices.Insert(more, len(more)-1, b.mapIDs(at, l.name))
		}
		ops = append(ops, more...)
	}
	return ops
}

// bindUpper puts upper and work there. They must be on one mount, so their common parent is bound.
func (b *build) bindUpper() []plan.Op {
	if b.s.Upper == "" {
		return nil
	}
	parent, at := path.Dir(path.Clean(b.s.Upper)), b.p.Slot()
	_, ops := b.bind(at, "both", parent)
	return append(append([]plan.Op{openDir(parent, at)}, ops...),
		mnt.Symlink(*b.store, "both/"+path.Base(b.s.Upper), "U"), mnt.Symlink(*b.store, "both/"+path.Base(b.s.Work), "W"))
}

// choose mounts in the new way, or in the old one. A parameter without a value is an error to the new parser, and a word like any other to the
// old one, which reads it when the mount is made.
func (b *build) choose() []plan.Op {
	fs := b.p.Slot()
	fsopen := plan.Call("fsopen", unix.SYS_FSOPEN, plan.Str("overlay"), plan.Number(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).Save(fs).
		Hint(syscall.ENODEV, "the kernel has no overlayfs").
		Hint(syscall.EPERM, "needs CAP_SYS_ADMIN, or namespaces.User")
	old := b.old(fs)
	modern := b.modern(fs)
	k := len(b.toFirst(fs)) - 1 // the first layer tells whether the kernel takes one after the other
	modern[k] = modern[k].Tolerate(syscall.EINVAL).Skip(len(modern) - k)
	ops := []plan.Op{fsopen, setFlag(fs, "lowerdir+").Tolerate(syscall.EINVAL).Skip(1), jump(len(modern) + 1)}
	ops = append(append(ops, modern...), jump(len(old)))
	return append(ops, old...)
}

// toFirst are the calls up to the one that names the first layer.
func (b *build) toFirst(fs plan.Slot) []plan.Op { return b.name(fs, b.layers[0]) }

// name names a layer: it is where we are.
func (b *build) name(fs plan.Slot, l layer) []plan.Op {
	return []plan.Op{enter(l.at), set(fs, l.key, ".").
		Hint(syscall.EINVAL, fmt.Sprintf("%q cannot be a layer: it is on another mount namespace's mount, or on a file system that overlayfs does not take", l.name)).
		Hint(syscall.ELOOP, fmt.Sprintf("%q overlaps with another layer", l.name))}
}

// modern names each layer in a call of its own (Linux 6.7).
func (b *build) modern(fs plan.Slot) (ops []plan.Op) {
	for _, l := range b.layers {
		named := b.name(fs, l)
		if l.key == "datadir+" {
			named = append(named[:1:1], require(fs, named[1], "data-only layers (Linux 6.7)")...)
		}
		ops = append(ops, named...)
	}
	if b.padded() {
		ops = append(ops, enter(*b.store), set(fs, "lowerdir+", "empty"))
	}
	ops = append(ops, b.nameUpper(fs)...)
	for _, o := range b.s.options(b.userxattr) {
		op := setFlag(fs, o.key)
		if o.value != "" {
			op = set(fs, o.key, string(o.value))
		}
		ops = append(ops, require(fs, op, o.text())...)
	}
	return append(ops,
		hints(b.s, plan.Call("fsconfig", unix.SYS_FSCONFIG, plan.Saved(fs), plan.Number(unix.FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE"),
			plan.Null(), plan.Null(), plan.Int(0))),
		plan.Call("fsmount", unix.SYS_FSMOUNT, plan.Saved(fs), plan.Number(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"), mnt.Attributes(b.s.attributes())).Save(b.mount))
}

func (o option) text() string {
	if o.value == "" {
		return "option " + o.key
	}
	return "option " + o.key + "=" + string(o.value)
}

func (b *build) nameUpper(fs plan.Slot) []plan.Op {
	upper, work := set(fs, "upperdir", "."), set(fs, "workdir", ".")
	switch {
	case b.s.Upper == "" && b.s.ReadOnly:
		return nil
	case b.s.Upper == "":
		return hintUpper(b.s, enter(*b.store), set(fs, "upperdir", "upper"), set(fs, "workdir", "work"))
	}
	return hintUpper(b.s, enter(b.upper), upper, enter(b.work), work)
}

// old names all layers in one text, of at most a page (mount(2)). It is given in one piece, since a string of fsconfig(2) has 255
// bytes at most. With the short names 500 layers need 1.4 KB.
func (b *build) old(fs plan.Slot) (ops []plan.Op) {
	for _, o := range b.s.options(b.userxattr) {
		if o.modern {
			return []plan.Op{unsupported(fs, o.text()+" (Linux 6.6)")}
		}
	}
	switch {
	case len(b.s.Data) > 0:
		return []plan.Op{unsupported(fs, "data-only layers (Linux 6.7)")}
	case !b.s.together():
		return []plan.Op{unsupported(fs, "way to take Upper and Work from different directories (Linux 6.7)")}
	}
	bound := *b // what is bound here is bound here only
	bound.layers = slices.Clone(b.layers)
	if b.store == nil {
		ops = bound.makeStore()
	}
	if b.idmap == nil {
		ops = append(ops, bound.bindLayers()...)
	}
	ops = append(ops, bound.bindUpper()...)
	place := b.p.Slot()
	ops = append(ops,
		mnt.Mkdir(*bound.store, "M", 0o700),
		enter(*bound.store),
		hints(b.s, plan.Call("mount", unix.SYS_MOUNT, plan.Str("overlay"), plan.Str("M"), plan.Str("overlay"), plan.Int(0), plan.Str(bound.text()))))
	if mnt.ViewOf(b.p).NoSetAttr() { // what is attached can be mounted anew, and the copy has the same
		return append(ops, mnt.Remount("M", mnt.RemountFlags(b.s.attributes())),
			mnt.OpenPath(plan.Saved(*bound.store), "M", unix.O_DIRECTORY, 0).Save(place),
			mnt.CloneAt(plan.Saved(place), "", 0).Save(b.mount))
	}
	return append(ops,
		mnt.OpenPath(plan.Saved(*bound.store), "M", unix.O_DIRECTORY, 0).Save(place),
		mnt.CloneAt(plan.Saved(place), "", 0).Save(b.mount),
		mnt.SetAttr(b.mount, false, b.s.attributes(), 0))
}

// text is the data of mount(2).
func (b *build) text() string {
	var names []string
	for _, l := range b.layers {
		names = append(names, l.short)
	}
	if b.padded() {
		names = append(names, "empty")
	}
	text := "lowerdir=" + strings.Join(names, ":")
	switch {
	case b.s.Upper == "" && b.s.ReadOnly:
	case b.s.Upper == "":
		text += ",upperdir=upper,workdir=work"
	default:
		text += ",upperdir=U,workdir=W"
	}
	for _, o := range b.s.options(b.userxattr) {
		text += "," + strings.TrimSuffix(o.key+"="+string(o.value), "=")
	}
	return text
}

func (s Stack) attributes() (attr uint64) {
	for _, a := range []struct {
		on  bool
		bit uint64
	}{{s.ReadOnly, unix.MOUNT_ATTR_RDONLY}, {s.NoSUID, unix.MOUNT_ATTR_NOSUID}, {!s.Dev, unix.MOUNT_ATTR_NODEV}} {
		if a.on {
			attr |= a.bit
		}
	}
	return attr
}
