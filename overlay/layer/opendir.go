//go:build linux

package layer

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// openDir opens a directory by one word: no link is followed, no mount entered.
func openDir(dir int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	for range 1000 { // interrupted, or lost to somebody who renames
		fd, err := unix.Openat2(dir, name, &how)
		switch err {
		case syscall.EINTR, syscall.EAGAIN:
			continue
		case syscall.ENOSYS, syscall.EPERM: // a filter of an outer sandbox does not know the call
			return openDirByHand(dir, name)
		}
		return fd, err
	}
	return -1, syscall.EAGAIN
}

// openOwn is openDir for an ordinary user, who may have closed a directory to himself: it is made accessible for the time being, and the mode that it had is
// given.
func (t *tree) openOwn(dir int, name string) (fd int, was *uint32, err error) {
	fd, err = openDir(dir, name)
	if err != syscall.EACCES || !t.loosen {
		return fd, nil, err
	}
	place, e := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if e != nil {
		return -1, nil, err
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if e := unix.Fstat(place, &st); e != nil {
		return -1, nil, e
	}
	mode := uint32(st.Mode) & 0o7777
	if int(st.Uid) != unix.Geteuid() || chmodPlace(place, mode|0o700) != nil {
		return -1, nil, err
	}
	fd, err = openDir(dir, name)
	return fd, &mode, err
}

func openDirByHand(dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var here, there unix.Statx_t
	for f, st := range map[int]*unix.Statx_t{dir: &here, fd: &there} {
		if e := unix.Statx(f, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, st); err == nil {
			err = e
		}
	}
	if err == nil && (here.Mask&there.Mask&unix.STATX_MNT_ID == 0 || here.Mnt_id != there.Mnt_id) {
		err = syscall.EXDEV
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// crossing makes the kernel's answer to a mount a refusal.
func crossing(err error) error {
	if err == syscall.EXDEV {
		return refuse(IsMount, "")
	}
	return err
}

func readlinkat(dir int, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}
