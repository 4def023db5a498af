//go:build linux

package caisson

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/pty"
	"github.com/caisson-dev/caisson/plan"
)

// session is what the parts of this package claim besides.
const session = "session"

// checkTerminal finds what does not go together with a terminal.
func (c *Cmd) checkTerminal() error {
	if c.Terminal != nil && c.Stdin != nil && c.in == nil && c.plan.Has(plan.InitProg) {
		return fmt.Errorf("caisson: Init hands on the terminal that is its standard input: with a Terminal, Stdin must be nil: %w", syscall.EINVAL)
	}
	return nil
}

// planWithTerminal is the command's plan with the terminal's part. That comes last, since it has to see what the others mount.
func (c *Cmd) planWithTerminal() *plan.Plan {
	part := terminal{t: c.Terminal, first: c.in == nil, streams: c.terminalStreams()}
	if c.in != nil {
		return c.in.again(part)
	}
	return plan.Build(append(slices.Clip(c.parts), part)...)
}

// terminalStreams are the standard descriptors that the terminal is to be: those that would be /dev/null without it.
func (c *Cmd) terminalStreams() (n []int) {
	for i, none := range []bool{c.Stdin == nil, c.Stdout == nil, c.Stderr == nil} {
		if none {
			n = append(n, i)
		}
	}
	return n
}

// withTerminal calls start for the only command that the terminal may have.
func (t *Terminal) withTerminal(start func() (*Process, error)) (*Process, error) {
	if t == nil {
		return start()
	}
	if t.used.Swap(true) {
		return nil, errors.New("caisson: the Terminal has been used for another command")
	}
	p, err := start()
	if err != nil && t.master != nil {
		t.master.Close()
	}
	return p, err
}

// take makes a master the terminal's. A start that had to be tried once more gives another one.
func (t *Terminal) take(master *os.File) error {
	if t.master != nil {
		t.master.Close()
	}
	t.master = master
	return pty.SetSize(master, t.Rows, t.Cols)
}

// terminal is the part of a plan that gives the command its terminal.
//
// From the host it is opened before the clone. From the sandbox's own devpts only the child can open it, and how it
// comes to /dev there is not to be trusted: who can write to the root directory may have renamed the mount points, and in a running
// sandbox root may have mounted anything. So nothing is used but by its descriptor, and not before the parent has looked at it.
type terminal struct {
	t       *Terminal
	first   bool  // the command is the sandbox's first, so /dev/console is its
	streams []int // of the command, which the terminal becomes
}

// Apply implements plan.Primitive.
func (x terminal) Apply(p *plan.Plan) error {
	p.Final(func() error {
		if p.Has(plan.Devpts) {
			x.attach(p, x.fromSandbox(p))
		} else {
			x.attach(p, x.fromHost(p))
		}
		return nil
	})
	return p.Claim(plan.Terminal)
}

// attach makes the terminal the standard descriptors, and the controlling terminal of a session that has none.
func (x terminal) attach(p *plan.Plan, peer plan.File) {
	for _, n := range x.streams {
		p.Child(plan.Files, plan.Call("dup3", unix.SYS_DUP3, plan.FD(peer), plan.Int(n), plan.Int(0)))
	}
	if !p.Has(session) {
		p.Child(plan.Files, plan.Call("setsid", unix.SYS_SETSID))
	}
	p.Child(plan.Files, plan.Call("ioctl", unix.SYS_IOCTL, plan.FD(peer), plan.Number(unix.TIOCSCTTY, "TIOCSCTTY"), plan.Int(0)).
		Hint(syscall.EPERM, "a process of the sandbox has made it the terminal of its own session"))
}

// fromHost opens the terminal in the parent. The user inside may have no place on the host, then it stays the caller's.
func (x terminal) fromHost(p *plan.Plan) plan.File {
	peer := p.Open("a pseudoterminal of the host as terminal", func(*plan.Run) (*os.File, error) {
		master, peer, err := pty.Open()
		if err != nil {
			return nil, err
		}
		if err := x.t.take(master); err != nil {
			peer.Close()
			return nil, err
		}
		return peer, nil
	})
	if uid, ok := p.UID(); ok {
		p.Child(plan.Mounts, chown(peer, uid).Tolerate(syscall.EPERM))
	}
	return peer
}

