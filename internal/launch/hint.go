//go:build linux

package launch

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// hint says what an errno of the launcher's own steps most often means, where its text misleads.
func (s *start) hint(st plan.Step, e syscall.Errno) string {
	switch st.Kind {
	case plan.StepClone, plan.StepReclone:
		return s.cloneHint(e)
	case plan.StepExec:
		return execHint(e)
	}
	return ""
}

func (s *start) cloneHint(e syscall.Errno) string {
	switch {
	case e == syscall.ENOSPC:
		return "the limit of namespaces in /proc/sys/user/max_*_namespaces, or their depth of 32, is reached"
	case e == syscall.EUSERS:
		return "user namespaces are nested more than 32 deep"
	case e == syscall.EPERM && s.plan.Cloned()&unix.CLONE_NEWUSER == 0:
		return "needs CAP_SYS_ADMIN, or namespaces.User"
	case e == syscall.EPERM:
		return "unprivileged user namespaces are forbidden here: kernel.unprivileged_userns_clone, " +
			"kernel.apparmor_restrict_unprivileged_userns, an outer seccomp filter, or a chroot"
	case e == syscall.EINVAL:
		return "the kernel lacks one of the namespaces"
	case e == syscall.EAGAIN:
		return "RLIMIT_NPROC or pids.max is reached"
	}
	return ""
}

func execHint(e syscall.Errno) string {
	switch e {
	case syscall.ENOENT:
		return "no such program in the sandbox, or its interpreter or loader is missing there"
	case syscall.ENOEXEC:
		return "neither a program of this architecture nor a script that begins with #!"
	case syscall.EACCES:
		return "not executable, a directory, or on a file system mounted noexec"
	case syscall.EAGAIN:
		return "RLIMIT_NPROC of the user is reached"
	case syscall.E2BIG:
		return "arguments and environment are too long"
	case syscall.EINVAL:
		return "the program asks for two interpreters"
	}
	return ""
}

// kernelAtLeast compares uname's release, for the few cases in which nothing but the version tells.
func kernelAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	a, b := release(unix.ByteSliceToString(u.Release[:]))
	return a > major || a == major && b >= minor
}

// release parses the first two numbers of "6.1.0-56-amd64".
func release(s string) (major, minor int) {
	first, rest, _ := strings.Cut(s, ".")
	second := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	major, _ = strconv.Atoi(first)
	minor, _ = strconv.Atoi(second)
	return major, minor
}
