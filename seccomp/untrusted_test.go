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

// TestUntrustedFilters: the tables of netfilter are out of reach, by netlink and by the options of old; what programs set is not.
func TestUntrustedFilters(t *testing.T) {
	p, err := seccomp.Untrusted().Compile()
	require.NoError(t, err)
	verdict := func(name string, args ...uint64) seccomp.Action {
		nr, ok := seccomp.Native().Number(name)
		require.True(t, ok)
		return p.Verdict(seccomp.Native(), nr, args...)
	}
	for _, o := range [][2]uint64{{unix.SOL_IP, 64}, {unix.SOL_IP, 65}, {unix.SOL_IP, 96}, {unix.SOL_IP, 128}, {unix.SOL_IP, 1024 + 64 + 1},
		{unix.SOL_IPV6, 64}, {unix.SOL_IPV6, 65}, {1<<32 | unix.SOL_IP, 64}, {unix.SOL_IP, 1<<32 | 64}} {
		require.Equal(t, seccomp.Errno(syscall.EPERM), verdict("setsockopt", 3, o[0], o[1]), o)
	}
	for _, o := range [][2]uint64{{unix.SOL_IP, unix.IP_TOS}, {unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT}, {unix.SOL_IP, unix.IP_MSFILTER}, {unix.SOL_IPV6, unix.IPV6_V6ONLY},
		{unix.SOL_IPV6, unix.IPV6_TCLASS}, {unix.SOL_IPV6, unix.IPV6_FREEBIND}, {unix.SOL_SOCKET, unix.SO_BINDTODEVICE}, {unix.SOL_TCP, unix.TCP_NODELAY}} {
		require.Equal(t, seccomp.Allow, verdict("setsockopt", 3, o[0], o[1]), o)
	}
	require.Equal(t, seccomp.Errno(syscall.EAFNOSUPPORT), verdict("socket", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER))
}
