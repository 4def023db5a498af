//go:build linux

package launch

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/initprog"
	"github.com/caisson-dev/caisson/plan"
)

// descriptors makes what the launcher itself needs open in the child. None of them may have a number that the command's
// own descriptors will take.
func (s *start) descriptors(p *program) (err error) {
	s.files = append([]*os.File(nil), s.cmd.Files...)
	if s.helped() && s.reportRead == nil {
		if err := s.openInit(); err != nil {
			return err
		}
	}
	if s.helped() {
		s.files = append(s.files, s.reportWrite)
	}
	if err := s.run.Raise(len(s.files)); err != nil {
		return err
	}
	for i, f := range s.files {
		if f == nil || f.Fd() >= uintptr(len(s.files)) || f.Fd() == uintptr(i) {
			continue
		}
		if s.files[i], err = s.duplicate(f); err != nil {
			return err
		}
	}
	if s.plan.Dies() && s.host == nil {
		fd, err := unix.PidfdOpen(unix.Gettid(), pidfdThread) // this thread stays, see startKept
		if err != nil {
			fd, err = unix.PidfdOpen(os.Getpid(), 0)
		}
		if s.host, err = s.own(fd, err, "pidfd"); err != nil {
			return err
		}
	}
	if s.served() {
		if p.socket, err = s.socket(); err != nil {
			return err
		}
	}
	if s.sends() {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if p.sent, err = s.own(fd, err, "eventfd"); err != nil {
			return err
		}
	}
	if !p.way.vfork {
		p.report, err = s.pipe()
	}
	return err
}

const pidfdThread = unix.O_EXCL // PIDFD_THREAD, Linux 6.9

func (s *start) openInit() (err error) {
	if s.init, err = initprog.Open(); err != nil {
		return err
	}
	s.extra = append(s.extra, s.init)
	if s.init.Fd() <= uintptr(len(s.files)) {
		if s.init, err = s.duplicate(s.init); err != nil {
			return err
		}
	}
	ends, err := s.pipe()
	s.reportRead, s.reportWrite = ends[0], ends[1]
	return err
}

// own takes a new descriptor and gives it a number above those of the command's: it is closed when the start is over.
func (s *start) own(fd int, err error, name string) (*os.File, error) {
	if err != nil {
		return nil, os.NewSyscallError(name, err)
	}
	if fd <= len(s.files) {
		low := fd
		fd, err = unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, len(s.files)+1)
		unix.Close(low) // a second copy would hide the end of a pipe
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
	}
	f := os.NewFile(uintptr(fd), name)
	s.extra = append(s.extra, f)
	return f, nil
}

func (s *start) duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, len(s.files)+1)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	d := os.NewFile(uintptr(fd), f.Name())
	s.extra = append(s.extra, d)
	return d, nil
}

func (s *start) pipe() ([2]*os.File, error) {
	var fds [2]int
	err := unix.Pipe2(fds[:], unix.O_CLOEXEC)
	return s.pair(fds, err)
}

func (s *start) socket() ([2]*os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	return s.pair(fds, err)
}

func (s *start) pair(fds [2]int, err error) (ends [2]*os.File, _ error) {
	if err != nil {
		return ends, os.NewSyscallError("pipe", err)
	}
	var e error
	ends[0], err = s.own(fds[0], nil, "pipe")
	ends[1], e = s.own(fds[1], nil, "pipe")
	return ends, errors.Join(err, e)
}

// inherited are the descriptors that the child keeps at first.
func (s *start) inherited(p *program) []uintptr {
	fds := s.run.Descriptors()
	for _, f := range append([]*os.File{s.init, s.host, p.socket[1], p.sent, p.report[1]}, s.files...) {
		if f != nil {
			fds = append(fds, f.Fd())
		}
	}
	return fds
}

// needed are the descriptors that the child keeps from step i on.
func (s *start) needed(p *program, i int) (fds []uintptr) {
	for n := range s.files {
		fds = append(fds, uintptr(n))
	}
	kept := []*os.File{s.init, s.host, p.report[1]}
	if s.plan.Takes() {
		kept = append(kept, p.socket[1], p.sent)
	}
	for _, f := range kept {
		if f != nil {
			fds = append(fds, f.Fd())
		}
	}
	for _, st := range s.steps[i:] {
		if st.Kind == plan.StepCall {
			fds = append(fds, st.Op.Descriptors(s.run)...)
		}
	}
	return fds
}