// fromSandbox lets the child open the terminal. Its descriptor gets the number of a file that the parent has opened: it must be none of the command's, and
// known when the command's are put in place.
func (x terminal) fromSandbox(p *plan.Plan) plan.File {
	peer := p.Open("an eventfd as terminal", func(*plan.Run) (*os.File, error) {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		return os.NewFile(uintptr(fd), "eventfd"), os.NewSyscallError("eventfd", err)
	})
	dev, pts, master, end := p.Slot(), p.Slot(), p.Slot(), p.Slot()
	const none = "the sandbox has no /dev/pts any more"
	p.Child(plan.Mounts, openat2(atFDCWD(), "/dev", directory).Save(dev).Hint(syscall.ENOENT, none))
	p.TakeAt(plan.Mounts, openat2(plan.Saved(dev), "pts", directory).Save(pts).Hint(syscall.ENOENT, none).Hint(syscall.ENOTTY, none), isDevpts)
	p.TakeAt(plan.Mounts, openat2(plan.Saved(pts), "ptmx", device).Save(master).
		Hint(syscall.EXDEV, none).Hint(syscall.ENOSPC, "kernel.pty.max, or the devpts mount's max, is reached"), x.takeMaster)
	p.Child(plan.Mounts,
		plan.Call("ioctl", unix.SYS_IOCTL, plan.Saved(master), plan.Number(unix.TIOCGPTPEER, "TIOCGPTPEER"),
			plan.Flags(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, openFlags)).Save(end),
		plan.Call("dup3", unix.SYS_DUP3, plan.Saved(end), plan.FD(peer), plan.Flags(unix.O_CLOEXEC, openFlags)))
	if uid, ok := p.UID(); ok {
		p.Child(plan.Mounts, chown(peer, uid))
	}
	if x.first && p.Has(plan.Dev) {
		x.console(p, dev, peer)
	}
	return peer
}

func isDevpts(_ *plan.Run, dir *os.File) error {
	defer dir.Close()
	return pty.Devpts(dir)
}

// takeMaster: the master comes from a directory that is known to be of a devpts, and from no mount below it.
func (x terminal) takeMaster(_ *plan.Run, master *os.File) error {
	err := errors.Join(pty.Devpts(master), pty.Check(master))
	if err == nil {
		err = pty.Unlock(master)
	}
	if err != nil {
		master.Close()
		return err
	}
	return x.t.take(master)
}

// console mounts the terminal on /dev/console. Neither source nor mount point is found by a path from the root, and the
// parent looks at what is there then (CVE-2025-52565).
func (x terminal) console(p *plan.Plan, dev plan.Slot, peer plan.File) {
	mount := p.Slot()
	p.Child(plan.Mounts,
		plan.Call("mknodat", unix.SYS_MKNODAT, plan.Saved(dev), plan.Str("console"), plan.Number(unix.S_IFREG|0o600, "S_IFREG|0600"), plan.Int(0)).
			Tolerate(syscall.EEXIST),
		plan.Call("open_tree", unix.SYS_OPEN_TREE, plan.FD(peer), plan.Str(""), plan.Flags(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH,
			treeFlags)).Save(mount),
		plan.Call("move_mount", unix.SYS_MOVE_MOUNT, plan.Saved(mount), plan.Str(""), plan.Saved(dev), plan.Str("console"),
			plan.Number(unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH")))
	p.TakeAt(plan.Mounts, openat2(plan.Saved(dev), "console", unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}),
		func(_ *plan.Run, console *os.File) error {
			defer console.Close()
			return pty.Same(x.t.master, console)
		})
}

// chown gives a terminal to the user that the command will be.
func chown(peer plan.File, uid uint32) plan.Op {
	return plan.Call("fchownat", unix.SYS_FCHOWNAT, plan.FD(peer), plan.Str(""), id(uid), plan.Number(math.MaxUint32, "-1"),
		plan.Number(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")).Hint(syscall.EINVAL, unmapped)
}

var (
	directory = unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	device    = unix.OpenHow{Flags: unix.O_RDWR | unix.O_NOCTTY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}

	openFlags = []plan.Flag{{Bits: unix.O_PATH, Name: "O_PATH"}, {Bits: unix.O_DIRECTORY, Name: "O_DIRECTORY"}, {Bits: unix.O_RDWR, Name: "O_RDWR"},
		{Bits: unix.O_NOCTTY, Name: "O_NOCTTY"}, {Bits: unix.O_NONBLOCK, Name: "O_NONBLOCK"}, {Bits: unix.O_CLOEXEC, Name: "O_CLOEXEC"}}
	resolveFlags = []plan.Flag{{Bits: unix.RESOLVE_NO_SYMLINKS, Name: "RESOLVE_NO_SYMLINKS"}, {Bits: unix.RESOLVE_NO_XDEV, Name: "RESOLVE_NO_XDEV"}}
	treeFlags    = []plan.Flag{{Bits: unix.OPEN_TREE_CLONE, Name: "OPEN_TREE_CLONE"}, {Bits: unix.OPEN_TREE_CLOEXEC, Name: "OPEN_TREE_CLOEXEC"},
		{Bits: unix.AT_EMPTY_PATH, Name: "AT_EMPTY_PATH"}}
)

func openat2(dir plan.Arg, name string, how unix.OpenHow) plan.Op {
	size := int(unsafe.Sizeof(how))
	b := slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&how)), size))
	text := "{" + plan.FlagText(how.Flags, openFlags) + ", " + plan.FlagText(how.Resolve, resolveFlags) + "}"
	return plan.Call("openat2", unix.SYS_OPENAT2, dir, plan.Str(name), plan.Bytes(text, b), plan.Int(size))
}

func atFDCWD() plan.Arg { return plan.Number(^uint64(99), "AT_FDCWD") }
