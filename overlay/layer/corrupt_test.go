package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// compressed gives a small layer in each compression.
func compressed(t testing.TB) map[layer.Compression][]byte {
	t.Helper()
	random := make([]byte, 3000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	b := archive(t, dir("./"), dir("a"), file("a/random", string(random)), file("a/text", strings.Repeat("text ", 1000)), symlink("l", "a"))
	layers := map[layer.Compression][]byte{}
	for _, c := range []layer.Compression{layer.Uncompressed, layer.Gzip, layer.Zstd} {
		var out bytes.Buffer
		w, err := c.Compress(&out)
		require.NoError(t, err)
		w.Write(b)
		require.NoError(t, w.Close())
		layers[c] = out.Bytes()
	}
	return layers
}

// TestTruncated: a layer that ends too early says so, wherever it is cut: also between two entries, and before the checksum.
func TestTruncated(t *testing.T) {
	steady(t)
	for c, b := range compressed(t) {
		end := len(b) - 1
		if c == layer.Uncompressed {
			end = len(b) - 1024 // what marks the end is two blocks, of which one is enough
		}
		for n := 0; n <= end; n += max(1, min(end-n, 97)) {
			dst, _ := cage(t)
			_, err := layer.Apply(ctx, dst, bytes.NewReader(b[:n]))
			require.ErrorIsf(t, err, io.ErrUnexpectedEOF, "%s, %d bytes of %d", c, n, len(b))
			require.ErrorIs(t, err, layer.ErrCorrupt)
			if n == end {
				break
			}
		}
		dst, _ := cage(t)
		_, err := layer.Apply(ctx, dst, bytes.NewReader(b))
		require.NoError(t, err)
	}
}

// TestCorrupt: a bit that is wrong in compressed data is found, at the latest by the checksum.
func TestCorrupt(t *testing.T) {
	want, _ := cage(t)
	_, err := layer.Apply(ctx, want, bytes.NewReader(compressed(t)[layer.Gzip]))
	require.NoError(t, err)
	for c, b := range compressed(t) {
		if c == layer.Uncompressed {
			continue // only headers have checksums; the digest is the store's to verify
		}
		for at := 12; at < len(b); at += 41 {
			bad := bytes.Clone(b)
			bad[at] ^= 0x10
			dst, _ := cage(t)
			_, err := layer.Apply(ctx, dst, bytes.NewReader(bad))
			if err == nil { // a bit that means nothing
				require.Equalf(t, state(t, want), state(t, dst), "%s, byte %d", c, at)
			}
		}
	}
	dst, _ := cage(t)
	_, err = layer.Apply(ctx, dst, strings.NewReader(strings.Repeat("no archive at all ", 100)))
	require.ErrorIs(t, err, layer.ErrCorrupt)
}

// TestWindow: a layer cannot have the decompressor take any memory.
func TestWindow(t *testing.T) {
	b := bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 16 << 3, 0x19, 0, 0, 'x', 'y', 'z'}) // a window of 64 MiB, a block of three bytes
	dst, _ := cage(t)
	_, err := layer.Apply(ctx, dst, b)
	require.ErrorIs(t, err, layer.ErrCorrupt)
	require.ErrorIs(t, err, zstd.ErrWindowSizeExceeded)
}

// TestSourceFails: a fault of the source is not one of the data.
func TestSourceFails(t *testing.T) {
	for _, b := range compressed(t) {
		dst, _ := cage(t)
		_, err := layer.Apply(ctx, dst, io.MultiReader(bytes.NewReader(b[:len(b)/2]), failing{syscall.EIO}))
		require.ErrorIs(t, err, syscall.EIO)
		require.NotErrorIs(t, err, layer.ErrCorrupt)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestCancelled: a context that ends stops also where a source does not answer.
func TestCancelled(t *testing.T) {
	for _, b := range compressed(t) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer r.Close()
		defer w.Close()
		w.Write(b[:len(b)/2])
		stopped, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		dst, _ := cage(t)
		began := time.Now()
		_, err = layer.Apply(stopped, dst, r)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(began), 5*time.Second)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	dst, _ := cage(t)
	_, err := layer.Apply(stopped, dst, bytes.NewReader(archive(t, file("a", ""))))
	require.ErrorIs(t, err, context.Canceled)
	_, err = layer.Pack{}.Diff(stopped, io.Discard, dst)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, layer.Convert(stopped, dst, layer.AUFS, layer.UserOverlay), context.Canceled)
}

// TestDiskFull: a typed error that names the entry.
func TestDiskFull(t *testing.T) {
	steady(t)
	for name, e := range map[string][]entry{"large": {file("fits", "x"), file("large", strings.Repeat("x", 3<<20))}, "many": many(2000)} {
		dst := detached(t, "tmpfs", "size=1m", "nr_inodes=500")
		_, err := apply(t, layer.Unpack{}, dst, e...)
		require.ErrorIs(t, err, syscall.ENOSPC, name)
		var f *layer.Error
		require.ErrorAs(t, err, &f)
		require.NotEmpty(t, f.Entry)
	}
	var short bytes.Buffer
	dst, _ := cage(t)
	write(t, filepath.Join(dst, "a"), strings.Repeat("x", 300_000))
	_, err := layer.Pack{}.Diff(ctx, io.MultiWriter(&short, failing{syscall.ENOSPC}), dst)
	require.ErrorIs(t, err, syscall.ENOSPC)
}

