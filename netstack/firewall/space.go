//go:build linux

package firewall

import (
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// space is a network namespace.
type space struct {
	file     *os.File
	dev, ino uint64

	mu     sync.Mutex
	closed bool
	work   chan func()   // for a thread in the namespace, once one has been needed
	gone   chan struct{} // closed when that does nothing more
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
	return &space{file: f, dev: uint64(st.Dev), ino: st.Ino}, nil
}

func (s *space) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.work != nil && !s.closed {
		close(s.work)
		<-s.gone
	}
	s.closed = true
	s.file.Close()
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

// inside calls f on a thread in the namespace: this one, or one that is kept there until the space is closed. To make a thread for each call would take longer than most calls do.
func (s *space) inside(f func() error) error {
	runtime.LockOSThread()
	if s.isHere() {
		defer runtime.UnlockOSThread()
		return f()
	}
	runtime.UnlockOSThread() // who waits need not keep a thread
	return s.elsewhere(f)
}

// isHere reports whether the calling thread is in the namespace.
func (s *space) isHere() bool {
	var st unix.Stat_t
	err := unix.Stat("/proc/thread-self/ns/net", &st)
	return err == nil && uint64(st.Dev) == s.dev && st.Ino == s.ino
}

// elsewhere calls f on the thread that is kept.
func (s *space) elsewhere(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return &Error{Op: "enter the network namespace", Err: os.ErrClosed}
	}
	if s.work == nil {
		if err := s.hire(); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	s.work <- func() { done <- f() }
	return <-done
}

// hire makes a thread in the namespace that does what it is sent, until the channel is closed.
func (s *space) hire() error {
	work, gone, entered := make(chan func()), make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(gone)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET)
		if entered <- os.NewSyscallError("setns", err); err != nil {
			return
		}
		for f := range work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		return failed(err, "enter the network namespace")
	}
	s.work, s.gone = work, gone
	return nil
}
