package launch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSetID: the ids of the start count. That the kernel sets them so is tested with real set-user-ID programs in the root package.
func TestSetID(t *testing.T) {
	require.False(t, setID())
	for ids, want := range map[[4]uintptr]bool{{0, 0, 0, 0}: false, {7, 7, 8, 8}: false, {7, 0, 8, 8}: true, {7, 7, 8, 0}: true, {0, 7, 8, 8}: true} {
		require.Equal(t, want, differ(ids), ids)
	}
}
