//go:build linux && !amd64 && !arm64

package launch

import (
	"runtime"
	"syscall"
	"unsafe"
)

// haveVfork says that a child can share the memory of the host: it needs a stack of its own from its first instruction
// on, hence assembly. Here the child gets a copy.
const haveVfork = false

// cloneSyscall makes a clone with a copy of the memory: the child returns here too.
//
//go:nosplit
//go:norace
//go:nocheckptr
func cloneSyscall(trap, a1, a2, a3, a4, a5, child uintptr) (r1, errno uintptr) {
	r1, errno = rawSyscall(trap, a1, a2, a3, a4, a5, 0)
	if errno == 0 && r1 == 0 {
		begin(child)
	}
	return r1, errno
}

// begin calls live through a variable: a direct call would look like a recursion to the linker, which counts the stack.
//
//go:nosplit
//go:norace
//go:nocheckptr
func begin(c uintptr) {
	f := live
	f(*(**child)(unsafe.Pointer(&c)))
}

//go:nosplit
//go:norace
func rawSyscall(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, errno uintptr) {
	r1, _, e := syscall.RawSyscall6(trap, a1, a2, a3, a4, a5, a6)
	return r1, uintptr(e)
}

// legacyClone gives the arguments of clone(2) in the order of the architecture. A copy needs no childTID.
func legacyClone(flags, stack, parentTID, _ uintptr) [5]uintptr {
	if runtime.GOARCH == "s390x" {
		return [5]uintptr{stack, flags, parentTID}
	}
	return [5]uintptr{flags, stack, parentTID}
}
