//go:build linux

// Package nofile knows the limit of open descriptors with which the program was started. The syscall package raises the
// soft limit when it is initialised; os/exec puts the original back in its children, but keeps it to itself.
//
// The variable below is initialised before package syscall: packages whose imports are ready are initialised in the order of
// their import paths (The Go Programming Language Specification, Package initialization), this one imports nothing that needs
// syscall, and "github.com/..." sorts before it. A test starts a program under a lowered limit and would show it if the order
// changed.
package nofile

import (
	"runtime"
	"unsafe"
)

// Limit is struct rlimit64, getrlimit(2).
type Limit struct{ Cur, Max uint64 }

var original = read()

// rawSyscall6 is syscall.RawSyscall6: to import syscall would be to come after it.
//
//go:linkname rawSyscall6 syscall.RawSyscall6
func rawSyscall6(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2, errno uintptr)

func read() (lim Limit) {
	const noFile = 7 // RLIMIT_NOFILE, but on mips
	resource := uintptr(noFile)
	if number := prlimit64(); number != 0 {
		if mips() {
			resource = 5
		}
		rawSyscall6(number, 0, resource, 0, uintptr(unsafe.Pointer(&lim)), 0, 0)
	}
	return lim
}

func mips() bool {
	switch runtime.GOARCH {
	case "mips", "mipsle", "mips64", "mips64le":
		return true
	}
	return false
}

// prlimit64 is the number of the system call.
func prlimit64() uintptr {
	switch runtime.GOARCH {
	case "amd64":
		return 302
	case "386":
		return 340
	case "arm":
		return 369
	case "arm64", "loong64", "riscv64":
		return 261
	case "mips", "mipsle":
		return 4338
	case "mips64", "mips64le":
		return 5297
	case "ppc64", "ppc64le":
		return 325
	case "s390x":
		return 334
	}
	return 0
}

// Original gives the limit that a child should have, and whether it differs from the one it would inherit. A limit that
// the program has set itself is kept, as os/exec does.
func Original() (lim Limit, changed bool) {
	now := read()
	// Package syscall leaves one descriptor out, to see whether somebody else has changed the limit since.
	raised := Limit{original.Max - 1, original.Max}
	if original.Max == 0 || original.Cur >= raised.Cur || now != raised {
		return now, false
	}
	return original, true
}
