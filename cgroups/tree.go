//go:build linux

package cgroups

import (
	"errors"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/deep"
)

// tree walks the groups below a directory. Whoever has been given a group makes groups in it as deep as he likes, so it takes few descriptors; and
// he removes some while we walk, which are passed over.
func (d *dir) tree() *deep.Tree {
	return &deep.Tree{
		Names: func(dir int) ([]string, error) {
			names, err := d.kernel.groupsIn(dir)
			return names, inWalk("list", "", ignoringGone(err))
		},
		Open: func(dir int, name string) (int, error) {
			fd, err := d.kernel.open(dir, name, unix.O_PATH|unix.O_DIRECTORY)
			if gone(err) {
				return -1, nil
			}
			return fd, inWalk("open", "", err)
		},
		Before: func(int, deep.Path) (bool, error) { return true, nil },
	}
}

// inWalk is an error of which the walk knows the place.
func inWalk(op, file string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, File: file, Err: err}
}

// walk does it, and gives the error its group.
func (d *dir) walk(t *deep.Tree) error {
	err := t.Walk(d.fd())
	var at *deep.Error
	if !errors.As(err, &at) {
		return err
	}
	e := &Error{Op: "open", Err: at.Err}
	errors.As(at.Err, &e)
	place := dir{hierarchy: d.hierarchy, path: path.Join(d.path, at.Path)}
	return place.failed(e.Op, e.File, e.Value, e.Err)
}

// groupsIn lists the directories in one.
func (k *kernel) groupsIn(dir int) ([]string, error) {
	if leaf(dir) {
		return nil, nil
	}
	fd, err := k.open(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "cgroup")
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil && !gone(err) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// leaf reports whether there is no directory below: a directory has one link more for each.
func leaf(dir int) bool {
	var st unix.Stat_t
	return unix.Fstat(dir, &st) == nil && st.Nlink == 2
}
