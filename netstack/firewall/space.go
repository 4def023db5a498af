//go:build linux

package firewall

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// space is a network namespace.
type space struct {
	file     *os.File
	dev, ino uint64
}

// here opens the namespace of the calling thread.
func here() (*space, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, os.NewSyscallError("fstat", err)
	}
	return &space{f, uint64(st.Dev), st.Ino}, nil
}

func (s *space) close() {
	if s != nil {
		s.file.Close()
	}
}

// name is the namespace's among all that there have been since boot: a cookie of a socket in it (SO_NETNS_COOKIE, Linux 5.14). Before that it is its inode, which may be used again when it is gone.
func (s *space) name() string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		if cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
			return "net-" + strconv.FormatUint(cookie, 10)
		}
	}
	return "inode-" + strconv.FormatUint(s.ino, 10)
}

// inside calls f on a thread in the namespace: this one, or one that is thrown away afterwards.
func (s *space) inside(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err == nil && uint64(st.Dev) == s.dev && st.Ino == s.ino {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- failed(os.NewSyscallError("setns", err), "enter the network namespace")
			return
		}
		done <- f()
	}()
	return <-done
}
