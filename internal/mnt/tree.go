//go:build linux

package mnt

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Tree is a detached copy of mounts of the host's, whose attributes are to change.
type Tree struct {
	Mount       plan.Arg
	Path        func() string // of the host: what it is a copy of
	Dir         bool          // else it is a file
	Recursive   bool
	Set, Clear  uint64 // MOUNT_ATTR_...
	KeepTop     bool   // the topmost mount keeps what it has
	Propagation uint64 // MS_PRIVATE or MS_SLAVE, where the parent has made the copy and had no mount_setattr to say so
	Early       bool
	Target      string // where it will be, for names

	out plan.Slot
}

// Restrict changes the attributes, and gives what stands for the tree from then on.
//
// Without mount_setattr(2) only what is attached can be changed, one mount at a time (mount(2), MS_REMOUNT|MS_BIND). So all trees are attached to a file
// system of the child's own, for as long as it takes: nothing else has come to life yet, and nobody else can reach them there. The parent says which mounts there are, and
// looks at the result, before copies of them go on to where they belong: see restrict.
func (v *View) Restrict(p *plan.Plan, t Tree) plan.Arg {
	if v.lacks.setAttr && (t.Set|t.Clear|t.Propagation) != 0 {
		t.out = p.Slot()
		v.trees = append(v.trees, t)
		return plan.Saved(t.out)
	}
	if t.Set|t.Clear == 0 {
		return t.Mount
	}
	op := SetAttrOf(t.Mount, t.Recursive, t.Set, t.Clear)
	if t.Early {
		op = op.Early()
	}
	p.Child(plan.Sources, op)
	if t.KeepTop {
		p.Child(plan.Sources, SetAttrOf(t.Mount, false, 0, t.Set))
	}
	return t.Mount
}

// SealTop makes the mount behind a descriptor read-only, in phase Seal.
func (v *View) SealTop(p *plan.Plan, mount plan.Arg) {
	if !v.lacks.setAttr {
		p.Child(plan.Seal, SetAttrOf(mount, false, unix.MOUNT_ATTR_RDONLY, 0))
		return
	}
	flags := p.Slot()
	p.AskAt(plan.Seal, Duplicate(mount), flags, func(_ *plan.Run, f *os.File) (uintptr, error) {
		defer f.Close()
		return ReadOnlyFlags(f)
	})
	p.Child(plan.Seal, Chdir(mount), Remount(".", plan.Saved(flags)), plan.Call("chdir", unix.SYS_CHDIR, plan.Str("/")))
}

// ReadOnlyFlags are those with which a mount is made read-only and otherwise stays as it is.
func ReadOnlyFlags(f *os.File) (uintptr, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	const stNoSymFollow = 0x2000
	flags := uintptr(st.Flags)&(unix.ST_NOSUID|unix.ST_NODEV|unix.ST_NOEXEC) | unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY
	if st.Flags&stNoSymFollow != 0 {
		flags |= noSymFollow
	}
	return flags, nil
}

// name is where the tree is attached for the time being.
func (t Tree) name(i int) string {
	name := strconv.Itoa(i) + strings.ReplaceAll(t.Target, "/", "-")
	return name[:min(len(name), 200)]
}

// restrict records what changes the attributes of all trees that have been given to Restrict. It comes first in phase Root: the file system on which they are
// attached is mounted over the root, and what copies the host's tree has to have come before.
func (v *View) restrict(p *plan.Plan) {
	if len(v.trees) == 0 {
		return
	}
	here, area := p.Slot(), p.Slot()
	p.Child(plan.Root, openWord(CWD(), ".", unix.O_DIRECTORY).Save(here).Tolerate(syscall.EACCES))
	p.Child(plan.Root, New(p, "tmpfs", area, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC, Option{Key: "mode", Value: "700"})...)
	p.Child(plan.Root, Attach(area, "/"))
	for i, t := range v.trees {
		p.Child(plan.Root, MakePoint(plan.Saved(area), t.name(i), t.Dir), AttachAt(t.Mount, plan.Saved(area), t.name(i)))
	}
	p.Child(plan.Root, Chdir(plan.Saved(area)))
	for i, t := range v.trees {
		if t.Propagation != 0 {
			p.Child(plan.Root, plan.Call("mount", unix.SYS_MOUNT, plan.Null(), plan.Str(t.name(i)), plan.Null(), plan.Flags(unix.MS_REC|t.Propagation, mountFlags), plan.Null()))
		}
	}
	w := &remounter{trees: slices.Clone(v.trees), area: area, walk: [2]plan.Slot{p.Slot(), p.Slot()}}
	p.TakeAt(plan.Root, Duplicate(plan.Saved(area)), w.before)
	p.Child(plan.Root, plan.Calls("remount each mount of "+w.names(), w.calls).Hint(syscall.ENOENT, changedHint).Hint(syscall.EINVAL, changedHint).
		Hint(syscall.ENOSYS, "a mount that the caller cannot reach: its attributes can be changed by mount_setattr only, Linux 5.12").
		Hint(syscall.EPERM, "an attribute is locked by a more privileged mount namespace, or an outer filter of system calls refuses mount_setattr"))
	p.TakeAt(plan.Root, Duplicate(plan.Saved(area)), w.after)
	for i, t := range v.trees {
		p.Child(plan.Root, CloneAt(plan.Saved(area), t.name(i), unix.AT_RECURSIVE|unix.AT_SYMLINK_NOFOLLOW).Save(t.out))
	}
	p.Child(plan.Root, Detach(".")...)
	p.Child(plan.Root, Chdir(plan.Saved(here)).Tolerate(syscall.EBADF))
	v.trees = nil
}

