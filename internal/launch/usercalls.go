//go:build linux

package launch

import "golang.org/x/sys/unix"

// userCalls may clear the dumpable flag: they change the user, the group, or capabilities.
var userCalls = []uintptr{unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETUID, unix.SYS_SETGID,
	unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPSET}
