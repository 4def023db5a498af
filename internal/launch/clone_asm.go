//go:build linux && (amd64 || arm64)

package launch

import "runtime"

// haveVfork says that a child can share the memory of the host: it needs a stack of its own from its first instruction
// on, hence assembly.
const haveVfork = true

// cloneSyscall makes a clone whose child runs live(child) on the stack that the clone's arguments name.
//
//go:noescape
func cloneSyscall(trap, a1, a2, a3, a4, a5, child uintptr) (r1, errno uintptr)

// rawSyscall is syscall.RawSyscall6 in one small frame: what runs between entersyscall and exitsyscall has 800 bytes of
// stack, also in a build for a debugger.
//
//go:noescape
func rawSyscall(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1, errno uintptr)

// legacyClone gives the arguments of clone(2) in the order of the architecture.
func legacyClone(flags, stack, parentTID, childTID uintptr) [5]uintptr {
	if runtime.GOARCH == "amd64" {
		return [5]uintptr{flags, stack, parentTID, childTID, 0}
	}
	return [5]uintptr{flags, stack, parentTID, 0, childTID}
}
