//go:build linux

package driver

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/internal/copytree"
)

// Copy makes a tree by copying its parent. Where the file system can share data between files (xfs, btrfs), only names are copied
// (ioctl_ficlone(2)). It works everywhere, and without privilege where all files are the caller's.
type Copy struct {
	Dir string // with the trees; made when it is missing
}

// Create implements Driver.
func (d Copy) Create(name, parent string) error { return d.shelf().create(name, parent) }

// Open implements Driver.
func (d Copy) Open(name string) (*Tree, error) { return d.shelf().open(name) }

// Remove implements Driver.
func (d Copy) Remove(name string) error { return d.shelf().remove(name) }

func (d Copy) shelf() shelf { return shelf{d.Dir, copied{}} }

type copied struct{}

func (copied) fill(dir, parent string) error {
	at := filepath.Join(dir, files)
	if err := errors.Join(os.Mkdir(at, 0o755), os.Chmod(at, 0o755)); err != nil || parent == "" {
		return err
	}
	dst, err := openDir(at)
	if err != nil {
		return err
	}
	defer dst.Close()
	src, err := openDir(filepath.Join(parent, files))
	if err != nil {
		return err
	}
	defer src.Close()
	return new(copytree.Copy).Run(src, dst)
}

func openDir(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (copied) show(dir string, _ []string) (string, func() error, error) {
	return filepath.Join(dir, files), nil, nil
}

func (copied) clear(string) error { return nil }
