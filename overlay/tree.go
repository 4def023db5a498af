//go:build linux

package overlay

import (
	"context"
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// Tree is a stack that is mounted. It is at no path until it is attached to one; its files can be reached by descriptor all the same.
type Tree struct {
	mount *os.File
	lock  *os.File // of the work directory; nil for a scratch upper
	at    string   // where it is attached
}

// Open mounts the stack without attaching it anywhere. It makes the calls that a sandbox makes, on a thread with a mount namespace of its own,
// which is thrown away; so nobody sees what is mounted meanwhile. To be closed by the caller.
//
// It needs CAP_SYS_ADMIN in the caller's user namespace. Errors are [*Error] or [*plan.Error]; the latter has the call and the errno.
func (s Stack) Open() (*Tree, error) {
	if err := s.check(); err != nil {
		return nil, &Error{Op: "stack", Err: err}
	}
	t := &Tree{}
	if s.Upper != "" {
		f, err := s.use()
		if err != nil {
			return nil, err
		}
		t.lock = f
	}
	if s.Keep != nil {
		if err := s.Keep.reserve(); err != nil {
			return nil, err
		}
	}
	f, err := s.mountDetached(rootOf(s.Lower[0]))
	if err != nil {
		if s.Keep != nil {
			s.Keep.Close()
		}
		t.Close()
		return nil, err
	}
	t.mount = f
	return t, nil
}

// Mount is [Stack.Open], and attaches the mount to a directory of the host, which must exist.
func (s Stack) Mount(dir string) (*Tree, error) {
	t, err := s.Open()
	if err != nil {
		return nil, err
	}
	if err := t.Attach(dir); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// File is the root directory of the mount, opened with O_PATH. It stays the Tree's.
func (t *Tree) File() *os.File { return t.mount }

// Attach puts the mount onto a directory; a symbolic link is not followed. A Tree is attached once.
func (t *Tree) Attach(dir string) error {
	err := unix.MoveMount(int(t.mount.Fd()), "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return &Error{Op: "attach to", Path: dir, Err: err, Hint: hintFor(err, syscall.EINVAL, "attached already, or the directory is a symbolic link")}
	}
	t.at = dir
	return nil
}

// Close unmounts it, wherever it is attached meanwhile, and lets go the upper directory. Who still uses files in it keeps them (umount2(2),
// MNT_DETACH). It is to be called in the mount namespace in which it was attached, if it was.
func (t *Tree) Close() (err error) {
	if t.mount != nil {
		if t.at != "" {
			err = detach(t.mount)
		}
		err = errors.Join(err, t.mount.Close())
	}
	if t.lock != nil {
		err = errors.Join(err, t.lock.Close())
	}
	return err
}

// detach goes by the descriptor: somebody may have mounted something else at the path, or moved the directory.
func detach(f *os.File) error {
	err := unix.Unmount("/proc/self/fd/"+plan.Int(int(f.Fd())).String(), unix.MNT_DETACH)
	if err != nil && err != syscall.EINVAL { // it has been unmounted by others
		return &Error{Op: "unmount", Path: f.Name(), Err: err}
	}
	return nil
}

// mountDetached makes the calls on a thread of our own.
func (s Stack) mountDetached(top root) (*os.File, error) {
	if s.IDMap != nil {
		var err error
		if top, err = s.mappedRoot(top); err != nil {
			return nil, err
		}
	}
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Sources, mnt.Private())
		b := build{p: p, s: s, top: top, mount: p.Slot(), userxattr: s.UserXattr || !inFirst()}
		if s.IDMap != nil {
			f := p.Open("the user namespace as idmap", func(*plan.Run) (*os.File, error) { return duplicate(s.IDMap) })
			b.idmap = &f
		}
		if err := b.record(); err != nil {
			return err
		}
		p.Child(plan.Root, plan.Call("fcntl", unix.SYS_FCNTL, plan.Saved(b.mount), plan.Number(unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), plan.Int(3)))
		return nil
	}))
	if err := p.Err(); err != nil {
		return nil, &Error{Op: "stack", Err: errors.Unwrap(err)}
	}
	return performOnThread(p, s.name())
}

// performOnThread makes the calls where the caller is.
func performOnThread(p *plan.Plan, name string) (f *os.File, err error) {
	w, err := here()
	if err != nil {
		return nil, err
	}
	defer w.close()
	done := make(chan struct{})
	go onThread(done, func() { f, err = perform(p, w, name) })
	<-done
	return f, err
}

// perform makes the calls of the plan in a mount namespace of the thread's own, a copy of the caller's.
func perform(p *plan.Plan, w place, name string) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, &Error{Op: "unshare(CLONE_FS) for", Path: name, Err: err}
	}
	if err := w.enter(); err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, &Error{Op: "unshare(CLONE_NEWNS) for", Path: name, Err: err, Hint: hintFor(err, syscall.EPERM, "needs CAP_SYS_ADMIN")}
	}
	unix.Umask(0) // of this thread only, by CLONE_FS
	r := p.NewRun(context.Background(), nil)
	defer r.CloseFiles()
	m := machine{slots: make([]uintptr, p.Slots()), run: r}
	for i := range m.slots {
		m.slots[i] = ^uintptr(0)
	}
	defer m.close()
	last, err := m.steps(p)
	if err != nil {
		return nil, err
	}
	return os.NewFile(last, name), nil
}

// machine makes calls as a child makes them: see plan.Op.
type machine struct {
	slots []uintptr
	run   *plan.Run
	mem   sys.Memory
}

func (m *machine) close() {
	m.mem.Free()
	for _, fd := range m.slots { // nothing but descriptors is saved
		if fd != ^uintptr(0) {
			unix.Close(int(fd))
		}
	}
}

func (m *machine) steps(p *plan.Plan) (last uintptr, err error) {
	skip := 0
	steps := p.Steps(nil)
	for i, s := range steps {
		switch {
		case s.Kind == plan.StepOpen:
			err = p.OpenFile(m.run, s)
		case s.Kind != plan.StepCall || s.Phase != plan.Sources && s.Phase != plan.Root:
			continue
		case skip > 0:
			skip--
		default:
			last, skip, err = m.call(s.Op)
			if take := s.Taken(); take != nil && err == nil {
				err = take(m.run, os.NewFile(last, s.String()))
			}
		}
		if err != nil {
			return 0, &plan.Error{Primitive: "overlay", Call: s.String(), Step: i + 1, Steps: len(steps), Err: err, Hint: s.HintFor(err)}
		}
	}
	return last, nil
}

func (m *machine) call(o *plan.Op) (result uintptr, skip int, err error) {
	c := o.Lower(&m.mem, m.run)
	for i, slot := range c.Load {
		if slot > 0 {
			c.Args[i] = m.slots[slot-1]
		}
	}
	r, _, e := unix.Syscall6(c.Trap, c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5])
	if e != 0 {
		if uintptr(e) != c.Tolerate {
			return 0, 0, e
		}
		r, skip = ^uintptr(0), c.Skip
	}
	if c.Save > 0 {
		m.slots[c.Save-1] = r
	}
	return r, skip, nil
}

func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	n, dup := -1, error(nil)
	if err := raw.Control(func(fd uintptr) { n, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if dup != nil {
		return nil, dup
	}
	return os.NewFile(uintptr(n), f.Name()), nil
}
