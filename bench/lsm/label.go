//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/plan"
)

// trial is what the running kernel says of labels.
type trial struct {
	module string        // "apparmor", "selinux", or "" where there is none
	start  time.Duration // of a command without a label
	calls  time.Duration // more, with the calls of a label on a file that is none
	label  time.Duration // more, with a label; 0 without a module
}

func tryLabels(rounds int) (t trial, err error) {
	part, module, undo, err := label()
	if err != nil {
		return t, err
	}
	defer undo()
	all := []*row{{sandbox: caisson.New()}, {sandbox: caisson.New(plan.Func(likeLabel))}}
	if part != nil {
		all = append(all, &row{sandbox: caisson.New(part)})
	}
	if err := inTurns(all, rounds); err != nil {
		return t, err
	}
	t = trial{module: module, start: all[0].quartile(), calls: all[1].quartile() - all[0].quartile()}
	if part != nil {
		t.label = all[2].quartile() - t.start
	}
	return t, nil
}

// loops are means of many rounds in one process: to write to a file of /proc and read it back, and to execute after that what cannot be executed.
type loops struct {
	Module  string        // or "" where there is none
	Calls   time.Duration // to open, write, read back and close a file that is no label
	Without time.Duration // the same, and an execve of a file of no known format
	With    time.Duration // the same with a label, which execve finds and decides on before it looks at the format; 0 without a module
}

const chunks = 20

// tryLoops times chunks of each in turn, and takes the lower quartiles: what else the machine does touches these least.
func tryLoops(rounds int) (l loops, err error) {
	dir, err := os.MkdirTemp("", "lsm")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(dir)
	none := dir + "/none"
	if err := os.WriteFile(none, []byte("no program\n"), 0o755); err != nil {
		return l, err
	}
	_, module, undo, err := label()
	if err != nil {
		return l, err
	}
	defer undo()
	runtime.LockOSThread() // the label is asked for by a thread
	defer runtime.UnlockOSThread()
	all := []*row{{}, {}, {}}
	do := []func() error{comm.loop, func() error { return comm.execute(none) }, func() error { return asks[module].execute(none) }}
	if module == "" {
		all, do = all[:2], do[:2]
	}
	for range chunks {
		for i, f := range do {
			begin := time.Now()
			for range rounds {
				if err := f(); err != nil {
					return l, err
				}
			}
			all[i].times = append(all[i].times, time.Since(begin)/time.Duration(rounds))
		}
	}
	l = loops{Module: module, Calls: all[0].quartile(), Without: all[1].quartile()}
	if module != "" {
		l.With = all[2].quartile()
	}
	return l, nil
}

// loop writes to the file, reads it back and closes it.
func (a ask) loop() error {
	file := "/proc/thread-self/" + a.file
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(a.text)); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = unix.Pread(fd, make([]byte, 256), 0)
	return err
}

func (a ask) execute(none string) error {
	if err := a.loop(); err != nil {
		return err
	}
	if err := unix.Exec(none, []string{none}, nil); err != unix.ENOEXEC {
		return fmt.Errorf("execve %s: %w", none, err)
	}
	return nil
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

// label gives the part of the module that the kernel has, and what takes back what that needs; nil where there is none.
func label() (part plan.Primitive, module string, undo func(), err error) {
	undo = func() {}
	m, err := lsm.Active()
	switch {
	case err != nil || os.Geteuid() != 0:
		return nil, "", undo, nil
	case m.Has("selinux") && lsm.CheckContext(context0) == nil:
		return lsm.SELinux{Process: context0}, "selinux", undo, nil
	case m.Has("apparmor"):
		p := lsm.Profile{Name: profileName, Files: []lsm.FileRule{{}}, Signals: []lsm.SignalRule{{}}}
		if err := p.Load(context.Background()); err != nil {
			return nil, "", undo, err
		}
		return lsm.AppArmor(profileName), "apparmor", func() { lsm.RemoveProfile(profileName) }, nil
	}
	return nil, "", undo, nil
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
