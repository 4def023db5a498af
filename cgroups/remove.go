//go:build linux

package cgroups

import (
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Delete kills all processes in the group and below it, removes it with the groups below it, and closes it. A process that the kernel is slow to
// end keeps the group busy: after ten seconds that is an [*Error] with EBUSY.
func (g *Group) Delete() error {
	if err := g.notTop("delete"); err != nil {
		return err
	}
	defer g.Close()
	err := g.remove()
	for wait, until := 50*time.Microsecond, time.Now().Add(patience); errors.Is(err, syscall.EBUSY) && time.Now().Before(until); wait = min(2*wait, 50*time.Millisecond) {
		if kill := g.Kill(); kill != nil && !gone(kill) {
			return errors.Join(err, kill)
		}
		time.Sleep(wait)
		err = g.remove()
	}
	return err
}

const patience = 10 * time.Second

// notTop refuses to act on the topmost group: it has all processes of the machine, or of the container.
func (g *Group) notTop(op string) error {
	for i := range g.dirs {
		if g.dirs[i].path == "/" {
			return g.dirs[i].failed(op, "", "", &reason{"this is the topmost group", syscall.EINVAL})
		}
	}
	return nil
}

// remove removes those directories that are still there.
func (g *Group) remove() (err error) {
	for i := range g.dirs {
		err = errors.Join(err, g.dirs[i].remove())
	}
	return err
}

// remove removes a directory with those below it.
func (d *dir) remove() error {
	above, name := d.up, path.Base(d.path)
	if above == nil || above.f.Fd() == ^uintptr(0) {
		p, err := d.openDir(path.Dir(d.path))
		if err != nil {
			return ignoringGone(err)
		}
		defer p.f.Close()
		above = &p
	}
	err := d.kernel.rmdir(above.fd(), name)
	if err == unix.EBUSY || err == unix.ENOTEMPTY {
		if below := d.removeBelow(); below != nil {
			return below
		}
		err = d.kernel.rmdir(above.fd(), name)
	}
	if err == nil || err == unix.ENOENT {
		return nil
	}
	return d.failed("rmdir", "", "", err)
}

// removeBelow removes the directories below, the deepest ones first.
func (d *dir) removeBelow() error {
	t := d.tree()
	t.After = func(dir int, name string) error {
		return inWalk("rmdir", "", ignoringGone(d.kernel.rmdir(dir, name)))
	}
	return d.walk(t)
}

func ignoringGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// Kill sends SIGKILL to all processes in the group and below it, also to those that are being made meanwhile: by cgroup.kill (Linux 5.14),
// else by freezing or by forbidding new processes first. It does not wait for their end.
func (g *Group) Kill() error {
	if err := g.notTop("kill"); err != nil {
		return err
	}
	if d := g.v2(); d != nil {
		err := d.write("cgroup.kill", "1")
		if err == nil || !errors.Is(err, syscall.ENOENT) {
			return err
		}
	}
	release, err := g.hold()
	if err != nil {
		return err
	}
	return errors.Join(g.killEach(), release())
}

// hold keeps the group's processes from making others.
func (g *Group) hold() (release func() error, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, ok := g.freezer(); ok {
		if err := g.Freeze(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
			return g.thaw, nil
		}
	}
	d, ok := g.dir("pids")
	if !ok {
		return func() error { return nil }, nil
	}
	before, err := d.read("pids.max", make([]byte, 32))
	if err != nil {
		return nil, err
	}
	if err := d.write("pids.max", "0"); err != nil {
		return nil, err
	}
	return func() error { return d.write("pids.max", strings.TrimSpace(string(before))) }, nil
}

// killEach signals until nobody is left who has not been signalled.
func (g *Group) killEach() error {
	const some = 64 // descriptors at a time
	for killed := map[int]bool{}; ; {
		pids, err := g.Procs()
		if err != nil {
			return err
		}
		fresh := slices.DeleteFunc(pids, func(pid int) bool { return killed[pid] })
		if len(fresh) == 0 {
			return nil
		}
		for pids := range slices.Chunk(fresh, some) {
			if err := g.killSome(pids); err != nil {
				return err
			}
		}
		for _, pid := range fresh {
			killed[pid] = true
		}
	}
}

// killSome kills those processes that are still the ones in the group: a number may have been given to another process meanwhile. So each is held by
// a descriptor when the group is looked at once more.
func (g *Group) killSome(pids []int) error {
	held := map[int]int{}
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		switch err {
		case nil:
			held[pid] = fd
		case unix.ESRCH, unix.EINVAL:
		default:
			return g.dirs[0].failed("kill", "", strconv.Itoa(pid), err)
		}
	}
	still, err := g.Procs()
	if err != nil {
		return err
	}
	for _, pid := range still {
		if fd, ok := held[pid]; ok {
			if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
				return g.dirs[0].failed("kill", "", strconv.Itoa(pid), err)
			}
		}
	}
	return nil
}

