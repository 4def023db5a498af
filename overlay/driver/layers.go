//go:build linux

package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson/overlay"
)

// Layers are put together as the root directory of a sandbox, in a way that is chosen by name: for programs whose users choose it, and for hosts on which
// the kernel's overlayfs cannot be used.
type Layers struct {
	// Lower are the layers, the topmost first, as overlay.Stack has them: with the marks of the kernel's overlay mounts.
	Lower []string

	// Unprivileged is for an ordinary user: the marks are user.overlay.*, and the caller owns all files.
	Unprivileged bool

	// Dir is a directory of the caller's own that exists and is empty. What is written goes there, and what a driver needs; it is left empty by Close.
	// "" is for overlay only: what is written is kept in memory, and nothing can be committed.
	Dir string
}

// Names gives the names that [Layers.Open] takes, in the order in which it tries them: those of docker's storage drivers.
//
//	overlay2        the kernel's overlayfs
//	fuse-overlayfs  the same by a program
//	btrfs           a copy of the layers, and a snapshot of that
//	zfs             a copy of the layers, and a clone of that
//	vfs             two copies; the second shares its data with the first where the file system can
func Names() []string { return []string{"overlay2", "fuse-overlayfs", "btrfs", "zfs", "vfs"} }

// Assembled is a root directory that has been put together.
type Assembled struct {
	Driver string // its name

	// Path is the directory, for chroot.Pivot. With overlay2 there is none before the sandbox mounts it: "", and Stack is to be taken, as an overlay.Root.
	Path  string
	Stack overlay.Stack

	commit func(ctx context.Context, layer string) error
	shut   func() error
}

// Commit makes what has been written a layer, in a new directory, to be put on the same Lower: complete, on the disk, or not there. The sandbox has ended. It can be done
// once. overlay2 and fuse-overlayfs take layers on the file system of Dir only, and copy nothing.
func (a *Assembled) Commit(ctx context.Context, layer string) error {
	if a.commit == nil {
		return fail("commit", layer, fmt.Errorf("what was written is not kept, or is committed: %w", syscall.EINVAL))
	}
	commit := a.commit
	a.commit = nil
	return fail("commit", layer, commit(ctx, layer))
}

// Close ends the use, and removes what is in Dir. The sandbox has ended.
func (a *Assembled) Close() error { return fail("close", a.Driver, a.shut()) }

// Open puts the layers together with the driver of that name; "" is the first of [Names] with which it can be done. Errors are [*Error].
func (l Layers) Open(ctx context.Context, name string) (*Assembled, error) {
	a, err := l.open(ctx, name)
	return a, fail("open", name, err)
}

func (l Layers) open(ctx context.Context, name string) (*Assembled, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	if name != "" {
		return l.with(ctx, name, false)
	}
	var all error
	for _, name := range Names() {
		a, err := l.with(ctx, name, true)
		if err == nil {
			return a, nil
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", name, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, all
}

// check: to read a layer that is not there as an empty one would be to leave something out.
func (l Layers) check() error {
	if len(l.Lower) == 0 {
		return fmt.Errorf("no layers: %w", syscall.EINVAL)
	}
	for _, dir := range l.Lower {
		st, err := os.Lstat(dir)
		if err == nil && !st.IsDir() {
			err = fmt.Errorf("%s: %w", dir, syscall.ENOTDIR)
		}
		if err == nil && !filepath.IsAbs(dir) {
			err = fmt.Errorf("%q is not an absolute path: %w", dir, syscall.EINVAL)
		}
		if err != nil {
			return err
		}
	}
	if l.Dir == "" {
		return nil
	}
	left, err := os.ReadDir(l.Dir)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s: %w", l.Dir, syscall.ENOTEMPTY)
	}
	return err
}

func (l Layers) with(ctx context.Context, name string, try bool) (*Assembled, error) {
	if name != "overlay2" && l.Dir == "" && slices.Contains(Names(), name) {
		return nil, fmt.Errorf("needs a directory: %w", syscall.EINVAL)
	}
	a := &Assembled{Driver: name}
	var err error
	switch name {
	case "overlay2":
		err = l.kernel(ctx, a, try)
	case "fuse-overlayfs":
		err = l.fuse(ctx, a)
	case "btrfs":
		err = l.copied(ctx, a, Btrfs{Dir: filepath.Join(l.Dir, "trees")})
	case "zfs":
		err = l.copied(ctx, a, Zfs{Dir: filepath.Join(l.Dir, "trees")})
	case "vfs":
		err = l.copied(ctx, a, Copy{Dir: filepath.Join(l.Dir, "trees")})
	default:
		return nil, fmt.Errorf("%q is none of %s: %w", name, strings.Join(Names(), ", "), syscall.EINVAL)
	}
	if err != nil {
		return nil, errors.Join(err, l.clean())
	}
	return a, nil
}
