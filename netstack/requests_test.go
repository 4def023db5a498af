//go:build linux

package netstack

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLook asks the kernel for loopback, which needs no privilege, and for what is not there.
func TestLook(t *testing.T) {
	s, err := newSpeaker()
	require.NoError(t, err)
	defer s.Close()
	lo, err := s.look("lo")
	require.NoError(t, err)
	require.Equal(t, "lo", lo.name)
	require.Equal(t, 1, lo.index)
	require.NotZero(t, lo.mtu)
	require.Empty(t, lo.kind)
	_, err = s.look("no-such-dev")
	require.ErrorIs(t, err, syscall.ENODEV)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "no-such-dev", e.Device)
	require.Equal(t, "find", e.Op)
	_, err = s.do("lo", look(1, ""), look(1<<30, ""))
	require.ErrorIs(t, err, syscall.ENODEV)
}

// TestBroadcast: as ip(8) chooses it.
func TestBroadcast(t *testing.T) {
	for prefix, want := range map[string]string{"10.77.3.4/16": "10.77.255.255", "192.0.2.1/30": "192.0.2.3", "10.0.0.1/0": "255.255.255.255"} {
		a, ok := netip.AddrFromSlice(broadcast(netip.MustParsePrefix(prefix)))
		require.True(t, ok)
		require.Equal(t, want, a.String())
	}
}

// FuzzFacts: whatever comes is read without a panic.
func FuzzFacts(f *testing.F) {
	s, err := newSpeaker()
	require.NoError(f, err)
	defer s.Close()
	answers, err := s.do("lo", look(1, ""))
	require.NoError(f, err)
	f.Add(answers[0])
	f.Add(answers[0][:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		read(b)
		isLocal(b)
	})
}
