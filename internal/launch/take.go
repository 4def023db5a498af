//go:build linux

package launch

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/dumpable"
	"github.com/caisson-dev/caisson/plan"
)

// take gives the descriptor that the child offers in step i to the part that asked for it; false: there is none, or an error.
func (v *server) take(p *program, i int, do func(*plan.Run, *os.File) error) bool {
	if !v.heard(p) {
		return false
	}
	c := p.last()
	v.s.run.PID = int(atomic.LoadInt32(&c.tid))
	offered, ok := v.offered(c)
	if !ok {
		return false
	}
	f, err := v.s.copied(c, int(offered-1))
	if err == nil {
		err = do(v.s.run, f)
	}
	if err != nil {
		v.err = v.s.failed(i, err)
		unix.Kill(v.s.run.PID, unix.SIGKILL)
		return false
	}
	atomic.StoreInt32(&c.taken, offered)
	return true
}

// offered waits for the descriptor's number. The child has told us that it comes next.
func (v *server) offered(c *child) (int32, bool) {
	for !v.over.Load() && atomic.LoadInt32(&c.failed) == 0 {
		if n := atomic.LoadInt32(&c.offer); n != atomic.LoadInt32(&c.taken) {
			return n, true
		}
		time.Sleep(10 * time.Microsecond)
	}
	return 0, false
}

// copied is a copy of the child's descriptor. The kernel gives it to who may trace the child (pidfd_getfd(2)): to an ordinary user
// only while the memory, which is ours too, is dumpable.
func (s *start) copied(c *child, fd int) (*os.File, error) {
	pidfd, err := unix.PidfdOpen(s.run.PID, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	own, err := unix.PidfdGetfd(pidfd, fd, 0)
	if errors.Is(err, unix.EPERM) && s.entered && s.plan.Cloned()&unix.CLONE_NEWUSER != 0 && !s.joins() {
		// Nobody else is in the child's user namespace yet, so nobody else may trace it.
		dumpable.Alone(s.ctx, func() { own, err = unix.PidfdGetfd(pidfd, fd, 0) })
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_getfd", err)
	}
	unix.CloseOnExec(own)
	return os.NewFile(uintptr(own), "taken"), nil
}
