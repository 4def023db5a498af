package store_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/overlay/layer"
	"github.com/caisson-dev/caisson/overlay/store"
)

var (
	ctx  = context.Background()
	root = os.Geteuid() == 0
)

// pack makes an archive of files: NAME=CONTENTS, NAME/ for a directory.
func pack(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, Uid: os.Getuid(), Gid: os.Getgid(), ModTime: time.Unix(1e9, 0), Format: tar.FormatPAX})
	for _, f := range files {
		name, body, _ := strings.Cut(f, "=")
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body)), Uid: os.Getuid(), Gid: os.Getgid(), ModTime: time.Unix(1e9, 0), Format: tar.FormatPAX}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if strings.Contains(name, ".wh.") {
			h.Mode, h.Uid, h.Gid, h.ModTime = 0, 0, 0, time.Unix(0, 0)
		}
		require.NoError(t, w.WriteHeader(h))
		io.WriteString(w, body)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func compress(t testing.TB, c layer.Compression, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := c.Compress(&out)
	require.NoError(t, err)
	w.Write(b)
	require.NoError(t, w.Close())
	return out.Bytes()
}

// reading gives what opens bytes.
func reading(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// never is what must not be opened.
func never() (io.ReadCloser, error) { return nil, errors.New("read although it is known") }

func open(t testing.TB, d store.Dir) *store.Store {
	t.Helper()
	if d.Path == "" {
		d.Path = filepath.Join(t.TempDir(), "store")
	}
	d.Unprivileged = !root
	s, err := d.Open()
	require.NoError(t, err)
	return s
}

func add(t testing.TB, s *store.Store, b []byte) store.Layer {
	t.Helper()
	l, err := s.Add(ctx, reading(b), store.Expect{DiffID: digest.FromBytes(b)})
	require.NoError(t, err)
	return l
}

// clean fails if anything is left half done.
func clean(t testing.TB, s *store.Store) {
	t.Helper()
	for _, name := range []string{"tmp", "leases"} {
		list, err := os.ReadDir(filepath.Join(s.Path, name))
		require.NoError(t, err)
		require.Empty(t, list, name)
	}
}

func ids(layers []store.Layer) []string {
	list := []string{}
	for _, l := range layers {
		list = append(list, fmt.Sprint(l.DiffID))
	}
	return list
}
