//go:build linux

package overlay

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// mappedRoot tells who owns the topmost layer when it is mounted with other ids: a scratch upper is made for the same one. The kernel is
// asked, by such a mount.
func (s Stack) mappedRoot(top root) (root, error) {
	fail := func(op string, err error) (root, error) {
		return root{}, &Error{Op: op, Path: s.Lower[0], Err: err,
			Hint: hintFor(err, syscall.EPERM, "needs CAP_SYS_ADMIN on the host, and the namespace must not be the host's own user namespace")}
	}
	ns, err := duplicate(s.IDMap)
	if err != nil {
		return fail("take the user namespace for", err)
	}
	defer ns.Close()
	fd, err := unix.OpenTree(unix.AT_FDCWD, s.Lower[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fail("open_tree", err)
	}
	f := os.NewFile(uintptr(fd), strconv.Quote(s.Lower[0]))
	defer f.Close()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	switch err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); {
	case err == syscall.EINVAL:
		return fail("mount with other ids", fmt.Errorf("the file system cannot: %w, %w", errors.ErrUnsupported, err))
	case err != nil:
		return fail("mount_setattr", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail("fstat", err)
	}
	return root{mode: top.mode, uid: st.Uid, gid: st.Gid}, nil
}
