//go:build linux

package driver

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/internal/copytree"
)

// Fuse is [Overlayfs] by a program, fuse-overlayfs, for ordinary users and old kernels. One process runs for each open tree; all files belong to
// the caller. Without the program, or /dev/fuse, or fusermount3 for an ordinary user, the error wraps errors.ErrUnsupported.
type Fuse struct {
	Dir     string // with the trees; made when it is missing
	Program string // "" is fuse-overlayfs, in PATH
}

// Create implements Driver. Nothing is copied.
func (d Fuse) Create(name, parent string) error { return d.shelf().create(name, parent) }

// Open implements Driver. The tree is mounted at Path until it is closed.
func (d Fuse) Open(name string) (*Tree, error) { return d.shelf().open(name) }

// Remove implements Driver.
func (d Fuse) Remove(name string) error { return d.shelf().remove(name) }

func (d Fuse) shelf() shelf {
	if d.Program == "" {
		d.Program = "fuse-overlayfs"
	}
	return shelf{d.Dir, fuse{d.Program}}
}

type fuse struct{ program string }

func (fuse) fill(dir, parent string) error {
	if parent != "" {
		if err := copytree.Strip(filepath.Join(parent, files), origin); err != nil {
			return err
		}
	}
	return makeDirs(dir)
}

// origin is where the program notes from which file of a lower layer one was copied. Version 1.10 takes two names of one file for the same one
// then, for ever: of a file that was written to by one name one reads the old data, in the new length. Without the note the names go separate ways,
// as with the kernel's overlayfs.
const origin = "user.fuseoverlayfs.origin"

// What the program notes about an opaque directory, beside the file that aufs would have there.
const (
	fuseOpaque   = "user.fuseoverlayfs.opaque"
	fuseWhiteout = ".wh..opq" // a device 0:0
)

func (fuse) clear(dir string) error { return unmountStale(filepath.Join(dir, "at")) }

// show runs the program in the directory of the trees.
func (f fuse) show(dir string, below []string) (string, func() error, error) {
	if err := unmountStale(filepath.Join(dir, "at")); err != nil {
		return "", nil, err
	}
	if err := copytree.Strip(filepath.Join(dir, files), origin); err != nil {
		return "", nil, err
	}
	tree := filepath.Base(dir)
	lower := []string{tree + "/empty"}
	for i, b := range below {
		lower = append(lower[:i], filepath.Base(b)+"/"+files)
	}
	m := fuseMount{program: f.program, dir: filepath.Dir(dir), lower: lower, upper: tree + "/" + files, work: tree + "/work", at: tree + "/at"}
	shut, err := m.start()
	return filepath.Join(dir, "at"), shut, err
}

// fuseMount is a run of the program, in a directory: all names are short and plain, since it reads them from one text.
type fuseMount struct {
	program, dir    string
	lower           []string // the topmost first
	upper, work, at string
}

// start mounts. The function that it gives unmounts.
func (m fuseMount) start() (func() error, error) {
	program, err := exec.LookPath(m.program)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	cmd := exec.Command(program, "-f", "-o", "lowerdir="+strings.Join(m.lower, ":")+",upperdir="+m.upper+",workdir="+m.work, m.at)
	var said bytes.Buffer
	cmd.Dir, cmd.Stderr, cmd.Stdout = m.dir, &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is for the sandbox
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	at := filepath.Join(m.dir, m.at)
	if err := awaitMount(at, ended); err != nil {
		cmd.Process.Kill()
		if strings.Contains(said.String(), "fusermount") || strings.Contains(said.String(), "/dev/fuse") || strings.Contains(said.String(), "device not found") {
			err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return func() error { return end(at, ended) }, nil
}

// awaitMount waits until a file system of FUSE is there.
func awaitMount(at string, ended <-chan error) error {
	for range 2000 {
		var st unix.Statfs_t
		if err := unix.Statfs(at, &st); err == nil && st.Type == unix.FUSE_SUPER_MAGIC {
			return nil
		}
		select {
		case err := <-ended:
			return errors.Join(errors.New("fuse-overlayfs has ended"), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return syscall.ETIMEDOUT
}

// end unmounts, which ends the program, and waits for it: then all is written.
func end(at string, ended <-chan error) error {
	if err := unmount(at, 0); err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("fuse-overlayfs: %w", err)
	}
	return nil
}
