//go:build linux && (386 || arm)

package namespaces

import "golang.org/x/sys/unix"

// The calls without the suffix take ids of 16 bits (setresuid(2)).
const (
	sysSetgroups = unix.SYS_SETGROUPS32
	sysSetresgid = unix.SYS_SETRESGID32
	sysSetresuid = unix.SYS_SETRESUID32
)
