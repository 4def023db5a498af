//go:build linux

package pty

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The device number of ptmx, Documentation/admin-guide/devices.txt.
const ptmxMajor, ptmxMinor = 5, 2

// Devpts reports whether a file or directory, which may be open by O_PATH only, lies on a devpts file system, as the kernel sees it. Nothing
// that can be mounted inside a sandbox, FUSE included, can pretend to be one.
func Devpts(f *os.File) error {
	return control(f, "fstatfs", func(fd int) error {
		var fs unix.Statfs_t
		if err := unix.Fstatfs(fd, &fs); err != nil {
			return err
		}
		if uint32(fs.Type) != unix.DEVPTS_SUPER_MAGIC {
			return &WrongFileError{"a devpts file system", fmt.Sprintf("a file system of type %#x", uint32(fs.Type))}
		}
		return nil
	})
}

// Check reports whether a file is the master of a pseudoterminal that is open.
func Check(master *os.File) error {
	err := control(master, "ioctl TIOCGPTN", func(fd int) error {
		_, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		return err
	}
	st, err := stat(master)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || uint64(st.Rdev) != unix.Mkdev(ptmxMajor, ptmxMinor)) {
		err = &WrongFileError{"a pseudoterminal's master", describe(st)}
	}
	return err
}

// Same reports whether a file, which may be open by O_PATH only, is the peer of the master.
func Same(master, file *os.File) error {
	if err := Check(master); err != nil {
		return err
	}
	peer, err := Peer(master)
	if err != nil {
		return err
	}
	defer peer.Close()
	want, err := stat(peer)
	if err != nil {
		return err
	}
	got, err := stat(file)
	if err != nil {
		return err
	}
	if got.Mode&unix.S_IFMT != unix.S_IFCHR || got.Rdev != want.Rdev || got.Dev != want.Dev || got.Ino != want.Ino {
		return &WrongFileError{fmt.Sprintf("the terminal %d:%d", unix.Major(uint64(want.Rdev)), unix.Minor(uint64(want.Rdev))), describe(got)}
	}
	return Devpts(file)
}

func stat(f *os.File) (st unix.Stat_t, err error) {
	err = control(f, "fstat", func(fd int) error { return unix.Fstat(fd, &st) })
	return st, err
}

func describe(st unix.Stat_t) string {
	kinds := map[uint32]string{unix.S_IFREG: "a regular file", unix.S_IFDIR: "a directory", unix.S_IFIFO: "a fifo",
		unix.S_IFLNK: "a symbolic link", unix.S_IFSOCK: "a socket"}
	if kind, ok := kinds[st.Mode&unix.S_IFMT]; ok {
		return kind
	}
	return fmt.Sprintf("device %d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
}
