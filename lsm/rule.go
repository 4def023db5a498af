//go:build linux

package lsm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Rule is one line of a [Landlock] rule set. It is made by [List], [ReadOnly], [ReadWrite], [Execute], [Bind], [Connect], [ConnectUnix],
// [ScopeSignals], [ScopeAbstractSockets], [Log] and [ABI].
type Rule struct {
	intent   intent
	paths    []string
	ports    []uint16
	optional bool
	abi      int
	log      Logging
}

type intent uint8

const (
	none intent = iota
	readOnly
	readWrite
	execute
	bind
	connect
	scopeSignals
	scopeAbstract
	logging
	version
	list
	connectUnix
)

var intents = [...]string{"none", "read-only", "read-write", "execute", "bind", "connect", "scope signals", "scope abstract sockets",
	"log", "ABI", "list", "connect unix"}

// ReadOnly allows to read the files at and below the paths, and to list directories. Nothing may be executed: see [Execute]. A path may
// be a file. Without a path it allows nothing, and says all the same that files are restricted.
func ReadOnly(paths ...string) Rule { return Rule{intent: readOnly, paths: slices.Clone(paths)} }

// List allows to list the directories at and below the paths, and to read no file. A path that is no directory is an error:
// EINVAL of the start, ENOTDIR of [Landlock.Prepare].
func List(paths ...string) Rule { return Rule{intent: list, paths: slices.Clone(paths)} }

// ReadWrite is ReadOnly, and allows to change files at and below the paths: to write, truncate, make, remove, link and rename, also
// across directories of which both are ReadWrite, and to control devices there by ioctl(2). Device nodes cannot be made.
//
// On a read-only mount that is EROFS, and on an immutable file EPERM: nothing could be written. Where a mount below the path is meant, name that, or take
// [Rule.Optional]. A path that the command may not write to by the file's mode is not looked at.
func ReadWrite(paths ...string) Rule { return Rule{intent: readWrite, paths: slices.Clone(paths)} }

// Execute is ReadOnly, and allows to execute programs at and below the paths. The command itself needs it, its loader
// (/lib64/ld-linux-x86-64.so.2), and for a script its interpreter; libraries are only read.
func Execute(paths ...string) Rule { return Rule{intent: execute, paths: slices.Clone(paths)} }

// Bind allows to bind(2) TCP sockets to the ports, and to no others; 0 is any port that the kernel chooses. Without a port none can be bound.
// Needs ABI 4. What is not TCP is left alone: see [Connect].
func Bind(ports ...uint16) Rule { return Rule{intent: bind, ports: slices.Clone(ports)} }

// Connect allows to connect(2) TCP sockets to the ports, and to no others, on any host. Without a port nothing can be connected to.
// Needs ABI 4.
//
// The kernel means TCP to the word. UDP, and also SCTP, SMC and MPTCP, which speaks TCP with any server that does not know it, are left alone. Against a
// program that wants out it takes a network namespace, or a filter that forbids sockets of other protocols (socket(2)).
func Connect(ports ...uint16) Rule { return Rule{intent: connect, ports: slices.Clone(ports)} }

// ConnectUnix allows to connect to, and to send to, Unix sockets at and below the paths, and to no others that have a name in the file system; those that are made inside are
// always allowed. Without a path none outside can be connected to. What is denied is EACCES. Without such a rule no rule for files says anything of sockets, as
// everywhere before. Needs ABI 9, Linux 7.1.
func ConnectUnix(paths ...string) Rule { return Rule{intent: connectUnix, paths: slices.Clone(paths)} }

// ScopeSignals forbids to send signals to processes outside. Needs ABI 6. Each command has a domain of its own: one that is
// executed later in the same sandbox is outside, too.
func ScopeSignals() Rule { return Rule{intent: scopeSignals} }

// ScopeAbstractSockets forbids to connect to abstract Unix sockets that were made outside (unix(7)). Needs ABI 6.
func ScopeAbstractSockets() Rule { return Rule{intent: scopeAbstract} }

// ABI says which version of Landlock is meant, from 1 on: the kinds of access that came later are left alone. Without it all are meant
// that this package knows, up to [NewestABI], and a kernel that lacks one of those that the rules need is an error.
func ABI(n int) Rule { return Rule{intent: version, abi: n} }

// Logging says which denials the kernel writes to its audit log (auditd(8)). By default those of a program are logged that has
// restricted itself, and not those of what it executes: nothing, for a command in a sandbox.
type Logging uint32

// What is logged. The bits are the kernel's, landlock_restrict_self(2).
const (
	NotSameExec   Logging = 1 << iota // not what a program is denied that has restricted itself
	NewExec                           // what programs are denied that are executed: the command
	NotSubdomains                     // not what is denied by domains that are made inside
)

// Log says which denials are logged. Needs ABI 7.
func Log(l Logging) Rule { return Rule{intent: logging, log: l} }

// Optional gives the rule in such a way that a path that does not exist is passed over, and that rights to write on a read-only mount are given in vain. Otherwise both
// are errors. Only a rule with paths can be optional.
func (r Rule) Optional() Rule {
	r.optional = true
	return r
}

// String gives the rule in words: read-only /usr /lib.
func (r Rule) String() string {
	text := r.intent.String()
	for _, p := range r.paths {
		text += " " + printable(p)
	}
	for _, p := range r.ports {
		text += " " + strconv.Itoa(int(p))
	}
	switch {
	case r.intent == version:
		text += " " + strconv.Itoa(r.abi)
	case r.intent == logging:
		text += fmt.Sprintf(" 0x%x", uint32(r.log))
	case r.optional:
		text += " (optional)"
	}
	return text
}

func (i intent) String() string { return intents[i] }

// printable quotes what would not be one word.
func printable(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || !strconv.IsPrint(r) || r == '"' }) {
		return strconv.Quote(s)
	}
	return s
}
