//go:build linux

package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Zfs makes a tree as a clone of a snapshot of its parent, a dataset of its own (zfs-clone(8)): at once, whatever its size. The datasets are children of the one on which
// Dir lies, caisson-..., and inherit its properties: acltype=posixacl is one for layers that have ACLs. It needs CAP_SYS_ADMIN of the machine, in a mount namespace of the
// caller's. Where Dir is not on zfs, or the program is missing (Debian's contrib has zfs-dkms and zfsutils-linux), the error wraps errors.ErrUnsupported.
type Zfs struct {
	Dir     string // with the trees; made when it is missing
	Program string // "" is zfs, in PATH or in /usr/sbin
}

// Create implements Driver. Nothing is copied.
func (d Zfs) Create(name, parent string) error { return d.shelf().create(name, parent) }

// Open implements Driver. The tree is mounted at Path until it is closed, where only the caller's user comes by.
func (d Zfs) Open(name string) (*Tree, error) { return d.shelf().open(name) }

// Remove implements Driver. What has been made inside of the tree's dataset is removed, too: snapshots, and other datasets.
func (d Zfs) Remove(name string) error { return d.shelf().remove(name) }

func (d Zfs) shelf() shelf { return shelf{d.Dir, zfs{d.Program}} }

type zfs struct{ program string }

const zfsMagic = 0x2fc12fc1 // ZFS_SUPER_MAGIC

// fill notes the names before it makes anything of that name, so that whoever finds the rest of it can remove all.
func (z zfs) fill(dir, parent string) error {
	base, err := below(dir)
	if err != nil {
		return err
	}
	if _, err := z.find(); err != nil {
		return err
	}
	c := newClone()
	if parent != "" {
		p, err := readClone(parent)
		if err != nil {
			return err
		}
		c.parent = p.name
	}
	if err := os.Mkdir(filepath.Join(dir, "at"), 0o700); err != nil {
		return err
	}
	lock, err := c.note(dir)
	if err != nil {
		return err
	}
	defer unlock(lock)
	err = z.begin(lock, base, c)
	if errors.Is(err, os.ErrPermission) { // who may not make one may not ask whether there is one to be removed
		return errors.Join(err, os.Remove(filepath.Join(dir, note)))
	}
	if err == nil && parent != "" {
		err = z.make(lock, "clone", base+c.snapshot(), base+c.name)
	}
	return err
}

// begin makes an empty dataset, or that of which a clone can be made.
func (z zfs) begin(lock *os.File, base string, c clone) error {
	if c.parent == "" {
		return z.make(lock, "create", base+c.name)
	}
	return z.run(lock, "snapshot", base+c.snapshot())
}

// make makes a dataset that zfs mount -a and the boot leave alone, and that has no directory .zfs among its files.
func (z zfs) make(lock *os.File, how string, names ...string) error {
	return z.run(lock, append([]string{how, "-o", "mountpoint=legacy", "-o", "snapdir=hidden"}, names...)...)
}

func (zfs) show(dir string, _ []string) (string, func() error, error) {
	at := filepath.Join(dir, "at")
	if err := unmountStale(at); err != nil {
		return "", nil, err
	}
	base, err := below(dir)
	if err != nil {
		return "", nil, err
	}
	c, err := readClone(dir)
	if err != nil {
		return "", nil, err
	}
	if err := unix.Mount(base+c.name, at, "zfs", 0, ""); err != nil {
		return "", nil, os.NewSyscallError("mount "+base+c.name, err)
	}
	return at, func() error { return unmount(at, 0) }, nil
}

// clear removes the dataset, and then the snapshot of which it was made. Either may be gone, or not be made yet.
func (z zfs) clear(dir string) error {
	if err := unmountStale(filepath.Join(dir, "at")); err != nil {
		return err
	}
	c, err := readClone(dir)
	if errors.Is(err, os.ErrNotExist) || err == errNothingNoted {
		return nil
	}
	if err != nil {
		return err
	}
	lock, err := lockNote(dir)
	if err != nil {
		return err
	}
	defer unlock(lock)
	base, err := below(dir)
	if err != nil {
		return err
	}
	// Root of the tree may have made snapshots by mkdir in .zfs/snapshot, or other trees in it.
	err = z.destroy(lock, "-r", base+c.name)
	if err == nil && c.parent != "" {
		err = z.destroy(lock, base+c.snapshot())
	}
	return err
}

// destroy tries again when it is busy: a sandbox that was being started while the tree was open has its mount for a moment, until it leaves its old root.
func (z zfs) destroy(lock *os.File, args ...string) error {
	args = append([]string{"destroy"}, args...)
	err := z.run(lock, args...)
	for wait := 10 * time.Millisecond; errors.Is(err, syscall.EBUSY) && wait < 200*time.Millisecond; wait *= 2 {
		time.Sleep(wait)
		err = z.run(lock, args...)
	}
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// below gives what the names of datasets begin with: that of the dataset on which the directory lies.
func below(dir string) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return "", &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if uint32(fs.Type) != zfsMagic {
		return "", fmt.Errorf("%s is not on zfs (which takes a pool, and on Debian the packages zfs-dkms and zfsutils-linux): %w", filepath.Dir(dir), errors.ErrUnsupported)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	name, err := datasetOf(uint64(st.Dev))
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	return name + "/", nil
}
