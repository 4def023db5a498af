//go:build linux

package seccomp_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/seccomp"
)

// TestUntrustedSockets: what opens a stream must be TCP: Landlock's rules for ports do not see MPTCP.
func TestUntrustedSockets(t *testing.T) {
	p, err := seccomp.Untrusted().Compile()
	require.NoError(t, err)
	nr, ok := seccomp.Native().Number("socket")
	require.True(t, ok)
	verdict := func(args ...uint64) seccomp.Action {
		var a [6]uint64
		copy(a[:], args)
		return p.Verdict(seccomp.Native(), nr, a[:]...)
	}
	for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
		require.Equal(t, seccomp.Allow, verdict(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
		require.Equal(t, seccomp.Allow, verdict(family, unix.SOCK_STREAM, unix.IPPROTO_TCP))
		require.Equal(t, seccomp.Allow, verdict(family, unix.SOCK_DGRAM, unix.IPPROTO_UDP))
		for _, protocol := range []uint64{unix.IPPROTO_MPTCP, unix.IPPROTO_SCTP, unix.IPPROTO_UDPLITE, unix.IPPROTO_L2TP, 1<<32 | unix.IPPROTO_MPTCP} {
			require.Equal(t, seccomp.Errno(syscall.EAFNOSUPPORT), verdict(family, unix.SOCK_STREAM, protocol), protocol)
			require.Equal(t, seccomp.Errno(syscall.EAFNOSUPPORT), verdict(family, unix.SOCK_DGRAM, protocol), protocol)
		}
	}
}
