package layer_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// headers are such as tools write.
func headers(t testing.TB) (all [][]byte) {
	t.Helper()
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatGNU, tar.FormatPAX} {
		for _, h := range []*tar.Header{
			{Name: "a", Mode: 0o4755, Uid: 1, Gid: 2, Size: 10, ModTime: time.Unix(1e9, 0), Uname: "root", Gname: "wheel"},
			{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: strings.Repeat("n", 100), Mode: 0o644, Size: 1 << 30},
			{Name: strings.Repeat("n", 90) + "/" + strings.Repeat("m", 90)},
			{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a"},
			{Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
			{Name: "big", Uid: 1 << 30, Size: 1 << 40},
		} {
			h.Format = format
			var b bytes.Buffer
			if tar.NewWriter(&b).WriteHeader(h) == nil {
				all = append(all, b.Bytes()[:512])
			}
		}
	}
	return all
}

// agree: what is read here archive/tar reads in the same way.
func agree(t testing.TB, b []byte) bool {
	t.Helper()
	var h tar.Header
	if !layer.PlainHeader(b, &h) {
		return false
	}
	want, err := tar.NewReader(bytes.NewReader(b)).Next()
	require.NoError(t, err, "%q", b)
	require.Equal(t, []any{want.Typeflag, want.Name, want.Mode, want.Uid, want.Gid, want.Size, want.ModTime, want.Linkname, len(want.PAXRecords)},
		[]any{h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime, "", 0}, "%q", b)
	return true
}

func sum(b []byte) {
	copy(b[148:156], "        ")
	n := 0
	for _, c := range b {
		n += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", n))
}

func TestPlainHeaders(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	read := 0
	for _, b := range headers(t) {
		plain := agree(t, b)
		require.Equal(t, (b[156] == '0' || b[156] == '5') && b[124]&0x80 == 0 && b[108]&0x80 == 0 && b[345] == 0, plain, "%q", b)
		for range 3000 {
			c := bytes.Clone(b)
			for range 1 + r.IntN(2) {
				c[r.IntN(512)] = "\x00 0178/.\xffx"[r.IntN(10)]
			}
			if r.IntN(4) > 0 {
				sum(c)
			}
			if agree(t, c) {
				read++
			}
		}
	}
	require.Greater(t, read, 3000)
}

// TestPlainHeadersOfTar: for GNU tar's own archives archive/tar is not needed.
func TestPlainHeadersOfTar(t *testing.T) {
	program, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("needs tar")
	}
	dir := t.TempDir()
	write(t, dir+"/file", "contents")
	for _, format := range []string{"gnu", "ustar"} {
		out, err := exec.Command(program, "--format="+format, "-C", dir, "-cf-", "file").Output()
		require.NoError(t, err)
		require.True(t, agree(t, out[:512]), format)
	}
}

func FuzzPlainHeader(f *testing.F) {
	for _, b := range headers(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 512 {
			return
		}
		b = bytes.Clone(b[:512])
		agree(t, b)
		sum(b)
		agree(t, b)
	})
}

// TestReadersAgree: an archive is the same from a file, in pieces and compressed, with plain headers and others between each other.
func TestReadersAgree(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, size := range []int64{0, 1, 511, 512, 513, 32 << 10, 32<<10 + 1, 128<<10 - 1, 128 << 10, 128<<10 + 1, 300<<10 + 7, 5} {
		for _, h := range []*tar.Header{
			{Name: fmt.Sprintf("d%d/", i), Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: fmt.Sprintf("d%d/plain", i), Mode: 0o644, Size: size},
			{Name: fmt.Sprintf("d%d/%s", i, strings.Repeat("long", 40)), Mode: 0o644, Size: size},
			{Name: fmt.Sprintf("d%d/fine", i), Mode: 0o644, Size: size, ModTime: time.Unix(1, 5), Format: tar.FormatPAX},
			{Name: fmt.Sprintf("d%d/link", i), Typeflag: tar.TypeLink, Linkname: fmt.Sprintf("d%d/plain", i)},
			{Name: fmt.Sprintf("d%d/symbolic", i), Typeflag: tar.TypeSymlink, Linkname: "x"},
			{Name: "all", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}},
			{Name: fmt.Sprintf("d%d/last", i), Mode: 0o600, Size: size},
		} {
			require.NoError(t, w.WriteHeader(h))
			_, err := w.Write(bytes.Repeat([]byte{byte('a' + i)}, int(h.Size)))
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	name := t.TempDir() + "/archive"
	write(t, name, b.String())
	file, err := os.Open(name)
	require.NoError(t, err)
	defer file.Close()
	var z bytes.Buffer
	zw, err := layer.Gzip.Compress(&z)
	require.NoError(t, err)
	zw.Write(b.Bytes())
	require.NoError(t, zw.Close())
	var first string
	for name, r := range map[string]io.Reader{"file": file, "memory": bytes.NewReader(b.Bytes()), "pieces": iotest.HalfReader(bytes.NewReader(b.Bytes())), "gzip": &z} {
		dst, _ := cage(t)
		totals, err := layer.Unpack{Unprivileged: true}.Apply(ctx, dst, r)
		require.NoError(t, err, name)
		require.EqualValues(t, 96, totals.Entries)
		h := sha256.New()
		_, err = layer.Pack{}.Diff(ctx, h, dst+"/d1")
		require.NoError(t, err)
		for i := range 12 {
			for _, n := range []string{"plain", "fine", "last", "link", strings.Repeat("long", 40)} {
				c, err := os.ReadFile(fmt.Sprintf("%s/d%d/%s", dst, i, n))
				require.NoError(t, err)
				h.Write(c)
			}
		}
		if got := fmt.Sprintf("%x", h.Sum(nil)); first == "" {
			first = got
		} else {
			require.Equal(t, first, got, name)
		}
	}
	// Cut off anywhere, it is damaged, and never taken for the whole.
	for _, n := range []int{1, 511, 512, 700, 1024, 1536, 5000, 100_000, b.Len() - 1024, b.Len() - 1025, b.Len() - 1537} {
		for _, r := range []io.Reader{bytes.NewReader(b.Bytes()[:n]), cut(t, name, n)} {
			dst, _ := cage(t)
			_, err := layer.Unpack{Unprivileged: true}.Apply(ctx, dst, r)
			require.ErrorIs(t, err, layer.ErrCorrupt, n)
		}
	}
}

// cut gives a file with the beginning of another.
func cut(t *testing.T, name string, n int) *os.File {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	write(t, name+".cut", string(b[:n]))
	f, err := os.Open(name + ".cut")
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}
