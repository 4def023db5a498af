//go:build linux && !386 && !arm

package sys

import "golang.org/x/sys/unix"

// The calls that take ids of 32 bits.
const (
	Setgroups = unix.SYS_SETGROUPS
	Setresuid = unix.SYS_SETRESUID
	Setresgid = unix.SYS_SETRESGID
)
