//go:build linux

package caps

import "github.com/caisson-dev/caisson/plan"

// Securebits change how the kernel treats user 0 and changes of the user (capabilities(7), "The securebits flags"; prctl(2),
// PR_SET_SECUREBITS). Each has a lock, which keeps it as it is for good, also in all descendants. To set them needs CAP_SETPCAP. The
// zero value is the kernel's default; in a [Bound] or [State] it leaves them alone.
type Securebits uint32

// The securebits, Linux 2.6.26.
const (
	NoRoot        Securebits = 1 << iota // user 0 gains no capabilities by executing a program
	LockNoRoot                           // and this cannot be changed
	NoSetuidFixup                        // a change of the user leaves the sets alone
	LockNoSetuidFixup
	KeepCaps // a change of the user from 0 leaves the permitted set alone; cleared by execve(2)
	LockKeepCaps
	NoAmbientRaise // nothing can be added to the ambient set, Linux 4.3
	LockNoAmbientRaise
	ExecRestrictFile // interpreters are to ask the kernel before they run a file, Linux 6.14
	LockExecRestrictFile
	ExecDenyInteractive // interpreters are to run nothing that is typed in, Linux 6.14
	LockExecDenyInteractive

	// NotShown stands in a [State] for securebits that the kernel does not show: those of another process. Set, it leaves them alone.
	NotShown Securebits = 1 << 31
)

var securebitFlags = []plan.Flag{{Bits: uint64(NoRoot), Name: "SECBIT_NOROOT"}, {Bits: uint64(LockNoRoot), Name: "SECBIT_NOROOT_LOCKED"},
	{Bits: uint64(NoSetuidFixup), Name: "SECBIT_NO_SETUID_FIXUP"}, {Bits: uint64(LockNoSetuidFixup), Name: "SECBIT_NO_SETUID_FIXUP_LOCKED"},
	{Bits: uint64(KeepCaps), Name: "SECBIT_KEEP_CAPS"}, {Bits: uint64(LockKeepCaps), Name: "SECBIT_KEEP_CAPS_LOCKED"},
	{Bits: uint64(NoAmbientRaise), Name: "SECBIT_NO_CAP_AMBIENT_RAISE"}, {Bits: uint64(LockNoAmbientRaise), Name: "SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED"},
	{Bits: uint64(ExecRestrictFile), Name: "SECBIT_EXEC_RESTRICT_FILE"}, {Bits: uint64(LockExecRestrictFile), Name: "SECBIT_EXEC_RESTRICT_FILE_LOCKED"},
	{Bits: uint64(ExecDenyInteractive), Name: "SECBIT_EXEC_DENY_INTERACTIVE"}, {Bits: uint64(LockExecDenyInteractive), Name: "SECBIT_EXEC_DENY_INTERACTIVE_LOCKED"},
	{Bits: uint64(NotShown), Name: "not shown"}}

// locks are the bits of even places, and what they lock those before.
const locks = LockNoRoot | LockNoSetuidFixup | LockKeepCaps | LockNoAmbientRaise | LockExecRestrictFile | LockExecDenyInteractive

// Locked gives s with the lock of each bit that is set.
func (s Securebits) Locked() Securebits { return s | s<<1&locks }

// Has reports whether all of other is in s.
func (s Securebits) Has(other Securebits) bool { return s&other == other }

// String gives the kernel's names, with bars between them; 0 is "0".
func (s Securebits) String() string { return plan.FlagText(uint64(s), securebitFlags) }

// NoNewPrivs is the part of a sandbox that sets no_new_privs: nothing that the command executes gains capabilities or another
// user by set-user-ID or file capabilities (prctl(2), PR_SET_NO_NEW_PRIVS, Linux 3.5). It needs no privilege, and works together with
// [Bound] and without.
type NoNewPrivs struct{}

// Apply implements plan.Primitive.
func (NoNewPrivs) Apply(p *plan.Plan) error {
	p.NoNewPrivs()
	return nil
}