// Detach unmounts what is at name with all that is mounted below it. A copy of a shared mount of the host's is its peer: what is unmounted in one would be unmounted in the
// other, too.
func Detach(name string) []plan.Op {
	return []plan.Op{
		plan.Call("mount", unix.SYS_MOUNT, plan.Null(), plan.Str(name), plan.Null(), plan.Flags(unix.MS_REC|unix.MS_PRIVATE, mountFlags), plan.Null()),
		plan.Call("umount2", unix.SYS_UMOUNT2, plan.Str(name), plan.Number(unix.MNT_DETACH, "MNT_DETACH")),
	}
}

// remounter changes the attributes of the mounts of all trees, one by one.
type remounter struct {
	trees []Tree
	area  plan.Slot    // on which they are attached, and the working directory
	walk  [2]plan.Slot // on the way to a mount
}

func (w *remounter) names() string {
	var all []string
	for i, t := range w.trees {
		all = append(all, fmt.Sprintf("%q (set=%s, clear=%s)", t.name(i), plan.FlagText(t.Set, attrs), plan.FlagText(t.Clear, attrs)))
	}
	return strings.Join(all, ", ")
}

// calls are those that change the mounts which the host has now.
func (w *remounter) calls(r *plan.Run) (ops []plan.Op, err error) {
	table, err := OwnTable()
	if err != nil {
		return nil, err
	}
	foreseen := map[string]string{}
	for i, t := range w.trees {
		at, place := t.Path(), "/"+t.name(i)
		on, rest := table.Under(at)
		foreseen[place] = on.Options
		if flags, changed := t.flags(on, true); changed {
			ops = append(ops, Remount(t.name(i), flags))
		}
		for _, m := range rest {
			if !t.Recursive {
				break
			}
			name := strings.TrimPrefix(strings.TrimPrefix(m.Mountpoint, strings.TrimSuffix(at, "/")), "/")
			foreseen[place+"/"+name] = m.Options
			if flags, changed := t.flags(m, false); changed {
				ops = append(ops, w.remount(t.name(i), name, flags)...)
			}
		}
	}
	r.Set(foreseenKey{w}, foreseen)
	return ops, nil
}

// foreseenKey is that of the options of the mounts by their places, as they were when the calls were made.
type foreseenKey struct{ w *remounter }

// remount goes to the directory above the mount over no symbolic link, since others may be able to write to the tree, and changes the mount by its name there: the caller
// may not be allowed to enter it. Where somebody puts a link in its place in this very moment, another mount of the child's is changed, and the parent sees it.
func (w *remounter) remount(tree, name string, flags plan.Arg) (ops []plan.Op) {
	words := append([]string{tree}, strings.Split(name, "/")...)
	last, words := words[len(words)-1], words[:len(words)-1]
	end := 2*len(words) + 4 // where mount_setattr is called
	at := plan.Saved(w.area)
	unreachable := func(o plan.Op) plan.Op { return o.Tolerate(syscall.EACCES).Skip(end - len(ops) - 1) }
	for i, word := range words {
		next := w.walk[i%2]
		ops = append(ops, unreachable(openWord(at, word, unix.O_NOFOLLOW).Save(next)))
		if i > 0 {
			ops = append(ops, plan.Call("close", unix.SYS_CLOSE, at))
		}
		at = plan.Saved(next)
	}
	ops = append(ops, unreachable(Chdir(at)))
	ops = append(ops, unreachable(Remount(last, flags)))
	return append(ops, plan.Call("close", unix.SYS_CLOSE, at), Chdir(plan.Saved(w.area)),
		plan.Call("close", unix.SYS_CLOSE, plan.Int(-1)).Tolerate(syscall.EBADF).Skip(1),
		SetAttrOf(plan.Saved(w.area), true, 0, 0))
}

