//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/overlay"
	"github.com/caisson-dev/caisson/overlay/driver"
	"github.com/caisson-dev/caisson/overlay/store"
	"github.com/caisson-dev/caisson/plan"
)

// layers is what the flags say of a root that is put together from layers, and what has been made for it.
type layers struct {
	dirs          []string // the base first
	image, commit string
	driver        string // how they are put together; "" and overlay2: by the kernel
	entrypoint    *string

	lowers []string // the topmost first
	lease  *store.Lease
	temp   string // where what the command writes is kept, if not in memory
	tree   *driver.Assembled

	started bool // there was a command that may have written something
}

func (l *layers) define(def func(func(string) error, ...string)) {
	def(each(&l.dirs, absolute), "layer")
	def(value(&l.image, absolute), "image")
	def(value(&l.commit, absolute), "commit")
	def(value(&l.driver, driverName), "storage-driver")
	def(func(s string) error { l.entrypoint = &s; return nil }, "entrypoint")
}

// absolute is a path of the host's as package overlay wants it.
func absolute(s string) (string, error) {
	if s == "" {
		return "", errors.New("empty")
	}
	return filepath.Abs(s)
}

// driverName is the name of a driver; auto is the first that works.
func driverName(s string) (string, error) {
	if s != "auto" && !slices.Contains(driver.Names(), s) {
		return "", fmt.Errorf("%q is none of auto, %s", s, strings.Join(driver.Names(), ", "))
	}
	return s, nil
}

// layered reports whether the root is put together from layers.
func (l *layers) layered() bool { return len(l.dirs) > 0 || l.image != "" }

// ownRoot reports whether the root is another one than the host's.
func (f *flags) ownRoot() bool { return f.rootfs != "" || f.layered() }

func (f *flags) checkLayers() error {
	switch {
	case f.rootfs != "" && f.layered():
		return errors.New("--rootfs does not go with --layer and --image")
	case f.commit != "" && !f.layered():
		return errors.New("--commit goes with --layer and --image")
	case f.driver != "" && !f.layered():
		return errors.New("--storage-driver goes with --layer and --image")
	case f.commit != "" && f.readOnly:
		return errors.New("--commit does not go with --read-only")
	case f.entrypoint != nil && f.image == "":
		return errors.New("--entrypoint goes with --image")
	case f.layered() && !f.hostIDs() && !f.oneID():
		return errors.New("--layer and --image do not go with --userns auto: their files would be nobody's")
	case len(f.command) == 0 && f.image == "":
		return errors.New("no command; see run --help")
	}
	return nil
}

// unpack gets the layers ready. What it has made, finish removes.
func (f *flags) unpack(ctx context.Context) error {
	if f.image != "" {
		if err := f.load(ctx); err != nil {
			return err
		}
	}
	for _, d := range f.dirs {
		f.lowers = slices.Insert(f.lowers, 0, d)
	}
	if f.commit != "" {
		if _, err := os.Lstat(f.commit); err == nil {
			return fmt.Errorf("--commit %s: it is there already", f.commit)
		}
	}
	if !f.layered() {
		return nil
	}
	name := f.driver
	if name == "" {
		name = "overlay2"
	}
	if f.commit != "" || name != "overlay2" {
		dir := os.TempDir()
		if f.commit != "" {
			dir = filepath.Dir(f.commit)
		}
		var err error
		if f.temp, err = os.MkdirTemp(dir, ".layer-"); err != nil {
			return err
		}
	}
	var err error
	f.tree, err = driver.Layers{Lower: f.lowers, Dir: f.temp, Unprivileged: f.oneID()}.Open(ctx, strings.TrimPrefix(name, "auto"))
	return err
}