func many(n int) (list []entry) {
	for i := range n {
		list = append(list, file(fmt.Sprintf("d%d/f%d", i%50, i), fmt.Sprint(i)))
	}
	return list
}

// TestMany: files are written side by side, and the last of a name wins all the same.
func TestMany(t *testing.T) {
	dst, _ := cage(t)
	list := many(3000)
	for round := range 20 {
		list = append(list, file("same", fmt.Sprint(round)), hardlink(fmt.Sprintf("link%d", round), "same"))
		if round%3 == 0 {
			list = append(list, dir("same"), file("same/x", "x"))
		}
	}
	_, err := apply(t, layer.Unpack{}, dst, list...)
	require.NoError(t, err)
	for i := range 3000 {
		require.Equal(t, fmt.Sprint(i), read(t, filepath.Join(dst, fmt.Sprintf("d%d/f%d", i%50, i))))
	}
	for round := range 20 {
		require.Equal(t, fmt.Sprint(round), read(t, filepath.Join(dst, fmt.Sprintf("link%d", round))))
	}
	require.Equal(t, "19", read(t, filepath.Join(dst, "same")))
}

// TestDeep: thousands of levels (ten where CAISSON_SLOW asks for a long run) take neither as many descriptors nor much memory, to unpack, pack, compare, replace and remove.
func TestDeep(t *testing.T) {
	levels := 2000
	if os.Getenv("CAISSON_SLOW") != "" && os.Getenv("VMRUN") == "" {
		levels = 10_000
	}
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	less := limit
	less.Cur = 400
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &less))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)

	dst, _ := cage(t)
	r, w := io.Pipe()
	go func() {
		a := tar.NewWriter(w)
		name := ""
		for range levels {
			name += "d/"
			a.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, Uid: os.Getuid(), Gid: os.Getgid(), ModTime: old})
		}
		a.WriteHeader(&tar.Header{Name: name + "file", Mode: 0o644, Uid: os.Getuid(), Gid: os.Getgid(), ModTime: old})
		a.Close()
		w.Close()
	}()
	totals, err := layer.Apply(ctx, dst, r)
	require.NoError(t, err)
	require.EqualValues(t, levels+1, totals.Entries)
	totals, err = layer.Pack{}.Diff(ctx, io.Discard, dst)
	require.NoError(t, err)
	require.EqualValues(t, levels+2, totals.Entries)
	totals, err = layer.Pack{}.Compare(ctx, io.Discard, dst, dst)
	require.NoError(t, err)
	require.Zero(t, totals.Entries)
	_, err = apply(t, layer.Unpack{}, dst, file(".wh.d", ""))
	require.NoError(t, err)
	require.Empty(t, names(t, dst))
}

func TestNoDirectory(t *testing.T) {
	_, err := layer.Apply(ctx, filepath.Join(t.TempDir(), "no"), bytes.NewReader(nil))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = layer.Apply(ctx, "/dev/null", bytes.NewReader(nil))
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = layer.Unpack{Form: 99}.Apply(ctx, t.TempDir(), bytes.NewReader(nil))
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = layer.Unpack{Devices: 99}.Apply(ctx, t.TempDir(), bytes.NewReader(nil))
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = layer.Pack{Form: 99}.Diff(ctx, io.Discard, t.TempDir())
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = layer.Pack{Compression: 99}.Diff(ctx, io.Discard, t.TempDir())
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = layer.Pack{}.Diff(ctx, io.Discard, "/no/such")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = layer.Pack{}.Compare(ctx, io.Discard, "/no/such", t.TempDir())
	require.True(t, errors.Is(err, os.ErrNotExist) && strings.Contains(err.Error(), "/no/such"))
	_, err = layer.Pack{Form: layer.AUFS}.Compare(ctx, io.Discard, "/", "/")
	require.ErrorIs(t, err, syscall.EINVAL)
}

// TestFile: a plain file is read directly, from where it is, and is not believed more than anything else.
func TestFile(t *testing.T) {
	b := archive(t, dir("./"), file("a", strings.Repeat("a", 300_000)), file("b", "b"))
	name := filepath.Join(t.TempDir(), "layer")
	require.NoError(t, os.WriteFile(name, append([]byte("before"), b...), 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	apply := func(size int) (string, error) {
		require.NoError(t, os.Truncate(name, int64(6+size)))
		_, err := f.Seek(6, io.SeekStart)
		require.NoError(t, err)
		dst, _ := cage(t)
		_, err = layer.Apply(ctx, dst, f)
		return dst, err
	}
	dst, err := apply(len(b))
	require.NoError(t, err)
	require.Equal(t, b, diff(t, layer.Pack{}, dst))
	for _, size := range []int{len(b) - 1024, len(b) - 1025, 300_000, 1536, 1024, 512, 100, 3, 0} {
		_, err := apply(size)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, size)
		require.ErrorIs(t, err, layer.ErrCorrupt, size)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	dst, _ = cage(t)
	_, err = layer.Apply(stopped, dst, f)
	require.ErrorIs(t, err, context.Canceled)
}
