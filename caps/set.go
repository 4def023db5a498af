//go:build linux

package caps

import (
	"iter"
	"math/bits"
	"strconv"
	"strings"
)

// Set is a set of capabilities. Its bits are the kernel's numbers: what a newer kernel has and this package has no name for is
// kept by number. The zero value is the empty set. Sets are joined by |, cut by &, and lessened by &^.
type Set uint64

// The capabilities, as capabilities(7) has them. All are in Linux 5.9 and later.
const (
	Chown             Set = 1 << iota // change owner and group of any file
	DacOverride                       // pass over the permissions of files
	DacReadSearch                     // read any file, search any directory, open_by_handle_at(2)
	Fowner                            // act as the owner of any file
	Fsetid                            // keep set-user-ID bits on files that are written to
	Kill                              // signal any process
	Setgid                            // change groups, map group ids
	Setuid                            // change users, map user ids
	Setpcap                           // drop from the bounding set, set securebits
	LinuxImmutable                    // change the immutable and append-only flags of files
	NetBindService                    // listen on ports below 1024
	NetBroadcast                      // unused
	NetAdmin                          // configure the network
	NetRaw                            // raw and packet sockets
	IpcLock                           // lock memory beyond the limit
	IpcOwner                          // pass over the permissions of System V IPC
	SysModule                         // load kernel modules
	SysRawio                          // I/O ports, /dev/mem
	SysChroot                         // chroot(2), enter mount namespaces
	SysPtrace                         // trace and read any process
	SysPacct                          // process accounting
	SysAdmin                          // mount(2), setns(2), sethostname(2), bpf(2) and far too much else
	SysBoot                           // reboot(2), kexec_load(2)
	SysNice                           // raise priorities, set schedulers and affinities of others
	SysResource                       // exceed and raise limits and quotas
	SysTime                           // set the clocks
	SysTtyConfig                      // vhangup(2)
	Mknod                             // make device nodes
	Lease                             // leases on any file
	AuditWrite                        // write to the audit log
	AuditControl                      // configure auditing
	Setfcap                           // set capabilities of files, map user id 0
	MacOverride                       // pass over a security module (Smack)
	MacAdmin                          // configure a security module
	Syslog                            // read and clear the kernel's log, see its addresses
	WakeAlarm                         // timers that wake the machine
	BlockSuspend                      // keep the machine awake
	AuditRead                         // read the audit log
	Perfmon                           // performance monitoring
	Bpf                               // load BPF programs
	CheckpointRestore                 // clone3(2) with a chosen pid, ns_last_pid
)

// All are all capabilities, also those that this package does not know.
const All = ^Set(0)

// DockerDefault is what docker run leaves to root. Without a user namespace Mknod in it gives root inside the disks of the
// host, unless the sandbox forbids their devices.
const DockerDefault = AuditWrite | Chown | DacOverride | Fowner | Fsetid | Kill | Mknod | NetBindService | NetRaw | Setfcap | Setgid |
	Setpcap | Setuid | SysChroot

// names are the capabilities in the order of their bits, without "cap_".
var names = [...]string{"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module",
	"sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time",
	"sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
	"wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore"}

const (
	known   = Set(1)<<len(names) - 1
	unknown = ^known
)

// Has reports whether all of other is in s.
func (s Set) Has(other Set) bool { return s&other == other }

// Len is the number of capabilities in s.
func (s Set) Len() int { return bits.OnesCount64(uint64(s)) }

// Each yields the capabilities in s, each as a set of its own, in the order of their numbers.
func (s Set) Each() iter.Seq[Set] {
	return func(yield func(Set) bool) {
		for rest := s; rest != 0; rest &= rest - 1 {
			if !yield(rest & -rest) {
				return
			}
		}
	}
}

// number is that of the only capability in s.
func (s Set) number() int { return bits.TrailingZeros64(uint64(s)) }

// upTo are the capabilities with the numbers 0 to last.
func upTo(last int) Set { return All >> (63 - last) }

// String gives the names as capabilities(7) writes them, in lower case: "cap_chown,cap_net_raw". Those without a name are
// numbers. The empty set is "none", [All] is "all", and All without some is "all,!cap_sys_admin".
func (s Set) String() string {
	if s == 0 {
		return "none"
	}
	words := s.words("cap_", strings.ToLower)
	if s.Has(unknown) {
		words = []string{"all"}
		for _, w := range (All &^ s).words("cap_", strings.ToLower) {
			words = append(words, "!"+w)
		}
	}
	return strings.Join(words, ",")
}

// Names gives the names as Docker and the OCI runtime specification write them: "CAP_CHOWN", "CAP_NET_RAW". Those without
// a name are left out: no such file has them.
func (s Set) Names() []string { return (s & known).words("CAP_", strings.ToUpper) }

func (s Set) words(prefix string, letters func(string) string) []string {
	words := make([]string, 0, s.Len())
	for c := range s.Each() {
		words = append(words, c.word(prefix, letters))
	}
	return words
}

// word is the name of the only capability in s, or its number.
func (s Set) word(prefix string, letters func(string) string) string {
	if n := s.number(); n >= len(names) {
		return strconv.Itoa(n)
	}
	return prefix + letters(names[s.number()])
}

// MarshalText gives what String gives, for JSON and the like.
func (s Set) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what [Parse] reads.
func (s *Set) UnmarshalText(text []byte) (err error) {
	*s, err = Parse(string(text))
	return err
}
