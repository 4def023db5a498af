package layer_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// lower makes a tree as earlier layers have left it.
func lower(t testing.TB, dst string) {
	t.Helper()
	for _, name := range []string{"a/1", "a/2", "a/sub/3", "b/sub/deep/4", "b/5", "c", "d/sub/6"} {
		write(t, filepath.Join(dst, name), "lower")
	}
}

func TestWhiteoutsPlain(t *testing.T) {
	for name, c := range map[string]struct {
		layer []entry
		want  string
	}{
		"file":           {[]entry{file(".wh.c", "")}, "a a/1 a/2 a/sub a/sub/3 b b/5 b/sub b/sub/deep b/sub/deep/4 d d/sub d/sub/6"},
		"directory":      {[]entry{file(".wh.a", ""), file(".wh.b", ""), file(".wh.d", "")}, "c"},
		"nothing":        {[]entry{file(".wh.no", ""), file(".wh.a", ""), file(".wh.b", ""), file(".wh.d", "")}, "c"},
		"below":          {[]entry{file("a/sub/.wh.3", ""), file(".wh.b", ""), file(".wh.d", "")}, "a a/1 a/2 a/sub c"},
		"opaque":         {[]entry{file("a/.wh..wh..opq", ""), file(".wh.b", ""), file(".wh.d", "")}, "a c"},
		"opaque root":    {[]entry{file(".wh..wh..opq", ""), file("new", "")}, "new"},
		"opaque last":    {[]entry{file("new", ""), dir("a"), file("a/new", ""), file(".wh..wh..opq", "")}, "a a/new new"},
		"replaced":       {[]entry{file(".wh.a", ""), dir("a"), file("a/new", ""), file(".wh.b", ""), file(".wh.d", "")}, "a a/new c"},
		"replaced first": {[]entry{dir("a"), file("a/new", ""), file(".wh.a", ""), file(".wh.b", ""), file(".wh.d", "")}, "a a/new c"},
		"no parent":      {[]entry{file("b/sub/new", ""), file(".wh.b", ""), file(".wh.a", ""), file(".wh.d", "")}, "b b/sub b/sub/new c"},
		"visited only":   {[]entry{file("b/sub/deep/.wh.4", ""), file(".wh.b", ""), file(".wh.a", ""), file(".wh.d", "")}, "c"},
		"file first":     {[]entry{file("c", "new"), file(".wh.c", ""), file(".wh.a", ""), file(".wh.b", ""), file(".wh.d", "")}, "c"},
		"linked":         {[]entry{hardlink(".wh.c", ".wh..wh.aufs"), file(".wh.b", ""), file(".wh.d", "")}, "a a/1 a/2 a/sub a/sub/3"},
		"over a link":    {[]entry{symlink("l", "a"), file("l/.wh.1", ""), file(".wh.b", ""), file(".wh.d", "")}, "a a/2 a/sub a/sub/3 c l"},
	} {
		t.Run(name, func(t *testing.T) {
			dst, outside := cage(t)
			lower(t, dst)
			totals, err := apply(t, layer.Unpack{}, dst, c.layer...)
			require.NoError(t, err)
			require.Equal(t, c.want, strings.Join(names(t, dst), " "))
			require.NotZero(t, totals.Whiteouts)
			require.Equal(t, []string{"secret"}, names(t, outside))
		})
	}
}

// forms that the caller may use.
func forms(t testing.TB) []layer.Form {
	if !userAttrs(t) && root {
		return []layer.Form{layer.Overlay, layer.AUFS}
	}
	if !userAttrs(t) {
		return []layer.Form{layer.AUFS}
	}
	if root {
		return []layer.Form{layer.Overlay, layer.UserOverlay, layer.AUFS}
	}
	return []layer.Form{layer.UserOverlay, layer.AUFS}
}

// TestForms: a layer that is unpacked in any form, and made a layer again, is the same; so it is when it has been converted.
func TestForms(t *testing.T) {
	entries := []entry{dir("./"), file(".wh.gone", ""), dir("a/"), file("a/.wh..wh..opq", ""), file("a/new", "new"), dir("b/"), file("b/.wh.1", ""), file("b/.wh.2", ""), dir("b/x/"), file("b/x/y", "")}
	want := []string{"5 ./", "0 .wh.gone", "5 a/", "0 a/.wh..wh..opq", `0 a/new "new"`, "5 b/", "0 b/.wh.1", "0 b/.wh.2", "5 b/x/", "0 b/x/y"}
	var first []byte
	for _, form := range forms(t) {
		dst, _ := cage(t)
		_, err := apply(t, layer.Unpack{Form: form}, dst, entries...)
		require.NoError(t, err)
		packed := diff(t, layer.Pack{Form: form}, dst)
		require.Equal(t, want, listing(t, packed), form)
		if first == nil {
			first = packed
		}
		require.Equal(t, first, packed)
		for _, to := range forms(t) {
			require.NoError(t, layer.Convert(ctx, dst, form, to))
			require.Equal(t, first, diff(t, layer.Pack{Form: to}, dst), "%s to %s", form, to)
			require.NoError(t, layer.Convert(ctx, dst, to, form))
			require.Equal(t, first, diff(t, layer.Pack{Form: form}, dst), "%s back from %s", form, to)
		}
	}
	require.ErrorIs(t, layer.Convert(ctx, t.TempDir(), layer.Plain, layer.AUFS), syscall.EINVAL)
	require.ErrorIs(t, layer.Convert(ctx, t.TempDir(), layer.AUFS, 77), syscall.EINVAL)
}

