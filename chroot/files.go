//go:build linux

package chroot

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// File is a file with given contents: /etc/hosts, a configuration, a secret. It lives in memory and ends with the sandbox; the root's own file,
// if there is one, is covered and not touched. It belongs to root inside.
type File struct {
	Path     string      // absolute, in the sandbox; made when it is missing
	Data     []byte      // must not change while the sandbox is in use
	Mode     os.FileMode // permission bits; zero is 0644
	ReadOnly bool        // not even its owner may write
}

// Apply implements plan.Primitive.
func (f File) Apply(p *plan.Plan) error {
	if err := target(f.Path); err != nil {
		return err
	}
	mode := f.Mode
	if mode == 0 {
		mode = 0o644
	}
	if mode&^os.ModePerm != 0 {
		return fmt.Errorf("mode %v of a file: %w", f.Mode, syscall.EINVAL)
	}
	private(p)
	v := viewOf(p)
	store, err := v.store(p, &v.files, nil)
	if err != nil {
		return err
	}
	at := v.place(p, f.Path, file)
	v.cover(f.Path)
	copied, fd := p.Slot(), p.Slot()
	name := strings.TrimPrefix(plan.Saved(fd).String(), "$") // no other file of the plan has it
	p.Child(plan.Sources, f.write(p, store, fd, name, uint32(mode))...)
	take := mnt.CloneAt(plan.Saved(store), name, unix.AT_SYMLINK_NOFOLLOW).Save(copied)
	p.Child(plan.Root, take)
	switch {
	case f.ReadOnly && v.NoSetAttr(): // what is attached can be mounted anew, and copied once more
		p.Child(plan.Root, mnt.AttachAt(plan.Saved(copied), plan.Saved(store), name))
		p.Child(plan.Root, mnt.RemountIn(p, store, name, noFiles|unix.MOUNT_ATTR_RDONLY)...)
		p.Child(plan.Root, take)
	case f.ReadOnly:
		p.Child(plan.Root, mnt.SetAttr(copied, false, unix.MOUNT_ATTR_RDONLY, 0))
	}
	p.Child(plan.Mounts, at.Onto(p, plan.Saved(copied))...)
	return nil
}

// write makes the file. The kernel may take a part of the data only, when memory runs out; the numbers are compared by futex(2), which answers
// ETIMEDOUT where they are equal.
func (f File) write(p *plan.Plan, store, fd plan.Slot, name string, mode uint32) []plan.Op {
	written := p.Slot()
	want := binary.NativeEndian.AppendUint32(nil, uint32(len(f.Data)))
	want = append(want, 0, 0, 0, 0) // eight bytes are aligned
	text := "[" + strconv.Itoa(len(f.Data)) + " bytes]"
	ops := []plan.Op{plan.Call("openat", unix.SYS_OPENAT, plan.Saved(store), plan.Str(name),
		plan.Number(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, "O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC"), plan.Octal(mode)).Save(fd)}
	if len(f.Data) == 0 {
		return ops
	}
	return append(ops,
		plan.Call("write", unix.SYS_WRITE, plan.Saved(fd), plan.Bytes(text, f.Data), plan.Int(len(f.Data))).Save(written).
			Hint(syscall.ENOSPC, "half of the memory is used up"),
		plan.Call("futex", unix.SYS_FUTEX, plan.Struct("["+strconv.Itoa(len(f.Data))+"]", want), plan.Number(futexWait, "FUTEX_WAIT_PRIVATE"),
			plan.Saved(written), plan.Struct("{0, 0}", make([]byte, 16))).Tolerate(syscall.ETIMEDOUT).
			Hint(syscall.EAGAIN, "there was no memory for all of the file"))
}

const futexWait = 0x80 // FUTEX_WAIT|FUTEX_PRIVATE_FLAG

// Dir makes a directory in the root, and those above it, where they are missing. One that is there stays as it is; something else that is
// there is an error. In a root that is not [Tmpfs] or scratch the directory stays after the sandbox has ended.
type Dir struct {
	Path string      // absolute, in the sandbox
	Mode os.FileMode // of a directory that is made: permission bits and os.ModeSticky; zero is 0755
}

// Apply implements plan.Primitive.
func (d Dir) Apply(p *plan.Plan) error {
	if err := target(d.Path); err != nil {
		return err
	}
	if d.Mode&^(os.ModePerm|os.ModeSticky) != 0 {
		return fmt.Errorf("mode %v of a directory: %w", d.Mode, syscall.EINVAL)
	}
	mode := modeBits(d.Mode)
	if d.Mode == 0 {
		mode = 0o755
	}
	private(p)
	at := viewOf(p).place(p, d.Path, directory)
	last := len(at.Make) - 1
	p.Child(plan.Mounts, at.Make[:last]...)
	p.Child(plan.Mounts, plan.Call("mkdirat", unix.SYS_MKDIRAT, at.Dir, plan.Str(at.Name), plan.Octal(mode)).Tolerate(syscall.EEXIST).
		Hint(syscall.EROFS, readOnlyHint))
	p.Child(plan.Mounts, viewOf(p).Look(p, mnt.Lookup{Dir: at.Dir, Name: at.Name, Flags: unix.O_DIRECTORY, Resolve: unix.RESOLVE_NO_MAGICLINKS,
		Hints: func(o plan.Op) plan.Op { return o.Hint(syscall.ENOTDIR, "something is there that is no directory") }})...)
	return nil
}

// Symlink makes a symbolic link in the root, and the directories above it where they are missing. Something that is there already is an error, EEXIST.
type Symlink struct {
	Path   string // absolute, in the sandbox
	Target string // what the link says; it is not looked at
}

// Apply implements plan.Primitive.
func (s Symlink) Apply(p *plan.Plan) error {
	if err := target(s.Path); err != nil {
		return err
	}
	if s.Target == "" {
		return fmt.Errorf("a symbolic link to nothing: %w", syscall.EINVAL)
	}
	private(p)
	at := viewOf(p).place(p, s.Path, directory)
	p.Child(plan.Mounts, at.Make[:len(at.Make)-1]...)
	link := plan.Call("symlinkat", unix.SYS_SYMLINKAT, plan.Str(s.Target), at.Dir, plan.Str(at.Name))
	p.Child(plan.Mounts, plan.Calls(link.String(), func(r *plan.Run) ([]plan.Op, error) {
		if r.Second() { // the first child may have made it
			return []plan.Op{link.Tolerate(syscall.EEXIST)}, nil
		}
		return []plan.Op{link}, nil
	}).Hint(syscall.EROFS, readOnlyHint))
	return nil
}
