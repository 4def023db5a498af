package driver_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/overlay/driver"
)

// TestAufs passes the test of all drivers where the kernel has aufs, and says so where it has not.
func TestAufs(t *testing.T) {
	private(t, func(dir string) {
		d := driver.Aufs{Dir: filepath.Join(dir, "trees")}
		known, err := os.ReadFile("/proc/filesystems")
		require.NoError(t, err)
		err = driver.Try(d)
		if strings.Contains(string(known), "\taufs\n") {
			require.NoError(t, err)
			conform(t, d)
			return
		}
		if !inFirst(t) && errors.Is(err, os.ErrPermission) {
			t.Skip("aufs is for root")
		}
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.Empty(t, list(t, d.Dir), "nothing is left")
	})
}

// TestAufsOptions: the text that mount(2) gets.
func TestAufsOptions(t *testing.T) {
	for _, test := range []struct {
		dir   string
		below []string
		want  string
	}{
		{"/t/a", nil, "br:/t/a/files=rw"},
		{"/t/a b", []string{"/t/c", "/t/ü\n"}, "br:/t/a b/files=rw:/t/c/files=ro+wh:/t/ü\n/files=ro+wh"},
	} {
		got, err := driver.Branches(test.dir, test.below)
		require.NoError(t, err)
		require.Equal(t, []string{test.want}, got)
	}
	for _, bad := range []string{"/t,x", "/t:x", "/t=x", "/t\x00", "/" + strings.Repeat("x", 3000)} {
		_, err := driver.Branches(bad, nil)
		require.ErrorIs(t, err, syscall.EINVAL, "%.20q", bad)
		_, err = driver.Branches("/t", []string{bad})
		require.ErrorIs(t, err, syscall.EINVAL, "%.20q", bad)
	}
	d := driver.Aufs{Dir: t.TempDir() + "/a:b"}
	require.ErrorIs(t, d.Create("x", ""), syscall.EINVAL)
	require.Empty(t, list(t, d.Dir))
}

// TestAufsManyBranches: what is longer than a page is appended, in order.
func TestAufsManyBranches(t *testing.T) {
	var below, want []string
	for i := range 300 {
		below = append(below, fmt.Sprintf("/some/where/%d/%s", i, strings.Repeat("x", i+1)))
		want = append(want, below[i]+"/files=ro+wh")
	}
	options, err := driver.Branches("/some/top", below)
	require.NoError(t, err)
	var got []string
	for i, o := range options {
		require.Less(t, len(o), 4096)
		if i == 0 {
			words := strings.Split(strings.TrimPrefix(o, "br:"), ":")
			require.Equal(t, "/some/top/files=rw", words[0])
			got = words[1:]
			continue
		}
		for w := range strings.SplitSeq(o, ",") {
			branch, ok := strings.CutPrefix(w, "append:")
			require.True(t, ok, w)
			got = append(got, branch)
		}
	}
	require.True(t, slices.Equal(want, got))
	require.Greater(t, len(options), 10)
}
