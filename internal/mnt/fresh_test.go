package mnt_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/internal/mnt"
)

// TestSeen: what has not changed is not said to have, where the kernel can tell; what is nowhere has.
func TestSeen(t *testing.T) {
	s := mnt.See()
	if !s.Unchanged() {
		t.Skip("the kernel has no listmount (Linux 6.8), or somebody mounts at this moment")
	}
	s.Watch("/no/such/place")
	require.False(t, s.Unchanged())
	require.False(t, mnt.Seen{}.Unchanged())
}

// BenchmarkUnchanged is what a start pays for the look.
func BenchmarkUnchanged(b *testing.B) {
	s := mnt.See()
	s.Watch("/proc")
	for b.Loop() {
		s.Unchanged()
	}
}
