//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/plan"
)

// trial is what one kernel says of labels.
type trial struct {
	Kernel string
	Module string        // "apparmor", "selinux", or "" where there is none
	Start  time.Duration // of a command without a label
	Calls  time.Duration // more, with the calls of a label on a file that is none
	Label  time.Duration // more, with a label; 0 without a module
	Loop   time.Duration // to open, write, read back and close a file of /proc
	Own    time.Duration // from the start to the end of a command, more with a label than with the same calls on another file; 0 without a module
	Spread time.Duration // the faster half of the measurements behind Own are not further than this from each other
}

// tryLabels measures on the running kernel. With only, just what can be compared with another machine.
func tryLabels(rounds int, only bool) (t trial, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return t, err
	}
	t.Kernel = unix.ByteSliceToString(u.Release[:])
	label, undo, err := t.label()
	if err != nil {
		return t, err
	}
	defer undo()
	if t.Loop, err = loop(rounds * 10); err != nil {
		return t, err
	}
	if label != nil {
		if t.Own, t.Spread, err = own(max(rounds/batch, 4), asks[t.Module]); err != nil || only {
			return t, err
		}
	}
	all := []*row{{sandbox: caisson.New()}, {sandbox: caisson.New(plan.Func(likeLabel))}}
	if label != nil {
		all = append(all, &row{sandbox: caisson.New(label)})
	}
	if err := inTurns(all, rounds); err != nil {
		return t, err
	}
	t.Start = all[0].median()
	t.Calls = all[1].median() - t.Start
	if label != nil {
		t.Label = all[2].median() - t.Start
	}
	return t, nil
}

// batch is how many commands are timed at once: the clock of an emulated machine may go in steps of 4 ms.
const batch = 50

// own compares commands that ask for a label with such that write elsewhere, from their start to their end, in batches side by side: the lower quartiles of both, which
// what else the machine does touches least.
func own(batches int, a ask) (more, spread time.Duration, err error) {
	both := [2]caisson.Sandbox{caisson.New(comm), caisson.New(a)}
	var times [2][]time.Duration
	for i := range batches + 1 {
		for k, s := range both {
			t, err := cycles(s)
			if err != nil {
				return 0, 0, err
			}
			if i > 0 { // the first ones warm up
				times[k] = append(times[k], t)
			}
		}
	}
	for k := range times {
		slices.Sort(times[k])
		spread = max(spread, times[k][batches/2]-times[k][0])
	}
	return times[1][batches/4] - times[0][batches/4], spread, nil
}

// cycles runs a batch of commands and gives the time of one.
func cycles(s caisson.Sandbox) (time.Duration, error) {
	begin := time.Now()
	for range batch {
		if err := s.Command("/bin/true").Run(); err != nil {
			return 0, err
		}
	}
	return time.Since(begin) / batch, nil
}

const profileName = "caisson-bench"

var context0 = lsm.Context{User: "system_u", Role: "system_r", Type: "container_t", Level: "s0:c1,c2"}

// ask is a part that writes to a file of the child's in /proc and reads it back, as package lsm asks for a label; nobody looks whether it came.
type ask struct{ file, text string }

var (
	comm = ask{"comm", "label"}
	asks = map[string]ask{"apparmor": {"attr/apparmor/exec", "exec " + profileName}, "selinux": {"attr/exec", context0.String()}}
)

// Apply implements plan.Primitive.
func (a ask) Apply(p *plan.Plan) error {
	a.record(p)
	return nil
}

const answerSize = 4096

