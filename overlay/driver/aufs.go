//go:build linux

package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Aufs is [Overlayfs] by aufs, where the kernel has it, which is not in Linux itself: else the error wraps errors.ErrUnsupported. A tree is a writable branch on read-only
// ones; what is deleted is files .wh.NAME, which layer.AUFS reads and writes. It needs CAP_SYS_ADMIN, in a mount namespace of the caller's. The path of Dir has no comma, colon
// or equals sign: the kernel has no quotes for them. A tree has 126 ancestors at most, unless the kernel was built for more.
type Aufs struct {
	Dir string // with the trees; made when it is missing
}

// Create implements Driver. Nothing is copied.
func (d Aufs) Create(name, parent string) error { return d.shelf().create(name, parent) }

// Open implements Driver. The tree is mounted at Path until it is closed.
func (d Aufs) Open(name string) (*Tree, error) { return d.shelf().open(name) }

// Remove implements Driver.
func (d Aufs) Remove(name string) error { return d.shelf().remove(name) }

func (d Aufs) shelf() shelf { return shelf{d.Dir, aufs{}} }

type aufs struct{}

func (aufs) fill(dir, _ string) error {
	if _, err := branches(dir, nil); err != nil {
		return err
	}
	return makeDirs(dir)
}

func (aufs) show(dir string, below []string) (string, func() error, error) {
	at := filepath.Join(dir, "at")
	if err := unmountStale(at); err != nil {
		return "", nil, err
	}
	options, err := branches(dir, below)
	if err != nil {
		return "", nil, err
	}
	flags := uintptr(0)
	for _, o := range options {
		if err = unix.Mount("none", at, "aufs", flags, o); err != nil {
			break
		}
		flags = unix.MS_REMOUNT
	}
	if err == nil {
		return at, func() error { return unmount(at, 0) }, nil
	}
	if err == syscall.ENODEV {
		err = fmt.Errorf("the kernel has no aufs: %w, %w", errors.ErrUnsupported, err)
	} else {
		err = os.NewSyscallError("mount", err)
	}
	return "", nil, errors.Join(err, unmountStale(at))
}

func (aufs) clear(dir string) error { return unmountStale(filepath.Join(dir, "at")) }

// mountText is what mount(2) takes of options: a page, with the zero behind it.
const mountText = 4096 - 1

// branches gives the options of the mount, and of the mounts anew that append what did not fit into those.
func branches(dir string, below []string) (options []string, err error) {
	text, err := branch("br:", dir, "=rw")
	for _, b := range below {
		var next, more string
		if err == nil {
			next, err = branch(":", b, "=ro+wh")
		}
		if err == nil {
			more, err = branch("append:", b, "=ro+wh")
		}
		if err != nil {
			return nil, err
		}
		if len(options) > 0 {
			next = "," + more
		}
		if len(text)+len(next) > mountText {
			options = append(options, text)
			text, next = more, ""
		}
		text += next
	}
	return append(options, text), err
}

// branch names the files of a tree as a branch.
func branch(before, dir, after string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(dir, files))
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(dir, ",:=\x00") || len(dir) > mountText/2 {
		return "", fmt.Errorf("%q cannot be a branch of aufs: %w", dir, syscall.EINVAL)
	}
	return before + dir + after, nil
}
