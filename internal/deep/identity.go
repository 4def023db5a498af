//go:build linux

package deep

import "golang.org/x/sys/unix"

// Identity tells a directory from all others, also from a later one that has been given its inode number.
type Identity struct {
	major, minor uint32
	inode, mount uint64
	born         unix.StatxTimestamp
}

// Identify gives that of what is behind a descriptor. Where the kernel or a filter has no statx(2), and the file system no time of birth, inode
// numbers have to do.
func Identify(fd int) (Identity, error) {
	var x unix.Statx_t
	const wanted = unix.STATX_INO | unix.STATX_BTIME | unix.STATX_MNT_ID
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, wanted, &x); err == nil {
		return Identity{x.Dev_major, x.Dev_minor, x.Ino, x.Mnt_id, x.Btime}, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Identity{}, err
	}
	return Identity{major: unix.Major(uint64(st.Dev)), minor: unix.Minor(uint64(st.Dev)), inode: uint64(st.Ino)}, nil
}
