//go:build linux

package notify

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kill ends the process of the target with SIGKILL while it waits for the answer.
func (r *Request) kill() error {
	pidfd, err := r.pidfdToKill()
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	err = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	return fail(err, "kill %d", r.PID)
}

// pidfdToKill is a handle of the process, or of the thread, which is as good: SIGKILL ends all of them.
func (r *Request) pidfdToKill() (int, error) {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if err == syscall.EINVAL || err == syscall.ENOENT {
		if leader, e := r.leader(); e == nil {
			fd, err = unix.PidfdOpen(leader, 0)
		}
	}
	if err == syscall.EINVAL || err == syscall.ENOENT { // there is no /proc
		fd, err = unix.PidfdOpen(r.PID, unix.O_EXCL) // PIDFD_THREAD
	}
	if err != nil {
		return 0, r.confirmed(fail(err, "pidfd_open(%d)", r.PID))
	}
	if err := r.Valid(); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// String prints the call as strace does, with all six registers: how many of them the call uses is not known.
func (r *Request) String() string {
	name := r.Name()
	if name == "" {
		name = fmt.Sprintf("call %d", r.NR)
	}
	a := r.Args
	return fmt.Sprintf("%s %s(%#x, %#x, %#x, %#x, %#x, %#x)", r.archText(), name, a[0], a[1], a[2], a[3], a[4], a[5])
}
