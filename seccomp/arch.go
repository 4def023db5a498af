//go:build linux

package seccomp

import (
	"fmt"
	"iter"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Arch is an interface between programs and the kernel: a set of system call numbers. A 64-bit kernel serves several; a filter that
// knows only one of them can be walked around through another. The zero value is none.
type Arch uint8

// The architectures, with the names that their String gives.
const (
	X86_64  Arch = iota + 1 // x86_64
	I386                    // i386: 32-bit programs on x86-64, and int 0x80 from any
	X32                     // x32: x86-64 with pointers of 32 bits; the numbers have bit 0x40000000
	ARM64                   // arm64
	ARM                     // arm: 32-bit programs on arm64
	RISCV64                 // riscv64
	S390X                   // s390x
	PPC64LE                 // ppc64le
	LOONG64                 // loong64
	MIPS64                  // mips64le: the n64 interface of little-endian MIPS

	arches = int(MIPS64)
)

// x32Bit is set in the numbers of x32: the kernel tells it from x86-64 by nothing else (__X32_SYSCALL_BIT).
const x32Bit = 0x40000000

type archInfo struct {
	name   string
	goarch string // "" where Go has none
	oci    string // the name in OCI profiles, after SCMP_ARCH_
	docker string // the name in conditions of Docker's profiles
	audit  uint32 // AUDIT_ARCH_..., what the kernel says to filters
	bits   int    // of a register as the kernel reads it
	big    bool   // the high word comes first
}

var archTable = [arches]archInfo{
	{"x86_64", "amd64", "X86_64", "amd64", unix.AUDIT_ARCH_X86_64, 64, false},
	{"i386", "386", "X86", "x86", unix.AUDIT_ARCH_I386, 32, false},
	{"x32", "", "X32", "x32", unix.AUDIT_ARCH_X86_64, 64, false},
	{"arm64", "arm64", "AARCH64", "arm64", unix.AUDIT_ARCH_AARCH64, 64, false},
	{"arm", "arm", "ARM", "arm", unix.AUDIT_ARCH_ARM, 32, false},
	{"riscv64", "riscv64", "RISCV64", "riscv64", unix.AUDIT_ARCH_RISCV64, 64, false},
	{"s390x", "s390x", "S390X", "s390x", unix.AUDIT_ARCH_S390X, 64, true},
	{"ppc64le", "ppc64le", "PPC64LE", "ppc64le", unix.AUDIT_ARCH_PPC64LE, 64, false},
	{"loong64", "loong64", "LOONGARCH64", "loongarch64", unix.AUDIT_ARCH_LOONGARCH64, 64, false},
	{"mips64le", "mips64le", "MIPSEL64", "mipsel64", unix.AUDIT_ARCH_MIPSEL64, 64, false},
}

func (a Arch) valid() bool { return a >= 1 && int(a) <= arches }

func (a Arch) info() archInfo {
	if !a.valid() {
		return archInfo{name: fmt.Sprintf("arch %d", uint8(a)), bits: 64}
	}
	return archTable[a-1]
}

// String gives the name: x86_64, i386, x32, arm64, arm, riscv64, s390x, ppc64le, loong64, mips64le.
func (a Arch) String() string { return a.info().name }

// Token is what the kernel says to a filter of the architecture: AUDIT_ARCH_... of linux/audit.h. That of X32 is that of X86_64.
func (a Arch) Token() uint32 { return a.info().audit }

// Native is the architecture of this process; 0 where there is no table for it.
func Native() Arch {
	for a := range Arches() {
		if a.info().goarch == runtime.GOARCH {
			return a
		}
	}
	return 0
}

// Family are the architectures that a kernel may serve that runs programs of a, a first: x86_64, i386 and x32; arm64 and arm; else
// a alone. (It may be built without some of them.) It is what a policy covers by default.
func (a Arch) Family() []Arch {
	switch a {
	case X86_64:
		return []Arch{X86_64, I386, X32}
	case I386:
		return []Arch{I386, X86_64, X32}
	case ARM64:
		return []Arch{ARM64, ARM}
	case ARM:
		return []Arch{ARM, ARM64}
	}
	return []Arch{a}
}

// Arches yields all architectures.
func Arches() iter.Seq[Arch] {
	return func(yield func(Arch) bool) {
		for a := Arch(1); int(a) <= arches; a++ {
			if !yield(a) {
				return
			}
		}
	}
}

// ArchOf finds the architecture of a call that the kernel has reported by token and number, as in a user notification, a log line
// or a siginfo. The number is that of [Arch.Number], also for X32.
func ArchOf(token uint32, nr int) (Arch, bool) {
	for a := range Arches() {
		if a.Token() == token {
			if a == X86_64 && nr >= x32Bit {
				return X32, true
			}
			return a, true
		}
	}
	return 0, false
}

// ParseArch reads a name in any of the usual forms: that of String, of GOARCH, or of OCI profiles (SCMP_ARCH_X86_64). The error is
// a [*NameError].
func ParseArch(name string) (Arch, error) {
	oci, isOCI := strings.CutPrefix(name, "SCMP_ARCH_")
	for a := range Arches() {
		i := a.info()
		if isOCI && i.oci == oci || !isOCI && (name == i.name || name != "" && name == i.goarch) {
			return a, nil
		}
	}
	return 0, &NameError{Kind: "architecture", Name: name}
}
