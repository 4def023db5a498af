//go:build linux

package lsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Label is what a module calls a process by.
type Label struct {
	Module string // "apparmor", "selinux" or "smack"
	Name   string // the profile, with //& between those that are stacked; the context
	Mode   string // of an AppArmor profile: "enforce", "complain", "kill", "unconfined", "mixed"; or ""
}

// String gives the label as the kernel prints it.
func (l Label) String() string {
	if l.Mode != "" {
		return l.Name + " (" + l.Mode + ")"
	}
	return l.Name
}

// Labels gives the labels of a process under each enabled module that labels processes, in the modules' order; none where no module does. A
// process that does not exist is ESRCH or fs.ErrNotExist. See [LabelsOf] for a process that may end meanwhile.
func Labels(pid int) ([]Label, error) { return here().labels(pid) }

// LabelsOf is Labels for a process that is held by a pidfd (pidfd_open(2)): they are never those of another one that has been given the same
// number. A process that has ended is ESRCH.
func LabelsOf(pidfd *os.File) ([]Label, error) {
	pid, err := pidOf(pidfd)
	if err != nil {
		return nil, err
	}
	labels, err := Labels(pid)
	if over := ended(pidfd); over != nil {
		return nil, over
	}
	return labels, err
}

// SelfLabels gives the labels of the calling thread: by lsm_get_self_attr(2), Linux 6.8, which needs no /proc, or else from /proc.
func SelfLabels() ([]Label, error) { return here().selfLabels() }

func (h host) selfLabels() ([]Label, error) {
	b, err := h.self()
	if errors.Is(err, errors.ErrUnsupported) {
		return h.labelsIn("thread-self")
	}
	if err != nil {
		return nil, fail(err, "lsm_get_self_attr")
	}
	return parseContexts(b)
}

func (h host) labels(pid int) ([]Label, error) {
	if pid <= 0 {
		return nil, invalid("read the labels", fmt.Sprintf("%d is no process", pid))
	}
	return h.labelsIn(strconv.Itoa(pid))
}

func (h host) labelsIn(process string) (labels []Label, err error) {
	modules, err := h.active()
	if err != nil {
		return nil, err
	}
	proc, err := h.openProc()
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	for _, m := range modules {
		if file := attribute(modules, m.Name); file != "" {
			value, err := readIn(proc, process+"/"+file+"current")
			if err != nil {
				return nil, err
			}
			labels = append(labels, parseLabel(m.Name, value))
		}
	}
	return labels, nil
}

// attribute gives the directory of a module's attribute files in /proc/PID, or "". Those in attr itself are of the first module that
// labels; SELinux has no others.
func attribute(m Modules, module string) string {
	switch module {
	case "apparmor", "smack":
		return "attr/" + module + "/"
	case "selinux":
		for _, other := range []string{"apparmor", "smack"} {
			if i := m.index(other); i >= 0 && i < m.index(module) {
				return ""
			}
		}
		return "attr/"
	}
	return ""
}

// parseLabel takes the kernel's text apart: that of AppArmor ends with the mode.
func parseLabel(module, value string) Label {
	name := text([]byte(value))
	if module != "apparmor" || !strings.HasSuffix(name, ")") {
		return Label{Module: module, Name: name}
	}
	i := strings.LastIndex(name, " (")
	if i < 0 {
		return Label{Module: module, Name: name}
	}
	return Label{module, name[:i], name[i+2 : len(name)-1]}
}

// parseContexts reads what lsm_get_self_attr gives: struct lsm_ctx, one after the other.
func parseContexts(b []byte) (labels []Label, err error) {
	const head = 32 // id, flags, length of all, length of the text
	for len(b) > 0 {
		if len(b) < head {
			return nil, fail(syscall.EBADMSG, "lsm_get_self_attr")
		}
		id, all, n := binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint64(b[24:])
		if all < head || all > uint64(len(b)) || n > all-head {
			return nil, fail(syscall.EBADMSG, "lsm_get_self_attr")
		}
		labels = append(labels, parseLabel(moduleName(id), string(b[head:head+n])))
		b = b[all:]
	}
	return labels, nil
}

func selfAttr() ([]byte, error) {
	const current = 100 // LSM_ATTR_CURRENT
	b := make([]byte, 16<<10)
	size := uint32(len(b))
	_, _, e := unix.Syscall6(unix.SYS_LSM_GET_SELF_ATTR, current, uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0, 0, 0)
	if e != 0 {
		return nil, e
	}
	return b[:size], nil
}

// pidOf gives the number of a pidfd's process in our pid namespace.
func pidOf(pidfd *os.File) (int, error) {
	info, err := here().read("/proc", procMagic, "thread-self/fdinfo/"+strconv.Itoa(int(pidfd.Fd())))
	if err != nil {
		return 0, err
	}
	return parsePid(info)
}

func parsePid(info string) (int, error) {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(value))
			switch {
			case err != nil:
				return 0, fail(syscall.EBADMSG, "read the pidfd")
			case pid < 0:
				return 0, fail(syscall.ESRCH, "read the pidfd")
			case pid == 0:
				return 0, unsupported("read the pidfd", "the process is in another pid namespace")
			}
			return pid, nil
		}
	}
	return 0, invalid("read the pidfd", "the descriptor is no pidfd")
}

// ended reports ESRCH when the process has ended: then its number may be another one's.
func ended(pidfd *os.File) error {
	poll := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	n, err := retry(func() (int, error) { return unix.Poll(poll, 0) })
	if err == nil && n > 0 {
		err = syscall.ESRCH
	}
	return fail(err, "look at the pidfd")
}
