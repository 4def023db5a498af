//go:build linux

package driver

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay"
)

// Overlayfs keeps what differs from the parent, and mounts the tree when it is opened (package overlay). It needs CAP_SYS_ADMIN, in a mount
// namespace of the caller's. A tree has 498 ancestors at most.
type Overlayfs struct {
	Dir string // with the trees; made when it is missing
}

// Create implements Driver. Nothing is copied.
func (d Overlayfs) Create(name, parent string) error { return d.shelf().create(name, parent) }

// Open implements Driver. The tree is mounted at Path until it is closed.
func (d Overlayfs) Open(name string) (*Tree, error) { return d.shelf().open(name) }

// Remove implements Driver.
func (d Overlayfs) Remove(name string) error { return d.shelf().remove(name) }

func (d Overlayfs) shelf() shelf { return shelf{d.Dir, overlayfs{}} }

type overlayfs struct{}

func (overlayfs) fill(dir, _ string) error { return makeDirs(dir) }

// makeDirs makes the directories that a mount needs. The root of a tree has mode 755.
func makeDirs(dir string) error {
	for name, mode := range map[string]os.FileMode{files: 0o755, "work": 0o700, "at": 0o700, "empty": 0o755} {
		if err := os.Mkdir(filepath.Join(dir, name), mode); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil { // whatever the umask
			return err
		}
	}
	return nil
}

func (overlayfs) show(dir string, below []string) (string, func() error, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	s := overlay.Stack{Upper: filepath.Join(dir, files), Work: filepath.Join(dir, "work")}
	for _, b := range below {
		b, err := filepath.Abs(b)
		if err != nil {
			return "", nil, err
		}
		s.Lower = append(s.Lower, filepath.Join(b, files))
	}
	if len(below) == 0 {
		s.Lower = []string{filepath.Join(dir, "empty")}
	}
	at := filepath.Join(dir, "at")
	if err := unmountStale(at); err != nil {
		return "", nil, err
	}
	t, err := s.Mount(at)
	if err != nil {
		return "", nil, err
	}
	return at, t.Close, nil
}

func (overlayfs) clear(dir string) error { return unmountStale(filepath.Join(dir, "at")) }

// unmountStale ends what a process has left mounted that was killed; its lock is gone.
func unmountStale(at string) error {
	for {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, at, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st)
		if err == syscall.ENOENT { // not made yet
			return nil
		}
		if err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
			return nil
		}
		if err := unmount(at, unix.MNT_DETACH); err != nil {
			return err
		}
	}
}

// unmount is umount2(2), or what does it for an ordinary user who has a file system of FUSE.
func unmount(at string, flags int) error {
	err := unix.Unmount(at, flags|unix.UMOUNT_NOFOLLOW)
	if err != syscall.EPERM {
		return err
	}
	args := []string{"-u", at}
	if flags&unix.MNT_DETACH != 0 {
		args = []string{"-u", "-z", at}
	}
	if out, err := exec.Command("fusermount3", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("fusermount3 %v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}
