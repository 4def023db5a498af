//go:build linux

package chroot

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// NoLimit is a limit for those who trust what they read.
const NoLimit int64 = math.MaxInt64

// CopyOut writes the contents of a file that the sandbox has made to w, and gives their length. What the sandbox says about the file is not
// believed: anything but a regular file with one name is a [*RefusedError], also on the way to it, and nothing is opened then;
// so is a file of more bytes than limit, of which nothing more than limit bytes are written. CopyOut does not wait for the sandbox, whatever the
// file is.
func (r *Root) CopyOut(name string, w io.Writer, limit int64) (int64, error) {
	f, err := r.openOutput(name, limit)
	if err != nil {
		return 0, r.fail("copy out", name, err)
	}
	defer f.Close()
	n, err := copyLimited(w, f, limit)
	return n, r.fail("copy out", name, err)
}

func (r *Root) openOutput(name string, limit int64) (*os.File, error) {
	place, err := r.find(name, unix.O_NOFOLLOW, true)
	if err != nil {
		return nil, refuseLink(err)
	}
	defer place.Close()
	if err := plain(place); err != nil {
		return nil, err
	}
	f, err := r.reopen(place, unix.O_RDONLY, false)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil {
		err = plain(f) // a name may have come meanwhile
	}
	if err == nil && st.Size() > limit {
		err = &RefusedError{IsTooLarge}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// refuseLink makes the kernel's answer to a symbolic link a refusal.
func refuseLink(err error) error {
	if err == syscall.ELOOP {
		return &RefusedError{IsSymlink}
	}
	return err
}

// plain refuses what is not a regular file with one name.
func plain(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if why := judge(info.Mode()); why != 0 {
		return &RefusedError{why}
	}
	if err := oneName(f); err != nil {
		return err
	}
	return notKernels(f)
}

// oneName refuses a file that has a further name. One that has none any more is nobody else's; directories are not meant.
func oneName(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return &RefusedError{IsHardLink}
	}
	return nil
}

// notKernels refuses what the kernel makes up for its reader: mounted over a file of the sandbox's it would be read with the host's rights.
func notKernels(f *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return err
	}
	switch uint32(fs.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
		unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.SELINUX_MAGIC, unix.EFIVARFS_MAGIC, unix.PSTOREFS_MAGIC:
		return &RefusedError{IsKernels}
	}
	return nil
}

// copyLimited copies up to limit bytes and refuses more.
func copyLimited(w io.Writer, f io.Reader, limit int64) (int64, error) {
	n, err := io.Copy(w, io.LimitReader(f, limit))
	if err != nil || n < limit {
		return n, err
	}
	if more, err := io.ReadFull(f, make([]byte, 1)); more > 0 {
		return n, &RefusedError{IsTooLarge}
	} else if err != nil && err != io.EOF {
		return n, err
	}
	return n, nil
}

func readLimited(f *os.File, limit int64) ([]byte, error) {
	if limit < NoLimit {
		b, err := io.ReadAll(io.LimitReader(f, limit+1))
		if err == nil && int64(len(b)) > limit {
			return nil, &RefusedError{IsTooLarge}
		}
		return b, err
	}
	return io.ReadAll(f)
}

// CopyIn makes a file with what src gives, and gives its length. It is written under another name and renamed, so that the sandbox sees all of it or
// nothing, and nothing that the sandbox has put in its place is opened or followed. What is there and is not a regular file with one name is a
// [*RefusedError], as is more than limit bytes, and a symbolic link on the way. The mode is perm, whatever the umask.
func (r *Root) CopyIn(name string, src io.Reader, perm fs.FileMode, limit int64) (int64, error) {
	n, err := r.copyIn(name, src, perm, limit)
	return n, r.fail("copy in", name, err)
}

func (r *Root) copyIn(name string, src io.Reader, perm fs.FileMode, limit int64) (int64, error) {
	if err := r.mayReplace(name); err != nil {
		return 0, err
	}
	dir, base, err := r.parentOf(name, true)
	if err != nil {
		return 0, refuseLink(err)
	}
	defer dir.Close()
	temporary := ".caisson-" + rand.Text()
	fd, err := unix.Openat(int(dir.Fd()), temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return 0, err
	}
	f := os.NewFile(uintptr(fd), name)
	n, err := copyLimited(f, src, limit)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = unix.Renameat(int(dir.Fd()), temporary, int(dir.Fd()), base)
	}
	if err != nil {
		unix.Unlinkat(int(dir.Fd()), temporary, 0)
	}
	return n, err
}

// mayReplace refuses where a file of another kind is in the place.
func (r *Root) mayReplace(name string) error {
	place, err := r.find(name, unix.O_NOFOLLOW, true)
	if err == syscall.ENOENT {
		return nil
	}
	if err != nil {
		return refuseLink(err)
	}
	defer place.Close()
	return plain(place)
}
