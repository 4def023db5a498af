//go:build linux

package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay"
	"github.com/caisson-dev/caisson/overlay/internal/copytree"
	"github.com/caisson-dev/caisson/overlay/layer"
)

func (l Layers) in(name string) string { return filepath.Join(l.Dir, name) }

func (l Layers) form() layer.Form {
	if l.Unprivileged {
		return layer.UserOverlay
	}
	return layer.Overlay
}

// clean empties Dir.
func (l Layers) clean() error {
	if l.Dir == "" {
		return nil
	}
	return copytree.Empty(l.Dir)
}

func (l Layers) mkdirs(names ...string) error {
	for _, name := range names {
		if err := errors.Join(os.Mkdir(l.in(name), 0o755), os.Chmod(l.in(name), 0o755)); err != nil {
			return err
		}
	}
	return nil
}

// kernel has the sandbox mount the layers.
func (l Layers) kernel(ctx context.Context, a *Assembled, try bool) error {
	a.Stack, a.shut = overlay.Stack{Lower: l.Lower}, l.clean
	if l.Dir != "" {
		a.Stack.Upper, a.Stack.Work = l.in("upper"), l.in("work")
		if err := l.mkdirs("upper", "work"); err != nil {
			return err
		}
		a.commit = func(_ context.Context, to string) error { return overlay.Take(a.Stack.Upper, a.Stack.Work, to) }
	}
	if !try {
		return nil
	}
	if err := l.try(ctx, a.Stack); err != nil {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	if l.Dir == "" {
		return nil
	}
	return copytree.Empty(l.in("work"))
}

// try mounts the stack. An ordinary user has it done by mount(8) as root of a user namespace, with links as names that need no quotes.
func (l Layers) try(ctx context.Context, s overlay.Stack) error {
	if !l.Unprivileged {
		t, err := s.Open()
		if err != nil {
			return err
		}
		return t.Close()
	}
	dir, err := os.MkdirTemp(l.Dir, "try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Symlink(l.Lower[0], filepath.Join(dir, "lower")); err != nil {
		return err
	}
	// Without Dir the upper directory will be in memory.
	script := `mount -t tmpfs none "$0" && cd "$0" && mkdir upper work at lower`
	if l.Dir != "" {
		script = `cd "$0" && mkdir upper work at`
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", script+` && exec mount -t overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work overlay at`, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mount: %w: %.200s", err, out)
	}
	return copytree.Empty(dir)
}

// fuse has the program mount them. It gets links as names, since it reads all from one text.
func (l Layers) fuse(_ context.Context, a *Assembled) error {
	if err := l.mkdirs("upper", "work", "at"); err != nil {
		return err
	}
	m := fuseMount{program: "fuse-overlayfs", dir: l.Dir, upper: "upper", work: "work", at: "at"}
	for i, dir := range l.Lower {
		name := "l" + strconv.Itoa(i)
		if err := os.Symlink(dir, l.in(name)); err != nil {
			return err
		}
		m.lower = append(m.lower, name)
	}
	unmount, err := m.start()
	if err != nil {
		return err
	}
	mounted := true
	end := func() error {
		if !mounted {
			return nil
		}
		mounted = false
		return unmount()
	}
	a.Path = l.in("at")
	a.commit = func(ctx context.Context, to string) error {
		if err := end(); err != nil {
			return err
		}
		if err := l.kernelMarks(ctx, l.in("upper")); err != nil {
			return err
		}
		return overlay.Take(l.in("upper"), l.in("work"), to)
	}
	a.shut = func() error {
		if err := end(); err != nil { // what is mounted is not ours to remove
			return err
		}
		return l.clean()
	}
	return nil
}

// kernelMarks turns what the program has written down about deleted files into what the kernel understands.
func (l Layers) kernelMarks(ctx context.Context, upper string) error {
	if err := copytree.RemoveDevices(upper, fuseWhiteout); err != nil {
		return err
	}
	if err := layer.Convert(ctx, upper, layer.AUFS, l.form()); err != nil {
		return err
	}
	return copytree.Strip(upper, origin, fuseOpaque)
}

// onShelf are the drivers that keep whole trees.
type onShelf interface {
	Driver
	shelf() shelf
}

// copied makes a tree of the layers, and another one of that.
func (l Layers) copied(ctx context.Context, a *Assembled, d onShelf) error {
	if err := d.Create("base", ""); err != nil {
		return err
	}
	if err := use(d, "base", func(dir string) error { return l.assemble(ctx, dir) }); err != nil {
		return errors.Join(err, d.Remove("base"))
	}
	err := d.Create("root", "base")
	var t *Tree
	if err == nil {
		t, err = d.Open("root")
	}
	if err != nil {
		return errors.Join(err, d.Remove("base"))
	}
	a.Path = t.Path
	a.commit = func(ctx context.Context, to string) error {
		base, err := d.shelf().look("base")
		if err != nil {
			return err
		}
		return errors.Join(l.difference(ctx, base.Path, t.Path, to), base.Close())
	}
	a.shut = func() error { return errors.Join(t.Close(), d.Remove("root"), d.Remove("base"), l.clean()) }
	return nil
}

// assemble puts all layers on each other, the base first.
func (l Layers) assemble(ctx context.Context, dir string) error {
	for i := len(l.Lower) - 1; i >= 0; i-- {
		err := l.pipe(ctx, dir, layer.Plain, func(w io.Writer) error {
			_, err := layer.Pack{Form: l.form()}.Diff(ctx, w, l.Lower[i])
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", l.Lower[i], err)
		}
	}
	return nil
}

// difference makes a layer of what differs, beside its place, and gives it its name when it is complete.
func (l Layers) difference(ctx context.Context, base, now, to string) error {
	part := filepath.Clean(to) + ".part-" + rand.Text()
	if err := os.Mkdir(part, 0o700); err != nil {
		return err
	}
	err := l.pipe(ctx, part, l.form(), func(w io.Writer) error {
		_, err := layer.Pack{}.Compare(ctx, w, base, now)
		return err
	})
	if err == nil {
		err = syncAll(part)
	}
	if err == nil {
		err = renameNew(part, to)
	}
	if err != nil {
		return errors.Join(err, copytree.RemoveAll(part))
	}
	return syncAll(filepath.Dir(to))
}

func syncAll(dir string) error {
	f, err := openDir(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// pipe unpacks what pack packs. Paths are looked up by the caller's thread, which may be in a mount namespace of its own.
func (l Layers) pipe(ctx context.Context, dir string, form layer.Form, pack func(io.Writer) error) error {
	to, err := openDir(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	u := layer.Unpack{Form: form, Devices: layer.MakeDevices, Unprivileged: l.Unprivileged, Limits: layer.Limits{Entries: layer.NoLimit, Bytes: layer.NoLimit}}
	at := "/proc/self/fd/" + strconv.Itoa(int(to.Fd()))
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		_, err := u.Apply(ctx, at, r)
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		unpacked <- err
	}()
	err = pack(w)
	w.CloseWithError(err)
	if e := <-unpacked; e != nil && (err == nil || errors.Is(err, io.ErrClosedPipe)) {
		return e
	}
	return err
}
