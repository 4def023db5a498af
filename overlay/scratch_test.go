package overlay_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/overlay"
)

const change = "rm gone; rm -r d; mkdir d; echo new > d/new; echo changed > f; ln f g; ln -s f l; mkfifo p; chmod 4711 g"

// TestScratch makes layers of what a sandbox keeps in memory: while it runs, and when it has ended.
func TestScratch(t *testing.T) {
	needsScratch(t)
	base := put(t, t.TempDir(), map[string]string{"f": "base", "gone": "x", "d/old": "x", "e/keep": "x"})
	var kept overlay.Scratch
	defer kept.Close()
	dir := t.TempDir()
	require.ErrorIs(t, kept.Freeze(dir+"/none"), syscall.ENOENT)
	root := overlay.Root{Lower: []string{base}, Size: 16 << 20, Keep: &kept}
	in, out := pipes(t)
	end := startWaiting(t, in, out, change+"; echo; read x; echo later > f", append(programs(t), root, chroot.Proc{})...)
	require.Equal(t, "\n", firstBytes(t, out, 1))
	require.NoError(t, kept.Freeze(dir+"/running"))
	require.ErrorIs(t, kept.Freeze(dir+"/running"), syscall.EEXIST)
	_, err := start(t, "true", append(programs(t), root)...)
	require.ErrorIs(t, err, syscall.EBUSY)
	in.W.Close()
	end()
	require.NoError(t, kept.Freeze(dir+"/ended"))
	require.NoError(t, kept.Close())
	require.ErrorIs(t, kept.Freeze(dir+"/none"), syscall.ENOENT)
	names, err := filepath.Glob(dir + "/*")
	require.NoError(t, err)
	require.Equal(t, []string{dir + "/ended", dir + "/running"}, names, "nothing half made is left")
	for _, layer := range []string{"running", "ended"} {
		want := seen
		if layer == "ended" {
			want = strings.ReplaceAll(want, "changed", "later")
			want = strings.ReplaceAll(want, "4711", "4?711") // who writes without privilege on the host takes the bit away
		}
		got := run(t, look, append(programs(t), overlay.Root{Lower: []string{dir + "/" + layer, base}, Keep: &kept})...)
		require.Regexp(t, "^"+want+"$", got, layer)
		require.NoError(t, kept.Close(), "it is ready for the next one")
	}
}

// TestScratchOfFailedStart: nothing is kept, nothing stays open, and the next one can have it.
func TestScratchOfFailedStart(t *testing.T) {
	needsScratch(t)
	base := put(t, t.TempDir(), nil)
	var kept overlay.Scratch
	run(t, "true", append(programs(t), overlay.Root{Lower: []string{base}})...) // the first one opens what stays open
	before := descriptors(t)
	_, err := start(t, "true", append(programs(t), overlay.Root{Lower: []string{base, "/no/such"}, Keep: &kept})...)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Empty(t, run(t, "echo x > f", append(programs(t), overlay.Root{Lower: []string{base}, Keep: &kept})...))
	require.NoError(t, kept.Freeze(base+"-layer"))
	require.NoError(t, kept.Close())
	require.Equal(t, before, descriptors(t))
	b, err := os.ReadFile(base + "-layer/f")
	require.NoError(t, err)
	require.Equal(t, "x\n", string(b))
}

// TestScratchOfTree is the same for a mount of the caller's own.
func TestScratchOfTree(t *testing.T) {
	asRoot(t)
	base, layer := put(t, t.TempDir(), map[string]string{"f": "base"}), t.TempDir()+"/layer"
	var kept overlay.Scratch
	s := overlay.Stack{Lower: []string{base}, Keep: &kept}
	tree := open(t, s)
	require.NoError(t, os.WriteFile(path(tree, "new"), []byte("new"), 0o644))
	require.NoError(t, os.Remove(path(tree, "f")))
	_, err := s.Open()
	require.ErrorIs(t, err, syscall.EBUSY)
	require.NoError(t, kept.Freeze(layer))
	tree.Close()
	require.NoError(t, kept.Close())
	_, err = overlay.Stack{Lower: []string{base + "/none"}, Keep: &kept}.Open()
	require.ErrorIs(t, err, os.ErrNotExist)
	again := open(t, overlay.Stack{Lower: []string{layer, base}, Keep: &kept})
	names, err := os.ReadDir(path(again, "."))
	require.NoError(t, err)
	require.Len(t, names, 1, fmt.Sprint(names))
	require.NoError(t, kept.Close())
}

// TestScratchRefused: without a scratch upper there is nothing to keep.
func TestScratchRefused(t *testing.T) {
	for _, s := range []overlay.Stack{{Upper: "/u", Work: "/w"}, {ReadOnly: true}} {
		s.Lower, s.Keep = []string{"/l"}, new(overlay.Scratch)
		_, err := s.Open()
		require.ErrorIs(t, err, syscall.EINVAL)
		require.ErrorContains(t, err, "Keep")
	}
}