// freezer gives the directory by which the group is frozen.
func (g *Group) freezer() (*dir, bool) {
	if d := g.v2(); d != nil {
		return d, true
	}
	return g.dir("freezer")
}

// Freeze stops all processes in the group and below it, and returns when they have stopped or the context has ended; the group
// then stays about to freeze, until Thaw. Version 2 needs Linux 5.2.
func (g *Group) Freeze(ctx context.Context) error {
	if err := g.notTop("freeze"); err != nil {
		return err
	}
	d, ok := g.freezer()
	if !ok {
		return missing("freeze", "", "freezer", g.String(), "the group has no directory in the freezer's hierarchy")
	}
	if err := d.setFrozen(true); err != nil {
		return err
	}
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		frozen, err := d.frozen()
		if err != nil || frozen {
			return err
		}
		if wait == 10*time.Millisecond && !d.v2 {
			if err := d.freezeAnew(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return d.failed("freeze", "", "", ctx.Err())
		case <-time.After(wait):
		}
	}
}

func (d *dir) setFrozen(on bool) error {
	if d.v2 {
		return d.write("cgroup.freeze", either(on, "1", "0"))
	}
	return d.write("freezer.state", either(on, "FROZEN", "THAWED"))
}

// freezeAnew helps version 1 where it has stopped a child of vfork(2) before its parent, which then sleeps in a way that cannot be frozen: it would stay
// FREEZING for ever. What runs for a moment gets on.
func (d *dir) freezeAnew() error {
	if err := d.setFrozen(false); err != nil {
		return err
	}
	time.Sleep(time.Millisecond)
	return d.setFrozen(true)
}

func (d *dir) frozen() (bool, error) {
	b, err := d.read(either(d.v2, "cgroup.events", "freezer.state"), make([]byte, 64))
	if err != nil {
		return false, err
	}
	if !d.v2 {
		return strings.TrimSpace(string(b)) == "FROZEN", nil
	}
	n, ok := field(string(b), "frozen")
	if !ok {
		return false, missing("freeze", "", "", d.String(), "needs Linux 5.2")
	}
	return n == 1, nil
}

// Frozen reports whether all processes in the group have been stopped by Freeze.
func (g *Group) Frozen() (bool, error) {
	d, ok := g.freezer()
	if !ok {
		return false, missing("read the state", "", "freezer", g.String(), "the group has no directory in the freezer's hierarchy")
	}
	return d.frozen()
}

// Thaw lets the processes go on.
func (g *Group) Thaw() error {
	if err := g.notTop("thaw"); err != nil {
		return err
	}
	return g.thaw()
}

func (g *Group) thaw() error {
	d, ok := g.freezer()
	if !ok {
		return missing("thaw", "", "freezer", g.String(), "the group has no directory in the freezer's hierarchy")
	}
	return d.write(either(d.v2, "cgroup.freeze", "freezer.state"), either(d.v2, "0", "THAWED"))
}
