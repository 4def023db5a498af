//go:build linux

package learn

import (
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/seccomp"
)

// runtimeCalls are those that runc and crun make between the installation of the filter and execve(2), in the native architecture: they
// close descriptors, change the user, drop capabilities, and wait for the word to begin. runc is a Go program with a C library, and starts threads.
var runtimeCalls = []string{
	"capget", "capset", "chdir", "faccessat", "faccessat2", "fchdir", "fstat", "fstatfs", "getcwd", "getdents64", "getpid", "getppid", "gettid", "newfstatat",
	"openat", "openat2", "read", "readlinkat", "setgid", "setgroups", "setresgid", "setresuid", "setuid", "statx", "umask", "write",
	"clock_gettime", "clock_nanosleep", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "futex", "getrandom", "madvise", "mmap", "mprotect", "nanosleep", "pipe2",
	"rseq", "sched_getaffinity", "sched_yield", "set_robust_list", "sigaltstack", "tgkill",
}

// WithRuntime adds what runc and crun need for themselves, so that they can start under the profile what was learned: between the
// installation of a container's filter and its command they make calls of their own, which their filter must let pass (docker run --security-opt seccomp=FILE). They are more
// where no_new_privs is not set, as by default: the user and the capabilities are changed after the filter is installed then.
//
// A start by this module needs little of it: capset, and only where no_new_privs is not set. What was added the command may do as well, so use it for those who need
// it only. It is what runc 1.1 and crun 1.8 were seen to do, and what newer ones are known to.
func (p Profile) WithRuntime() Profile {
	arch := seccomp.Native()
	if arch == 0 {
		return p
	}
	own := Profile{{Name: "clone", Values: []uint64{0}}, {Name: "clone3", Hidden: true},
		{Name: "fcntl", Values: []uint64{unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD_CLOEXEC}},
		{Name: "prctl", Values: []uint64{unix.PR_CAPBSET_READ, unix.PR_CAPBSET_DROP, unix.PR_CAP_AMBIENT, unix.PR_GET_PDEATHSIG, unix.PR_SET_PDEATHSIG, unix.PR_SET_KEEPCAPS,
			unix.PR_SET_NAME, unix.PR_SET_NO_NEW_PRIVS, unix.PR_SET_VMA}}}
	for _, name := range runtimeCalls {
		own = append(own, Call{Name: name})
	}
	return Merge(p, own.in(arch))
}

// in are the calls with their numbers in an architecture, without those that it does not have.
func (p Profile) in(arch seccomp.Arch) (list Profile) {
	for _, c := range p {
		if nr, ok := arch.Number(c.Name); ok {
			c.Arch, c.Number = arch, nr
			list = append(list, c)
		}
	}
	return list
}
