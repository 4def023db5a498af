package store_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
	"github.com/caisson-dev/caisson/overlay/store"
)

// two puts two images into a store, which have their base in common.
func two(t *testing.T, s *store.Store) (names []string) {
	t.Helper()
	base := add(t, s, pack(t, "bin/", "bin/sh=elf", "etc/", "etc/old=x"))
	for _, name := range []string{"example.org/one:1", "example.org/two:2"} {
		top := add(t, s, pack(t, "etc/", "etc/.wh.old", "name="+name))
		i := store.Image{Name: name, Layers: []digest.Digest{base.DiffID, top.DiffID}}
		i.Config.OS, i.Config.Architecture, i.Config.Config.Cmd = "linux", runtime.GOARCH, []string{"/bin/sh", name}
		require.NoError(t, s.Tag(ctx, i))
		names = append(names, name)
	}
	return names
}

func save(t *testing.T, name string, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, b, 0o644))
	return file
}

// TestExportImport: what one store exports another one takes, in each form and compression, with the same digests; and what is known is not unpacked again.
func TestExportImport(t *testing.T) {
	s := open(t, store.Dir{})
	names := two(t, s)
	want, err := s.Images()
	require.NoError(t, err)
	for _, c := range []layer.Compression{layer.Uncompressed, layer.Gzip, layer.Zstd} {
		var b, again bytes.Buffer
		exported, err := s.Export(ctx, &b, c, names...)
		require.NoError(t, err)
		require.Equal(t, want, exported)
		_, err = s.Export(ctx, &again, c, names...)
		require.NoError(t, err)
		require.True(t, bytes.Equal(b.Bytes(), again.Bytes()), "the same images give the same bytes")
		dir := filepath.Join(t.TempDir(), "layout")
		_, err = s.ExportDir(ctx, dir, c, names...)
		require.NoError(t, err)
		for _, path := range []string{save(t, "a.tar", b.Bytes()), save(t, "a.tar.zst", compress(t, layer.Zstd, b.Bytes())), dir, save(t, "docker.tar", dockerSave(t, b.Bytes()))} {
			known := 0
			to := open(t, store.Dir{Progress: func(p store.Progress) {
				if p.Known {
					known++
				}
			}})
			images, err := to.Import(ctx, path)
			require.NoError(t, err)
			require.Equal(t, want, images)
			require.Equal(t, 1, known, "the base of the second image")
			layers, err := to.Layers()
			require.NoError(t, err)
			require.Len(t, layers, 3)
			clean(t, to)
			_, err = to.Import(ctx, path)
			require.NoError(t, err)
			require.Equal(t, 5, known)
		}
	}
	_, err = s.Export(ctx, io.Discard, layer.Gzip, "no")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.Export(ctx, io.Discard, layer.Gzip)
	require.ErrorIs(t, err, syscall.EINVAL)
	clean(t, s)
}

// dockerSave makes of an archive one as old versions of docker save write it: only manifest.json, and a layer that comes a second time is a link.
func dockerSave(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		body, err := io.ReadAll(r)
		require.NoError(t, err)
		switch h.Name {
		case v1.ImageIndexFile, v1.ImageLayoutFile:
			continue
		case "manifest.json":
			body = bytes.Replace(body, []byte(`"Layers":["blobs/sha256/`), []byte(`"Layers":["links/`), 1)
			h.Size = int64(len(body))
		default:
			link := filepath.Base(h.Name)
			require.NoError(t, w.WriteHeader(&tar.Header{Name: "links/" + link, Typeflag: tar.TypeSymlink, Linkname: "../blobs/sha256/" + link}))
		}
		require.NoError(t, w.WriteHeader(h))
		w.Write(body)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestImportRootfs(t *testing.T) {
	s := open(t, store.Dir{})
	b := pack(t, "etc/", "etc/passwd=root")
	for _, c := range []layer.Compression{layer.Uncompressed, layer.Gzip, layer.Zstd} {
		images, err := s.Import(ctx, save(t, "debian.tar", compress(t, c, b)))
		require.NoError(t, err)
		require.Len(t, images, 1)
		require.Equal(t, "debian.tar", images[0].Name)
		require.Equal(t, []digest.Digest{digest.FromBytes(b)}, images[0].Layers)
	}
	clean(t, s)
}

// layout is an OCI layout that can be spoiled.
type layout struct {
	dir      string
	manifest v1.Manifest
	config   v1.Image
	index    v1.Index
}

func newLayout(t *testing.T) *layout {
	t.Helper()
	l := &layout{dir: t.TempDir()}
	b := pack(t, "x=1")
	l.config = v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(b)}}}
	l.manifest = v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{l.blob(t, v1.MediaTypeImageLayer, b)}}
	l.write(t, v1.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return l
}

