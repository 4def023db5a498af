//go:build linux

package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/internal/copytree"
)

// Btrfs makes a tree as a snapshot of its parent, a subvolume of its own (btrfs-subvolume(8)): at once, whatever its size. Dir must be on btrfs, else
// the error wraps errors.ErrUnsupported. To remove a tree needs CAP_SYS_ADMIN, or the mount option user_subvol_rm_allowed.
type Btrfs struct {
	Dir string // with the trees; made when it is missing
}

// Create implements Driver.
func (d Btrfs) Create(name, parent string) error { return d.shelf().create(name, parent) }

// Open implements Driver.
func (d Btrfs) Open(name string) (*Tree, error) { return d.shelf().open(name) }

// Remove implements Driver.
func (d Btrfs) Remove(name string) error { return d.shelf().remove(name) }

func (d Btrfs) shelf() shelf { return shelf{d.Dir, btrfs{}} }

type btrfs struct{}

// The calls of linux/btrfs.h: _IOW(0x94, n, 4096 bytes).
const (
	snapDestroy  = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	snapCreate   = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2
	subvolCreate = 0x50009418 // BTRFS_IOC_SUBVOL_CREATE_V2
)

// volume is struct btrfs_ioctl_vol_args_v2.
type volume struct {
	fd      int64
	transid uint64
	flags   uint64
	unused  [4]uint64
	name    [4040]byte
}

// oldVolume is struct btrfs_ioctl_vol_args.
type oldVolume struct {
	fd   int64
	name [4088]byte
}

func (btrfs) fill(dir, parent string) error {
	to, err := openDir(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(to.Fd()), &st); err != nil {
		return err
	}
	if uint32(st.Type) != unix.BTRFS_SUPER_MAGIC {
		return fmt.Errorf("%s is not on btrfs: %w", filepath.Dir(dir), errors.ErrUnsupported)
	}
	v := volume{}
	copy(v.name[:], files)
	if parent == "" {
		if err := ioctl(to, subvolCreate, unsafe.Pointer(&v)); err != nil {
			return err
		}
		return os.Chmod(filepath.Join(dir, files), 0o755)
	}
	from, err := openDir(filepath.Join(parent, files))
	if err != nil {
		return err
	}
	defer from.Close()
	v.fd = int64(from.Fd())
	return ioctl(to, snapCreate, unsafe.Pointer(&v))
}

func ioctl(f *os.File, call uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), call, uintptr(arg)); e != 0 {
		return os.NewSyscallError("ioctl", e)
	}
	return nil
}

func (btrfs) show(dir string, _ []string) (string, func() error, error) {
	return filepath.Join(dir, files), nil, nil
}

// clear removes the subvolume. Who was in it may have made subvolumes of his own, which are to be removed before.
func (btrfs) clear(dir string) error {
	err := destroy(dir)
	if errors.Is(err, syscall.ENOTEMPTY) {
		if err = copytree.Empty(filepath.Join(dir, files)); err == nil {
			err = destroy(dir)
		}
	}
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTTY) { // not made yet
		return nil
	}
	return err
}

func destroy(dir string) error {
	at, err := openDir(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	v := oldVolume{}
	copy(v.name[:], files)
	return ioctl(at, snapDestroy, unsafe.Pointer(&v))
}