// load takes the image into the store of the caller's, where its layers may be already, and does as its configuration says where nothing else
// is asked for.
func (f *flags) load(ctx context.Context) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	dir := store.Dir{Path: filepath.Join(cache, "caisson", "layers"), Progress: progress()}
	if f.oneID() {
		dir.Path, dir.Unprivileged = dir.Path+"-user", true
	}
	if err := os.MkdirAll(filepath.Dir(dir.Path), 0o700); err != nil {
		return err
	}
	s, err := dir.Open()
	if err != nil {
		return err
	}
	images, err := s.Import(ctx, f.image)
	if err != nil {
		return err
	}
	if len(images) != 1 {
		return fmt.Errorf("%s has %d images", f.image, len(images))
	}
	if f.lease, err = s.Lease(ctx, images[0].Layers...); err != nil {
		return err
	}
	f.lowers = f.lease.Lowers()
	c := images[0].Config.Config
	f.imageEnv = c.Env
	for _, port := range slices.Sorted(maps.Keys(c.ExposedPorts)) {
		if err := f.network.expose(port); err != nil {
			return fmt.Errorf("%s: exposed port %q: %w", f.image, port, err)
		}
	}
	if f.workdir == "" && filepath.IsAbs(c.WorkingDir) {
		f.workdir = c.WorkingDir
	}
	if f.user == "" {
		f.user = c.User
	}
	return f.compose(c.Entrypoint, c.Cmd)
}

// compose makes the command of what the image and the caller say, as docker run does.
func (f *flags) compose(entrypoint, cmd []string) error {
	if f.entrypoint != nil {
		entrypoint, cmd = nil, nil
		if *f.entrypoint != "" {
			entrypoint = []string{*f.entrypoint}
		}
	}
	if len(f.command) == 0 {
		f.command = cmd
	}
	if f.command = slices.Concat(entrypoint, f.command); len(f.command) == 0 {
		return errors.New("no command, and the image has none")
	}
	return nil
}

// stack is the root. Without --commit what the command writes ends with it.
func (f *flags) stack() plan.Primitive {
	if f.tree.Path != "" {
		return chroot.Pivot{Dir: f.tree.Path, ReadOnly: f.readOnly}
	}
	root := overlay.Root(f.tree.Stack)
	if f.readOnly {
		root.Upper, root.Work, root.ReadOnly = "", "", true
	}
	return root
}

// finish makes what the command has written a layer, if one was asked for, and lets all go.
func (f *flags) finish() (err error) {
	if f.tree != nil {
		if f.commit != "" && f.started {
			if err = f.tree.Commit(context.Background(), f.commit); err != nil {
				err = fmt.Errorf("--commit: %w", err)
			}
		}
		err = errors.Join(err, f.tree.Close())
	}
	if f.temp != "" {
		err = errors.Join(err, removeTree(f.temp))
	}
	if f.lease != nil {
		err = errors.Join(err, f.lease.Release())
	}
	return err
}

// removeTree: what the command has written may be deeper than os.RemoveAll has descriptors.
func removeTree(name string) error {
	r, err := chroot.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer r.Close()
	return r.RemoveAll(filepath.Base(name))
}

// readInLayers gives a small file of the root before that is mounted: the topmost one there is.
func (f *flags) readInLayers(name string) (string, error) {
	for _, dir := range f.lowers {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return "", err
		}
		defer root.Close()
		switch st, err := root.Stat(name); {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil || !st.Mode().IsRegular(): // a whiteout is a device
			return "", err
		}
		return contents(root.ReadFile(name))
	}
	return "", nil
}

// progress shows on a terminal how far the layers are.
func progress() func(store.Progress) {
	if _, err := unix.IoctlGetTermios(2, unix.TCGETS); err != nil {
		return nil
	}
	return func(p store.Progress) {
		id := p.DiffID.String()
		switch {
		case p.Done:
			fmt.Fprintf(os.Stderr, "\r%.19s  %d files\033[K\n", id, p.Totals.Entries)
		case p.Size > 0:
			fmt.Fprintf(os.Stderr, "\r%.19s  %3d %%\033[K", id, 100*p.Read/p.Size)
		}
	}
}
