//go:build linux

package seccomp

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Untrusted is a policy for code that nobody trusts: compilers, interpreters and their programs run, with files, threads, processes, and
// sockets of the kinds unix and internet. It is a list of what is allowed; everything else answers ENOSYS or EPERM.
//
// It shuts out what has led out of sandboxes before: new namespaces by clone, clone3, unshare and setns; mounts by the old and the new
// calls; io_uring, bpf, perf, userfaultfd, key rings, modules, ptrace and the memory of other processes; pushing input into a terminal
// (TIOCSTI, TIOCLINUX); and all system call numbers of 32-bit programs and of x32. And ways in which two sandboxes could talk that
// share no network and no file: key rings, System V and POSIX IPC, vsock, and any socket family but unix, internet and netlink's routes.
//
// What no filter can see: the name of an abstract unix socket lies in memory. Two sandboxes reach each other by such names only
// where they share a network namespace; give each its own, or use Landlock's scope (Linux 6.12). Locks on files and /dev/shm are ways to
// talk where the file system is shared. And it takes no capabilities away: in a user namespace of its own the code would have them all there, and with them
// the kernel's traffic control (the ways to packet filters are shut). Drop them (package caps).
func Untrusted() Policy {
	native := Native()
	p := Policy{
		Default: Errno(syscall.EPERM),
		Arches:  []Arch{native},
		Rules: []Rule{
			{Names: []string{"clone3"}, Action: Errno(syscall.ENOSYS)}, // its flags lie in memory: programs then use clone
			{Names: []string{"clone"}, Action: Allow, When: Any{{Arg(cloneFlags(native)).HasNone(newNamespaces)}}},
			{Names: []string{"socket", "socketpair"}, Action: Allow, When: Arg(0).In(unix.AF_UNIX)},
			{Names: []string{"socket"}, Action: Allow, When: network()},
			{Names: []string{"socket"}, Action: Errno(syscall.EAFNOSUPPORT)},
			{Names: []string{"setsockopt"}, Action: Errno(syscall.EPERM), When: xtables()},
			{Names: []string{"ioctl"}, Action: Errno(syscall.EPERM), When: Arg(1).In(unix.TIOCSTI, tioclinux, unix.TIOCSETD)},
			{Names: []string{"ioctl"}, Action: Allow},
			{Names: []string{"prctl"}, Action: Errno(syscall.EPERM), When: Arg(0).In(unix.PR_SET_MM, unix.PR_SET_PTRACER, unix.PR_SET_SPECULATION_CTRL, unix.PR_SCHED_CORE)},
			{Names: []string{"prctl"}, Action: Allow},
			{Names: []string{"personality"}, Action: Allow, When: Arg(0).In(0, 0xffffffff)},
			{Names: []string{"@io-uring", "bpf", "userfaultfd", "@keyring", "statmount", "listmount", "listns"}, Action: Errno(syscall.ENOSYS), SkipUnknown: true},
			{Names: untrustedCalls(), Action: Allow},
		},
	}
	return p
}

// network are the sockets that are allowed: TCP and UDP by name, since MPTCP, SCTP and others would pass by what Landlock and other parts know
// of ports.
func network() (any Any) {
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
		for _, k := range [][2]uint64{{unix.SOCK_STREAM, 0}, {unix.SOCK_STREAM, unix.IPPROTO_TCP}, {unix.SOCK_DGRAM, 0}, {unix.SOCK_DGRAM, unix.IPPROTO_UDP}} {
			any = append(any, All{Arg(0).Equal(family), Arg(1).Masked(sockType, k[0]), Arg(2).Equal(k[1])})
		}
	}
	return append(any, All{Arg(0).Equal(unix.AF_NETLINK), Arg(2).Equal(unix.NETLINK_ROUTE)})
}

// xtables are the options by which iptables of old, ebtables' kin and IPVS load their tables: where the code has capabilities in a user
// namespace of its own, they have led into the kernel again and again. To other programs the numbers mean nothing.
func xtables() Any {
	return Any{
		{Arg(1).Equal(unix.SOL_IP), Arg(2).GreaterEqual(64)}, // IPT_SO_SET_REPLACE and what follows
		{Arg(1).Equal(unix.SOL_IPV6), Arg(2).Within(64, 65)},
	}
}

const (
	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
		unix.CLONE_NEWCGROUP // CLONE_NEWTIME is a signal number to clone(2)
	sockType  = 0xf    // of a type of socket: the rest is flags
	tioclinux = 0x541c // TIOCLINUX, which pastes the selection of a console
)

// cloneFlags is the place of clone's flags.
func cloneFlags(a Arch) int {
	if a == S390X {
		return 1
	}
	return 0
}

func untrustedCalls() []string {
	return []string{"@basic-io", "@file-system", "@io-event", "@runtime", "@sync", "@landlock", "@pkey", "@chown",
		"execve", "execveat", "fork", "vfork", "wait4", "waitid", "waitpid", "kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
		"pidfd_open", "pidfd_send_signal", "setpgid", "setsid", "seccomp", "capset", "flock",
		"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64",
		"recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
		"pipe", "pipe2", "memfd_create", "sendfile", "sendfile64", "splice", "tee", "vmsplice", "copy_file_range", "readahead", "fadvise64", "fadvise64_64",
		"arm_fadvise64_64", "sched_setaffinity", "setpriority", "setrlimit", "mlock", "mlock2", "munlock"}
}
