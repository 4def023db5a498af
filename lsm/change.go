//go:build linux

package lsm

import (
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// change is a label that the command gets at execve(2).
type change struct {
	module  string
	ask     string // the file of /proc/PID/attr that takes the label for the next execve
	current string // the one that has the label
	request string // what is written
	want    string
	same    func(have, want string) bool
	hints   map[syscall.Errno]string
	wait    time.Duration // for tests
}

// labelSize has room for a context of SELinux with all its categories, and for a stack of profiles.
const labelSize = 4096

// record has the child ask for the label, and the parent look whether it got it. The files are those of the caller's own /proc, which
// the child reaches by a descriptor: whatever the root file system of the sandbox has at /proc, it is not asked.
//
// A newline at the end of what is written would make SELinux take a part of it, and the rest would clear the label; so there is
// one write, and the child reads back what the kernel has understood.
func (c change) record(p *plan.Plan, h host) {
	proc := p.Open(`"/proc" as proc`, func(*plan.Run) (*os.File, error) { return h.openProc() })
	file, got := p.Slot(), p.Answer(labelSize)
	write := plan.Call("write", unix.SYS_WRITE, plan.Saved(file), plan.Str(c.request), plan.Int(len(c.request)))
	for e, hint := range c.hints {
		write = write.Hint(e, hint)
	}
	p.Child(plan.Labels,
		openAttr(proc, "self/"+c.ask).Save(file), // its only thread
		write,
		plan.Call("pread64", unix.SYS_PREAD64, plan.Saved(file), plan.Into(got), plan.Int(labelSize-1), plan.Int(0), plan.Int(0)),
		plan.Call("close", unix.SYS_CLOSE, plan.Saved(file)),
		closeProc(proc))
	p.After(plan.Action{Name: "look for the label " + strconv.Quote(c.want), Each: true, Do: func(r *plan.Run) error {
		r.Set(weakness(c.module), c.weak(h, text(r.Answer(got))))
		return c.verify(r.Answer(got), r.File(proc), r.PID)
	}})
	p.Observe(func(r *plan.Run, result *plan.Result) {
		note, _ := r.Value(weakness(c.module)).(string)
		detail(result, note)
	})
}

// weakness is where a start keeps what its label does not enforce, by the module.
type weakness string

// weak says what a label does not enforce that the command has all the same, or "".
func (c change) weak(h host, understood string) string {
	switch mode := parseLabel(c.module, understood).Mode; {
	case c.module == "selinux" && h.mode(c.module) == Complaining:
		return "SELinux is permissive: it logs and denies nothing"
	case mode == "complain":
		return "AppArmor only logs what the profile " + printable(c.want) + " does not allow"
	case mode == "unconfined":
		return "AppArmor's profile " + printable(c.want) + " confines nothing"
	case mode == "mixed":
		return "not all of AppArmor's profiles " + printable(c.want) + " are enforced"
	}
	return ""
}

// detail adds to what the result says.
func detail(r *plan.Result, text string) {
	if r.Detail != "" && text != "" {
		r.Detail += "; "
	}
	r.Detail += text
}

// closeProc is for execve: a path of a hostile root that leads through /proc/self/fd finds nothing of the host's.
func closeProc(proc plan.File) plan.Op { return plan.Call("close", unix.SYS_CLOSE, plan.FD(proc)) }

func openAttr(proc plan.File, name string) plan.Op {
	return plan.Call("openat2", unix.SYS_OPENAT2, plan.FD(proc), plan.Str(name),
		plan.Bytes("{O_RDWR|O_CLOEXEC, RESOLVE_BENEATH|RESOLVE_NO_MAGICLINKS|RESOLVE_NO_XDEV}", openHow(unix.O_RDWR|unix.O_CLOEXEC, beneath)), plan.Int(howSize)).
		Hint(syscall.ENOENT, "the kernel lacks the module")
}

// verify compares what the kernel had understood before execve, and waits for the label to come: the parent goes on as soon as the child
// has left its memory, somewhat before execve gives it the new credentials. By the time we look, the command may have gone on to another label,
// if the policy lets it; that it has the caller's own is no such case.
func (c change) verify(understood []byte, proc *os.File, pid int) error {
	if have := text(understood); !c.same(have, c.want) {
		return &LabelError{c.module, c.want, have}
	}
	end := time.Now().Add(c.patience())
	for tries := 0; ; tries++ {
		if tries > 20 { // to sleep takes longer than execve has most often left
			time.Sleep(50 * time.Microsecond)
		}
		current, err := readLabel(proc, strconv.Itoa(pid)+"/"+c.current)
		if err != nil || c.same(current, c.want) {
			return err
		}
		own, err := readLabel(proc, "thread-self/"+c.current)
		switch {
		case err != nil:
			return err
		case current != own:
			return nil
		case time.Now().After(end):
			return &LabelError{c.module, c.want, current}
		}
	}
}

// patience is how long execve may take from where it lets us go on; a few microseconds, but for a machine that is overloaded.
func (c change) patience() time.Duration {
	if c.wait > 0 {
		return c.wait
	}
	return 5 * time.Second
}

// need finds the directory of the attribute files of a module, which must be enabled. Where the kernel does not say what is
// enabled, the child will find out.
func (h host) need(module, otherwise string) (string, error) {
	names, err := h.names()
	if err != nil {
		return otherwise, nil
	}
	modules := make(Modules, len(names)) // without their modes, which nobody needs here
	for i, name := range names {
		modules[i].Name = name
	}
	if !modules.Has(module) {
		return "", unsupported("use "+module, "the kernel does not have it enabled (lsm= of its command line)")
	}
	if dir := attribute(modules, module); dir != "" {
		return dir, nil
	}
	return "", unsupported("use "+module, "another module answers for its files in /proc/PID/attr")
}