const changedHint = "the mounts of the host have changed in this moment: start again"

// flags are what a mount of the tree is to have, and whether it has something else.
func (t Tree) flags(m mountinfo.Info, top bool) (plan.Arg, bool) {
	want := t.want(m.Options, top)
	bits := uint64(unix.MS_REMOUNT | unix.MS_BIND)
	for word, bit := range words {
		if want[word] {
			bits |= bit
		}
	}
	return plan.Flags(bits, remountFlags), !maps.Equal(want, wordsOf(m.Options))
}

// words are those of the table for what a remount clears unless it is given anew.
var words = map[string]uint64{"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "nosymfollow": noSymFollow}

func wordsOf(options string) map[string]bool {
	all := map[string]bool{}
	for word := range strings.SplitSeq(options, ",") {
		all[word] = word != "rw"
	}
	delete(all, "rw")
	return all
}

// want are the words of a mount of the tree that had the options before.
func (t Tree) want(options string, top bool) map[string]bool {
	all := wordsOf(options)
	for word, bit := range words {
		if bit&t.Clear != 0 {
			delete(all, word)
		}
		if bit&t.Set != 0 && !(top && t.KeepTop) {
			all[word] = true
		}
	}
	return all
}

// found are the mounts of the child by their numbers: those of the trees with the tree, and whether it is the topmost one; all others with -1, which stay as they are.
type found map[int]foundMount

type foundMount struct {
	tree    int
	top     bool
	place   string
	options string
}

type foundKey struct{ w *remounter }

// find reads the child's table.
func (w *remounter) find(r *plan.Run, area *os.File) (found, error) {
	id, err := mountID(area)
	if err != nil {
		return nil, err
	}
	table, err := TableOf(r.PID)
	if err != nil {
		return nil, err
	}
	all := found{}
	for i, t := range w.trees {
		at := slices.IndexFunc(table, func(m mountinfo.Info) bool { return m.Parent == id && m.Mountpoint == "/"+t.name(i) })
		if at < 0 {
			return nil, fmt.Errorf("%q is not to be seen in the table of mounts: %w", t.Path(), syscall.ENOENT)
		}
		for k, m := range table.At(table[at]) {
			all[m.ID] = foundMount{i, k == 0, m.Mountpoint, m.Options}
		}
	}
	for _, m := range table {
		if _, ours := all[m.ID]; !ours {
			all[m.ID] = foundMount{-1, false, m.Mountpoint, m.Options}
		}
	}
	return all, nil
}

// before remembers what the mounts are like. Where the host has mounted or unmounted something since it was looked at, the calls are not those that are needed.
func (w *remounter) before(r *plan.Run, area *os.File) error {
	defer area.Close()
	all, err := w.find(r, area)
	if err != nil {
		return err
	}
	is := map[string]string{}
	for _, m := range all {
		if m.tree >= 0 {
			is[m.place] = m.options
		}
	}
	if foreseen, _ := r.Value(foreseenKey{w}).(map[string]string); !maps.Equal(foreseen, is) {
		return fmt.Errorf("what is mounted in %s: %w", w.names(), plan.ErrChanged)
	}
	r.Set(foundKey{w}, all)
	return nil
}

// after verifies that each mount has what it had, and what was asked for.
func (w *remounter) after(r *plan.Run, area *os.File) error {
	defer area.Close()
	was, _ := r.Value(foundKey{w}).(found)
	is, err := w.find(r, area)
	if err != nil {
		return err
	}
	for id, m := range is {
		old, known := was[id]
		if !known {
			return fmt.Errorf("%q has been mounted: %w", m.place, plan.ErrChanged)
		}
		want := wordsOf(old.options)
		if m.tree >= 0 && (m.top || w.trees[m.tree].Recursive) {
			want = w.trees[m.tree].want(old.options, m.top)
		}
		if !maps.Equal(want, wordsOf(m.options)) {
			return fmt.Errorf("%q is mounted with %s (%s): %w", m.place, m.options, changedHint, syscall.EAGAIN)
		}
	}
	return nil
}

// mountID gives the number of the mount behind a descriptor in the tables of mounts.
func mountID(f *os.File) (int, error) {
	text, err := readProc("self/fdinfo/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(text, "mnt_id:")
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.Atoi(strings.TrimSpace(line))
}
