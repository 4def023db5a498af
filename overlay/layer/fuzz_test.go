package layer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// FuzzApply unpacks anything, over a tree with links that lead out: nothing outside changes, every error has its type, nothing hangs, and what has been unpacked can be
// packed, unpacked again and is the same.
func FuzzApply(f *testing.F) {
	for _, b := range compressed(f) {
		f.Add(b, byte(0))
	}
	for _, c := range hostile() {
		f.Add(archive(f, c.layer...), byte(1))
	}
	f.Add(archive(f, everything(f)...), byte(2))
	f.Add(archive(f, symlink("l", "../outside"), file("l/secret", "x"), hardlink("h", "out/secret"), file("out/secret", "x")), byte(0))
	f.Add(sparse(1<<20), byte(3))
	f.Fuzz(func(t *testing.T, b []byte, how byte) {
		if len(b) > 1<<20 {
			return
		}
		dst, outside := cage(t)
		require.NoError(t, os.Symlink(outside, filepath.Join(dst, "out")))
		require.NoError(t, os.Symlink("../../outside/secret", filepath.Join(dst, "l")))
		write(t, filepath.Join(dst, "a/b/old"), "old")
		stopped, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		u := layer.Unpack{Form: layer.Form(how % 4), Devices: layer.SkipDevices, Unprivileged: how&4 != 0, Limits: layer.Limits{Bytes: 32 << 20, Entries: 1000, Depth: 100}}
		_, err := u.Apply(stopped, dst, bytes.NewReader(b))
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, []string{"secret"}, names(t, outside))
		require.Equal(t, "secret", read(t, filepath.Join(outside, "secret")))
		var st unix.Stat_t
		require.NoError(t, unix.Stat(outside, &st))
		require.EqualValues(t, unix.S_IFDIR|0o755, st.Mode)
		require.NoError(t, unix.Stat(filepath.Join(outside, "secret"), &st))
		require.EqualValues(t, 1, st.Nlink)
		require.EqualValues(t, unix.S_IFREG|0o644, st.Mode)
		if err != nil {
			var e *layer.Error
			require.ErrorAs(t, err, &e)
			return
		}
		if !root && u.Form == layer.Overlay {
			return
		}
		again(t, layer.Pack{Form: u.Form}, dst)
	})
}

// again packs a tree, unpacks it, and packs that.
func again(t *testing.T, p layer.Pack, dst string) {
	var first, second bytes.Buffer
	_, err := p.Diff(ctx, &first, dst)
	var refused *layer.RefusedError
	if errors.As(err, &refused) || errors.Is(err, os.ErrPermission) {
		return
	}
	require.NoError(t, err)
	next, _ := cage(t)
	_, err = layer.Unpack{Form: p.Form, Devices: layer.MakeDevices}.Apply(ctx, next, bytes.NewReader(first.Bytes()))
	if err != nil && !root {
		return // owners, say
	}
	require.NoError(t, err)
	_, err = p.Diff(ctx, &second, next)
	require.NoError(t, err)
	require.True(t, bytes.Equal(first.Bytes(), second.Bytes()), "%s\n%s", strings.Join(listing(t, first.Bytes()), "\n"), strings.Join(listing(t, second.Bytes()), "\n"))
}

// FuzzDecompress reads anything, and gives an error of its type or the data.
func FuzzDecompress(f *testing.F) {
	for _, b := range compressed(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := layer.Decompress(bytes.NewReader(b))
		if err == nil {
			_, err = io.Copy(io.Discard, io.LimitReader(d, 64<<20))
			d.Close()
		}
		if err != nil {
			require.ErrorIs(t, err, layer.ErrCorrupt)
		}
	})
}