func (l *layout) write(t *testing.T, name string, b []byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(l.dir, name)), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(l.dir, name), b, 0o644))
}

func (l *layout) blob(t *testing.T, media string, v any) v1.Descriptor {
	t.Helper()
	b, ok := v.([]byte)
	if !ok {
		var err error
		b, err = json.Marshal(v)
		require.NoError(t, err)
	}
	d := v1.Descriptor{MediaType: media, Digest: digest.FromBytes(b), Size: int64(len(b))}
	l.write(t, "blobs/sha256/"+d.Digest.Encoded(), b)
	return d
}

// finish writes what depends on the rest.
func (l *layout) finish(t *testing.T) {
	t.Helper()
	if l.index.Manifests == nil {
		l.manifest.Config = l.blob(t, v1.MediaTypeImageConfig, l.config)
		l.index.Manifests = []v1.Descriptor{l.blob(t, v1.MediaTypeImageManifest, l.manifest)}
	}
	b, err := json.Marshal(l.index)
	require.NoError(t, err)
	l.write(t, v1.ImageIndexFile, b)
}

// TestImportHostile: an image that is not what it says, or is made to hurt.
func TestImportHostile(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, l *layout)
		err   error
	}{
		"none":            {func(*testing.T, *layout) {}, nil},
		"diff id":         {func(_ *testing.T, l *layout) { l.config.RootFS.DiffIDs[0] = digest.FromString("x") }, syscall.EBADMSG},
		"diff id as path": {func(_ *testing.T, l *layout) { l.config.RootFS.DiffIDs[0] = "sha256:../../../../etc" }, syscall.EINVAL},
		"layer digest":    {func(_ *testing.T, l *layout) { l.manifest.Layers[0].Digest = "sha256:../../x" }, syscall.EINVAL},
		"layer missing":   {func(_ *testing.T, l *layout) { l.manifest.Layers[0].Digest = digest.FromString("x") }, fs.ErrNotExist},
		"layer size":      {func(_ *testing.T, l *layout) { l.manifest.Layers[0].Size++ }, syscall.EBADMSG},
		"negative size":   {func(_ *testing.T, l *layout) { l.manifest.Layers[0].Size = -1 }, syscall.EINVAL},
		"fewer layers":    {func(_ *testing.T, l *layout) { l.manifest.Layers = nil }, syscall.EINVAL},
		"windows":         {func(_ *testing.T, l *layout) { l.config.OS = "windows" }, syscall.EINVAL},
		"no such version": {func(t *testing.T, l *layout) { l.write(t, v1.ImageLayoutFile, []byte(`{"imageLayoutVersion":"2"}`)) }, syscall.EINVAL},
		"no json":         {func(t *testing.T, l *layout) { l.write(t, v1.ImageLayoutFile, []byte(`{`)) }, syscall.EINVAL},
		"too much text":   {func(t *testing.T, l *layout) { l.write(t, v1.ImageLayoutFile, make([]byte, 17<<20)) }, syscall.EINVAL},
		"no images":       {func(_ *testing.T, l *layout) { l.index.Manifests = []v1.Descriptor{} }, syscall.EINVAL},
		"for another machine": {func(t *testing.T, l *layout) {
			l.finish(t)
			l.index.Manifests[0].Platform = &v1.Platform{OS: "linux", Architecture: "none"}
		}, syscall.EINVAL},
		"manifest changed": {func(t *testing.T, l *layout) {
			l.finish(t)
			l.write(t, "blobs/sha256/"+l.index.Manifests[0].Digest.Encoded(), []byte(`{"config":{}}`))
		}, syscall.EBADMSG},
		"indexes in indexes": {func(t *testing.T, l *layout) {
			l.finish(t)
			for range 6 {
				l.index.Manifests = []v1.Descriptor{l.blob(t, v1.MediaTypeImageIndex, l.index)}
			}
		}, syscall.EINVAL},
		"index that fans out": {func(t *testing.T, l *layout) {
			l.index.Manifests = []v1.Descriptor{}
			for range 3 {
				d := l.blob(t, v1.MediaTypeImageIndex, l.index)
				l.index.Manifests = nil
				for range 500 {
					l.index.Manifests = append(l.index.Manifests, d)
				}
			}
		}, syscall.EINVAL},
		"fifo": {func(t *testing.T, l *layout) {
			l.finish(t)
			name := filepath.Join(l.dir, "blobs/sha256", l.manifest.Layers[0].Digest.Encoded())
			require.NoError(t, os.Remove(name))
			require.NoError(t, unix.Mkfifo(name, 0o644))
		}, syscall.EINVAL},
		"link out": {func(t *testing.T, l *layout) {
			l.finish(t)
			name := filepath.Join(l.dir, "blobs/sha256", l.manifest.Layers[0].Digest.Encoded())
			require.NoError(t, os.Remove(name))
			require.NoError(t, os.Symlink("/etc/passwd", name))
		}, errAny},
		"hostile name": {func(t *testing.T, l *layout) {
			l.finish(t)
			l.index.Manifests[0].Annotations = map[string]string{"org.opencontainers.image.ref.name": "a\x1b[2Jb"}
		}, syscall.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t)
			c.spoil(t, l)
			l.finish(t)
			s := open(t, store.Dir{})
			_, err := s.Import(ctx, l.dir)
			switch c.err {
			case nil:
				require.NoError(t, err)
			case errAny:
				require.Error(t, err)
			default:
				require.ErrorIs(t, err, c.err)
			}
			if err != nil {
				require.NotContains(t, err.Error(), "\x1b")
				images, err := s.Images()
				require.NoError(t, err)
				require.Empty(t, images)
			}
			clean(t, s)
		})
	}
}

