//go:build linux

package launch

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/dumpable"
	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// taken gives the descriptor of step i to the part that asked for it; false: there is none, or an error.
func (v *server) taken(p *program, i int, do func(*plan.Run, *os.File) error) bool {
	if v.s.steps[i].Phase < plan.Seccomp {
		return v.receive(p, i, do)
	}
	return v.take(p, i, do)
}

// message is what the child has said and nobody has heard yet.
type message struct {
	step int // which step's descriptor this is, or offerStep
	file *os.File
	err  error
}

// hear waits for the child's next word; false: the child has ended. Steps may have been skipped, so the word may be about a later one.
func (v *server) hear(p *program) bool {
	if v.word != nil {
		return true
	}
	step, f, err := received(int(p.socket[0].Fd()))
	if step < 0 && f == nil && err == nil {
		return false
	}
	v.word = &message{step, f, err}
	return true
}

// sends reports whether the child sends descriptors.
func (s *start) sends() bool {
	return slices.ContainsFunc(s.steps, func(st plan.Step) bool { return st.Taken() != nil && st.Phase < plan.Seccomp })
}

// lowerSend makes the call and sends the descriptor that it gives. A message holds the number of a descriptor, and the child cannot write
// what is only known when it runs; so the descriptor is given a number that is known. Then the child sleeps until the answer comes.
func (s *start) lowerSend(p *program, i int, c sys.Call) {
	if c.Save == 0 {
		c.Save = uint16(len(p.slots))
	}
	p.emit(i, c)
	p.emit(i, sys.Call{Trap: unix.SYS_DUP3, Load: [6]uint16{c.Save}, Args: [6]uintptr{0, p.sent.Fd(), unix.O_CLOEXEC}})
	p.call(i, unix.SYS_SENDMSG, p.socket[1].Fd(), p.message(i, int(p.sent.Fd())), unix.MSG_NOSIGNAL)
	if a := s.steps[i].Op.Answered(); a > 0 {
		at := &p.slots[a-1]
		p.special(i, sys.Receive, unix.SYS_READ, p.socket[1].Fd(), uintptr(unsafe.Pointer(at)), unsafe.Sizeof(*at))
		return
	}
	p.special(i, sys.Receive, unix.SYS_READ, p.socket[1].Fd(), p.mem.Zero(1), 1)
}

// message is a struct msghdr with the number of a step and a descriptor, sendmsg(2).
func (p *program) message(step, fd int) uintptr {
	rights := unix.UnixRights(fd)
	var iov unix.Iovec
	var m unix.Msghdr
	number := binary.NativeEndian.AppendUint32(nil, uint32(step))
	iov.SetLen(len(number))
	m.SetControllen(len(rights))
	m.SetIovlen(1)
	at, b := p.mem.Copy(unsafe.Slice((*byte)(unsafe.Pointer(&iov)), int(unsafe.Sizeof(iov))))
	putPointer(b, int(unsafe.Offsetof(iov.Base)), p.mem.Bytes(number))
	header, b := p.mem.Copy(unsafe.Slice((*byte)(unsafe.Pointer(&m)), int(unsafe.Sizeof(m))))
	putPointer(b, int(unsafe.Offsetof(m.Iov)), at)
	putPointer(b, int(unsafe.Offsetof(m.Control)), p.mem.Bytes(rights))
	return header
}

func putPointer(b []byte, offset int, at uintptr) {
	*(*uintptr)(unsafe.Pointer(&b[offset])) = at
}

// receive takes the descriptor that the child sends, and lets the child go on when the part has looked at it.
func (v *server) receive(p *program, i int, do func(*plan.Run, *os.File) error) bool {
	if !v.hear(p) {
		return false
	}
	if v.word.err == nil && v.word.step != i {
		return true // the child has passed over this one
	}
	f, err := v.word.file, v.word.err
	v.word = nil
	v.s.run.PID = int(atomic.LoadInt32(&p.last().tid))
	if err == nil {
		err = do(v.s.run, f)
	}
	if err != nil {
		v.err = v.s.failed(i, err)
		unix.Kill(v.s.run.PID, unix.SIGKILL)
		return false
	}
	answer := make([]byte, 1)
	if v.s.steps[i].Op.Answered() > 0 {
		n := v.s.steps[i].AnswerOf(v.s.run)
		answer = slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&n)), unsafe.Sizeof(n)))
	}
	ignoringEINTR(func() (int, error) { return unix.Write(int(p.socket[0].Fd()), answer) })
	return true
}

// offerStep stands for the byte that announces an offer.
const offerStep = 1 << 30

// received reads a message: the number of a step with a descriptor, or the byte that announces an offer. At the end of the stream the step is -1.
func received(socket int) (step int, _ *os.File, _ error) {
	b, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	var controls int
	n, err := ignoringEINTR(func() (n int, err error) {
		n, controls, _, _, err = unix.Recvmsg(socket, b, oob, unix.MSG_CMSG_CLOEXEC)
		return n, err
	})
	if err == unix.ECONNRESET { // it has ended without having read all that we said
		return -1, nil, nil
	}
	if n == 0 || err != nil {
		return -1, nil, err
	}
	if n == 1 && controls == 0 {
		return offerStep, nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob[:controls])
	if err != nil || len(messages) != 1 || n != len(b) {
		return -1, nil, errors.Join(syscall.EPROTO, err) // too many are open here: the kernel has dropped it
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, nil, errors.Join(syscall.EPROTO, err)
	}
	return int(binary.NativeEndian.Uint32(b)), os.NewFile(uintptr(fds[0]), "taken"), nil
}

// take gives the descriptor that the child offers in step i to the part that asked for it; false: there is none, or an error.
func (v *server) take(p *program, i int, do func(*plan.Run, *os.File) error) bool {
	if !v.hear(p) || v.word.step != offerStep {
		return false
	}
	v.word = nil
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
	if errors.Is(err, unix.EPERM) && s.entered && s.plan.Cloned()&unix.CLONE_NEWUSER != 0 && s.hidden != atOnce {
		// Nobody else is in the child's user namespace yet, so nobody else may trace it.
		dumpable.Alone(s.ctx, func() { own, err = unix.PidfdGetfd(pidfd, fd, 0) })
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_getfd", err)
	}
	unix.CloseOnExec(own)
	return os.NewFile(uintptr(own), "taken"), nil
}