// TestCovered: in the kernel's forms a directory that replaces a whiteout of the same layer is opaque.
func TestCovered(t *testing.T) {
	for name, entries := range map[string][]entry{"first": {file(".wh.d", ""), dir("d"), file("d/x", "")}, "last": {dir("d"), file("d/x", ""), file(".wh.d", "")},
		"no parent": {file(".wh.d", ""), file("d/x", "")}, "made a file": {file(".wh.d", ""), file("d", "")}} {
		for _, form := range forms(t) {
			dst, _ := cage(t)
			_, err := apply(t, layer.Unpack{Form: form}, dst, entries...)
			require.NoError(t, err)
			list := listing(t, diff(t, layer.Pack{Form: form}, dst))
			switch {
			case name == "made a file":
				require.Contains(t, list, "0 d")
			case form == layer.AUFS:
				require.Subset(t, []string{"5 ./", "0 .wh.d", "5 d/", "0 d/.wh..wh..opq", "0 d/x"}, list, name)
			default:
				require.Equal(t, []string{"5 ./", "5 d/", "0 d/.wh..wh..opq", "0 d/x"}, list, "%s %s", form, name)
			}
		}
	}
}

// TestKernelAgrees: what the kernel's overlay makes of changes and what Diff and Apply make of them is the same tree.
func TestKernelAgrees(t *testing.T) {
	lowerDir, _ := cage(t)
	lower(t, lowerDir)
	top := attached(t, "tmpfs")
	upper, work := top+"/upper", top+"/work"
	require.NoError(t, os.Mkdir(upper, 0o755))
	require.NoError(t, os.Mkdir(work, 0o755))
	merged := attached(t, "overlay", "lowerdir="+lowerDir, "upperdir="+upper, "workdir="+work)
	at := func(name string) string { return filepath.Join(merged, name) }
	write(t, at("a/1"), "changed")
	require.NoError(t, os.RemoveAll(at("b")))
	write(t, at("b/new"), "new")
	require.NoError(t, os.Remove(at("a/sub/3")))
	require.NoError(t, os.RemoveAll(at("d/sub")))
	write(t, at("d/sub/again"), "again")
	require.NoError(t, os.Remove(at("c")))
	require.NoError(t, os.Mkdir(at("c"), 0o700))
	require.NoError(t, os.Symlink("a/1", at("link")))
	require.NoError(t, os.Chown(at("a/2"), 5, 6))
	require.NoError(t, os.Link(at("a/2"), at("a/2link")))
	write(t, at("made"), "x")
	require.NoError(t, os.Remove(at("made")))

	packed := diff(t, layer.Pack{Form: layer.Overlay}, upper)
	plain, _ := cage(t)
	_, err := layer.Apply(ctx, plain, bytes.NewReader(diff(t, layer.Pack{}, lowerDir)))
	require.NoError(t, err)
	_, err = layer.Apply(ctx, plain, bytes.NewReader(packed))
	require.NoError(t, err)
	require.Equal(t, state(t, merged), state(t, plain))

	// And as a lower directory of another mount, in each form that the kernel knows.
	for form, option := range map[layer.Form]string{layer.Overlay: "xino=off", layer.UserOverlay: "userxattr"} {
		if form == layer.UserOverlay && !userAttrs(t) {
			continue
		}
		second := attached(t, "tmpfs")
		_, err = layer.Unpack{Form: form}.Apply(ctx, second, bytes.NewReader(packed))
		require.NoError(t, err)
		again := attached(t, "overlay", "lowerdir="+second+":"+lowerDir, option)
		require.Equal(t, state(t, plain), strings.ReplaceAll(state(t, again), " user.overlay.opaque=79", ""), form)
	}
}

// TestExtendedWhiteouts: since Linux 6.7 a whiteout may be a file with an attribute.
func TestExtendedWhiteouts(t *testing.T) {
	needUserAttrs(t)
	dst, _ := cage(t)
	write(t, filepath.Join(dst, "d/gone"), "")
	write(t, filepath.Join(dst, "d/empty"), "")
	require.NoError(t, unix.Setxattr(filepath.Join(dst, "d"), "user.overlay.opaque", []byte("x"), 0))
	require.NoError(t, unix.Setxattr(filepath.Join(dst, "d/gone"), "user.overlay.whiteout", []byte("y"), 0))
	want := []string{"5 ./", "5 d/", "0 d/.wh.gone", "0 d/empty"}
	require.Equal(t, want, listing(t, diff(t, layer.Pack{Form: layer.UserOverlay}, dst)))
	require.NoError(t, layer.Convert(ctx, dst, layer.UserOverlay, layer.AUFS))
	require.Equal(t, []string{"d", "d/.wh.gone", "d/empty"}, names(t, dst))
	require.Equal(t, want, listing(t, diff(t, layer.Pack{Form: layer.AUFS}, dst)))
}
