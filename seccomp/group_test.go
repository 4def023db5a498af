package seccomp

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGroups: each name in a group is a call or a group, and each group has calls.
func TestGroups(t *testing.T) {
	var names []string
	for name, about := range Groups() {
		names = append(names, name)
		require.NotEmpty(t, about)
		list, err := Group(name)
		require.NoError(t, err)
		require.NotEmpty(t, list, name)
		require.True(t, slices.IsSorted(list))
		g, ok := findGroup(name)
		require.True(t, ok)
		for word := range strings.FieldsSeq(g.names) {
			_, isCall := findCall(word)
			_, isGroup := findGroup(word)
			require.Truef(t, isCall || isGroup, "%s holds %s", name, word)
		}
	}
	require.True(t, slices.IsSorted(names))
	_, err := Group("@nothing")
	require.ErrorAs(t, err, new(*NameError))
}
