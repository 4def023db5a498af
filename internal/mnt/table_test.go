package mnt_test

import (
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/internal/mnt"
)

// table reads lines of "ID parent mountpoint".
func table(t *testing.T, lines ...string) (all mnt.Table) {
	t.Helper()
	for _, line := range lines {
		list, err := mountinfo.GetMountsFromReader(strings.NewReader(line+" rw - tmpfs tmpfs rw\n"), nil)
		require.NoError(t, err)
		all = append(all, *list[0])
	}
	return all
}

func ids(list []mountinfo.Info) (all []int) {
	for _, m := range list {
		all = append(all, m.ID)
	}
	return all
}

// TestTable: what a path leads to, of mounts that cover each other.
func TestTable(t *testing.T) {
	all := table(t, "1 0 0:1 / /", "2 1 0:1 / /a", "3 2 0:1 / /a/b", "4 1 0:1 / /ab", "5 4 0:1 / /ab", "6 4 0:1 / /ab/hidden", "7 1 0:1 / /c/d/e", "8 1 0:1 / /c/d", "9 8 0:1 / /c/d/f",
		"10 5 0:1 / /ab/x", "11 11 0:1 / /own", "12 99 0:1 / /elsewhere")
	require.ElementsMatch(t, []int{1, 2, 3, 5, 8, 9, 10, 11, 12}, ids(all.Visible()))
	for path, want := range map[string]struct {
		on   int
		rest []int
	}{"/": {1, []int{2, 3, 5, 8, 9, 10, 11, 12}}, "/a": {2, []int{3}}, "/a/b/deep": {3, nil}, "/ab": {5, []int{10}}, "/c": {1, []int{8, 9}}, "/c/d/e": {8, nil}, "/abc": {1, nil}} {
		on, rest := all.Under(path)
		require.Equal(t, want.on, on.ID, path)
		require.ElementsMatch(t, want.rest, ids(rest), path)
	}
	covered := table(t, "1 0 0:1 / /", "2 1 0:1 / /", "3 2 0:1 / /a", "4 1 0:1 / /a")
	require.ElementsMatch(t, []int{2, 3}, ids(covered.Visible()), "a mount over the root covers all of it")
	require.Empty(t, mnt.Table{}.Visible())
}