var errAny = fmt.Errorf("any")

func TestImportNested(t *testing.T) {
	l := newLayout(t)
	l.finish(t)
	inner := l.index
	inner.Manifests = append([]v1.Descriptor{{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("other"), Size: 1, Platform: &v1.Platform{OS: "linux", Architecture: "s390"}}}, inner.Manifests...)
	outer := l.blob(t, v1.MediaTypeImageIndex, inner)
	outer.Annotations = map[string]string{"io.containerd.image.name": "example.org/nested:1"}
	l.index.Manifests = []v1.Descriptor{outer}
	l.finish(t)
	images, err := open(t, store.Dir{}).Import(ctx, l.dir)
	require.NoError(t, err)
	require.Equal(t, "example.org/nested:1", images[0].Name)
}

func TestImportErrors(t *testing.T) {
	s := open(t, store.Dir{})
	_, err := s.Import(ctx, "/no/such")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.Import(ctx, t.TempDir())
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.Import(ctx, "/dev/null")
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = s.Import(ctx, save(t, "x", []byte("no archive")))
	require.Error(t, err)
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	_, err = s.Import(ctx, fifo)
	require.ErrorIs(t, err, syscall.EINVAL)
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	l := newLayout(t)
	l.finish(t)
	_, err = s.Import(stopped, l.dir)
	require.ErrorIs(t, err, context.Canceled)
	clean(t, s)
}

// TestPeersAgree: umoci unpacks what we export, and gets the tree that we have.
func TestPeersAgree(t *testing.T) {
	umoci, err := exec.LookPath("umoci")
	if err != nil {
		t.Skip("no umoci on this machine")
	}
	s := open(t, store.Dir{})
	two(t, s)
	dir := filepath.Join(t.TempDir(), "layout")
	require.NoError(t, s.Tag(ctx, func() store.Image { i, _ := s.Image("example.org/one:1"); i.Name = "one"; return i }()))
	_, err = s.ExportDir(ctx, dir, layer.Gzip, "one")
	require.NoError(t, err)
	bundle := filepath.Join(t.TempDir(), "bundle")
	out, err := exec.Command(umoci, "unpack", "--rootless", "--image", dir+":one", bundle).CombinedOutput()
	require.NoError(t, err, string(out))
	text, err := os.ReadFile(filepath.Join(bundle, "rootfs/name"))
	require.NoError(t, err)
	require.Equal(t, "example.org/one:1", string(text))
	require.NoFileExists(t, filepath.Join(bundle, "rootfs/etc/old"))
	require.True(t, strings.HasPrefix(string(text), "example"))
}

// FuzzImport reads anything as an image: an error of its type, or images whose layers are there, and nothing left over.
func FuzzImport(f *testing.F) {
	f.Add([]byte("x"))
	f.Add(pack(f, "manifest.json=[{\"Config\":\"c\",\"Layers\":[\"l\"]}]", "c={\"rootfs\":{\"diff_ids\":[\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]}}", "l=x"))
	f.Add(pack(f, "oci-layout={\"imageLayoutVersion\":\"1.0.0\"}", "index.json={\"manifests\":[]}"))
	f.Add(pack(f, "oci-layout={\"imageLayoutVersion\":\"1.0.0\"}", "index.json={\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"size\":0}]}",
		"blobs/sha256/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855="))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		s := open(t, store.Dir{Devices: layer.SkipDevices, Limits: layer.Limits{Bytes: 8 << 20, Entries: 1000, Depth: 50}})
		images, err := s.Import(ctx, save(t, "fuzz", b))
		if err != nil {
			var e *store.Error
			require.ErrorAs(t, err, &e)
		}
		for _, i := range images {
			lease, err := s.Lease(ctx, i.Layers...)
			require.NoError(t, err)
			require.NoError(t, lease.Release())
		}
		clean(t, s)
	})
}