func (a ask) record(p *plan.Plan) (proc plan.File, got plan.Answer) {
	proc = p.Open("/proc", openProc)
	file := p.Slot()
	got = p.Answer(answerSize)
	how := unix.OpenHow{Flags: unix.O_RDWR | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	const howSize = int(unsafe.Sizeof(how))
	b := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&how)), howSize)...)
	p.Child(plan.Labels,
		plan.Call("openat2", unix.SYS_OPENAT2, plan.FD(proc), plan.Str("self/"+a.file), plan.Bytes("how", b), plan.Int(howSize)).Save(file),
		plan.Call("write", unix.SYS_WRITE, plan.Saved(file), plan.Str(a.text), plan.Int(len(a.text))),
		plan.Call("pread64", unix.SYS_PREAD64, plan.Saved(file), plan.Into(got), plan.Int(answerSize-1), plan.Int(0), plan.Int(0)),
		plan.Call("close", unix.SYS_CLOSE, plan.Saved(file)),
		plan.Call("close", unix.SYS_CLOSE, plan.FD(proc)))
	return proc, got
}

// label gives the part of the module that the kernel has, and what takes back what that needs.
func (t *trial) label() (plan.Primitive, func(), error) {
	m, err := lsm.Active()
	switch {
	case err != nil || os.Geteuid() != 0:
		return nil, func() {}, nil
	case m.Has("selinux") && lsm.CheckContext(context0) == nil:
		t.Module = "selinux"
		return lsm.SELinux{Process: context0}, func() {}, nil
	case m.Has("apparmor"):
		p := lsm.Profile{Name: profileName, Files: []lsm.FileRule{{}}, Signals: []lsm.SignalRule{{}}}
		if err := p.Load(context.Background()); errors.Is(err, errors.ErrUnsupported) {
			return nil, func() {}, nil
		} else if err != nil {
			return nil, nil, err
		}
		t.Module = "apparmor"
		return lsm.AppArmor(profileName), func() { lsm.RemoveProfile(profileName) }, nil
	}
	return nil, func() {}, nil
}

// likeLabel makes the calls of package lsm for a label, on the name of the command in /proc, which every kernel has: the modules are listed, the child opens a file by the
// caller's /proc, writes, reads back and closes, and the parent asks for the module's mode and waits until what execve changes has changed.
func likeLabel(p *plan.Plan) error {
	if _, err := lsm.Active(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	proc, got := comm.record(p)
	p.After(plan.Action{Name: "wait for the name", Do: func(r *plan.Run) error {
		if !strings.HasPrefix(string(r.Answer(got)), comm.text) {
			return errors.New("the name was not read back")
		}
		if _, err := os.ReadFile("/sys/kernel/uevent_seqnum"); err != nil {
			return err
		}
		return waitFor(r.File(proc), r.PID, "true\n")
	}})
	return nil
}

func openProc(*plan.Run) (*os.File, error) {
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return nil, err
	}
	_, err = unix.Readlinkat(fd, "self", make([]byte, 32))
	return os.NewFile(uintptr(fd), "/proc"), err
}

// waitFor looks as package lsm does: at once, and from some time on with pauses.
func waitFor(proc *os.File, pid int, want string) error {
	for tries := range 1000 {
		if tries > 20 {
			time.Sleep(50 * time.Microsecond)
		}
		have, err := readAt(proc, strconv.Itoa(pid)+"/comm")
		if err != nil || have == want {
			return err
		}
		if _, err := readAt(proc, "thread-self/comm"); err != nil {
			return err
		}
	}
	return errors.New("execve has not given the name")
}

func readAt(proc *os.File, name string) (string, error) {
	fd, err := unix.Openat(int(proc.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	b := make([]byte, 512)
	n, err := unix.Read(fd, b)
	return string(b[:max(n, 0)]), err
}

// loop gives the mean time to open a file of /proc, write to it, read it back and close it.
func loop(rounds int) (time.Duration, error) {
	const file = "/proc/thread-self/comm"
	b := make([]byte, answerSize)
	begin := time.Now()
	for range rounds {
		fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		_, written := unix.Write(fd, []byte(comm.text))
		_, read := unix.Pread(fd, b, 0)
		unix.Close(fd)
		if err := errors.Join(written, read); err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
	}
	return time.Since(begin) / time.Duration(rounds), nil
}
