//go:build linux

package caps

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// State is what a thread may do: its five sets (capabilities(7)), and what decides which it can gain. As a part of a sandbox it sets
// exactly these; see [State.Apply].
type State struct {
	Permitted   Set // what it may make effective
	Effective   Set // what the kernel looks at
	Inheritable Set // what it may gain from files that have it as inheritable, too
	Bounding    Set // what it can ever gain by executing a file
	Ambient     Set // what it keeps when it executes a file, also as another user than root

	NoNewPrivs bool       // no_new_privs; false leaves it alone where a State is set
	Securebits Securebits // 0 leaves them alone where a State is set
}

// Current gives the state of the calling thread. Threads can differ; the goroutine should be locked to its thread
// (runtime.LockOSThread) where they do. It needs no privilege and no /proc. First kernel: 4.3.
func Current() (State, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, err := capget()
	if err != nil {
		return State{}, err
	}
	for c := range upTo(lastCap()).Each() {
		n := uintptr(c.number())
		if prctl(unix.PR_CAPBSET_READ, n, 0) == 1 {
			s.Bounding |= c
		}
		if prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, n) == 1 {
			s.Ambient |= c
		}
	}
	s.NoNewPrivs = prctl(unix.PR_GET_NO_NEW_PRIVS, 0, 0) == 1
	s.Securebits = Securebits(max(0, prctl(unix.PR_GET_SECUREBITS, 0, 0)))
	return s, nil
}

// prctl makes a call of those that cannot fail for a number that the kernel knows; -1 is a failure.
func prctl(option int, a, b uintptr) int {
	n, err := unix.PrctlRetInt(option, a, b, 0, 0)
	if err != nil {
		return -1
	}
	return n
}

// lastCap is the highest capability that the kernel knows: it refuses to read others from the bounding set.
func lastCap() int {
	n := len(names) - 1
	for n > 0 && prctl(unix.PR_CAPBSET_READ, uintptr(n), 0) < 0 {
		n--
	}
	for n < 63 && prctl(unix.PR_CAPBSET_READ, uintptr(n+1), 0) >= 0 {
		n++
	}
	return n
}

// capsets is what capget(2) and capset(2) take in their version 3: the low half of each set, and then the high one.
type capsets [2]unix.CapUserData

func capget() (State, error) {
	var data capsets
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return State{}, &Error{Op: "capget", Err: err}
	}
	return State{
		Permitted:   halves(data[0].Permitted, data[1].Permitted),
		Effective:   halves(data[0].Effective, data[1].Effective),
		Inheritable: halves(data[0].Inheritable, data[1].Inheritable),
	}, nil
}

func halves(low, high uint32) Set { return Set(low) | Set(high)<<32 }

// capsets gives the three sets as capset(2) takes them.
func (s State) capsets() []byte {
	data := capsets{{Effective: uint32(s.Effective), Permitted: uint32(s.Permitted), Inheritable: uint32(s.Inheritable)},
		{Effective: uint32(s.Effective >> 32), Permitted: uint32(s.Permitted >> 32), Inheritable: uint32(s.Inheritable >> 32)}}
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&data)), int(unsafe.Sizeof(data))))
}

// Of gives the state of a process, or of a thread by its id (/proc/PID/status, proc(5)); 0 is the calling thread. The kernel does not
// show the securebits of others: they are [NotShown]. The capabilities are those in the process's own user namespace. It needs no
// privilege, unless /proc is mounted with hidepid. First kernel: 4.10.
func Of(pid int) (State, error) {
	if pid == 0 {
		return Current()
	}
	return ofFile("/proc/" + strconv.Itoa(pid) + "/status")
}

func ofFile(name string) (State, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return State{}, &Error{Op: "read " + name, Err: errnoOf(err)}
	}
	s, err := parseStatus(string(b))
	if err != nil {
		return State{}, &Error{Op: "read " + name, Err: err}
	}
	return s, nil
}

// parseStatus finds the sets in /proc/PID/status. One that is missing is an error: it must not be taken for an empty one.
func parseStatus(text string) (State, error) {
	s := State{Securebits: NotShown}
	var nnp Set
	const digits = 16
	for _, f := range []struct {
		name   string
		set    *Set
		digits int
	}{{"CapInh", &s.Inheritable, digits}, {"CapPrm", &s.Permitted, digits}, {"CapEff", &s.Effective, digits}, {"CapBnd", &s.Bounding, digits},
		{"CapAmb", &s.Ambient, digits}, {"NoNewPrivs", &nnp, 1}} {
		mask, ok := parseMask(statusLine(text, f.name))
		if !ok || len(statusLine(text, f.name)) != f.digits {
			return State{}, &reason{fmt.Sprintf("no line %s with %d digits", f.name, f.digits), unix.EINVAL}
		}
		*f.set = mask
	}
	s.NoNewPrivs = nnp != 0
	return s, nil
}

// statusLine gives what stands behind a name, or "". The name of the process is escaped by the kernel and holds no line break.
func statusLine(text, name string) string {
	_, rest, _ := strings.Cut("\n"+text, "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func headerBytes(h unix.CapUserHeader) []byte {
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&h)), int(unsafe.Sizeof(h))))
}
