//go:build linux

package store

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// Export writes images as one archive, which is both an OCI layout and what docker load reads; each layer once. It gives the images as they have been written.
//
// Layers are made again from what is unpacked. Those that package layer has made come out with the digest that they had. Others may have another one, since an archive can be written in many
// ways: then the image that is given, and written, has the new digests.
func (s *Store) Export(ctx context.Context, w io.Writer, c layer.Compression, names ...string) ([]Image, error) {
	t := tar.NewWriter(w)
	images, err := s.export(ctx, &tarSink{w: t}, c, names)
	if err == nil {
		err = t.Close()
	}
	return images, fail("export", "", err)
}

// ExportDir is Export into a directory, as an OCI layout. The directory is made, and must not have one in it.
func (s *Store) ExportDir(ctx context.Context, dir string, c layer.Compression, names ...string) ([]Image, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fail("export", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fail("export", dir, err)
	}
	defer root.Close()
	images, err := s.export(ctx, &dirSink{root}, c, names)
	return images, fail("export", dir, err)
}

// sink takes the files of an image.
type sink interface {
	put(name string, size int64, r io.Reader) error
}

type tarSink struct{ w *tar.Writer }

func (s *tarSink) put(name string, size int64, r io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := s.w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(s.w, r)
	return err
}

type dirSink struct{ root *os.Root }

func (s *dirSink) put(name string, size int64, r io.Reader) error {
	if err := s.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// exporter remembers what has been written.
type exporter struct {
	*Store
	sink        sink
	compression layer.Compression
	layers      map[digest.Digest]written // by the DiffID in the store
	blobs       map[digest.Digest]bool
	index       v1.Index
	docker      []dockerImage
}

type written struct {
	diffID digest.Digest
	v1.Descriptor
}

func (s *Store) export(ctx context.Context, to sink, c layer.Compression, names []string) ([]Image, error) {
	if len(names) == 0 || c > layer.Zstd {
		return nil, malformed("nothing to export")
	}
	e := &exporter{Store: s, sink: to, compression: c, layers: map[digest.Digest]written{}, blobs: map[digest.Digest]bool{}}
	e.index = v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	if err := e.json(v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion}); err != nil {
		return nil, err
	}
	var images []Image
	for _, name := range names {
		i, err := s.Image(name)
		if err == nil {
			i, err = e.image(ctx, i)
		}
		if err != nil {
			return nil, fail("export", name, err)
		}
		images = append(images, i)
	}
	if err := e.json("manifest.json", e.docker); err != nil {
		return nil, err
	}
	return images, e.json(v1.ImageIndexFile, e.index)
}

func (e *exporter) image(ctx context.Context, i Image) (Image, error) {
	lease, err := e.Lease(ctx, i.Layers...)
	if err != nil {
		return i, err
	}
	defer lease.Release()
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
	d := dockerImage{RepoTags: []string{i.Name}, Layers: []string{}}
	ids := []digest.Digest{}
	for n, id := range i.Layers {
		w, err := e.layer(ctx, id, lease.layers[len(i.Layers)-1-n])
		if err != nil {
			return i, err
		}
		ids = append(ids, w.diffID)
		m.Layers = append(m.Layers, w.Descriptor)
		d.Layers = append(d.Layers, blobName(w.Digest))
	}
	i.Layers, i.Config.RootFS = ids, v1.RootFS{Type: "layers", DiffIDs: ids}
	if m.Config, err = e.blob(i.Config, v1.MediaTypeImageConfig); err != nil {
		return i, err
	}
	top, err := e.blob(m, v1.MediaTypeImageManifest)
	if err != nil {
		return i, err
	}
	top.Annotations = map[string]string{refName: i.Name}
	d.Config = blobName(m.Config.Digest)
	e.index.Manifests = append(e.index.Manifests, top)
	e.docker = append(e.docker, d)
	return i, nil
}

// layer packs a layer and writes it, once.
func (e *exporter) layer(ctx context.Context, id digest.Digest, tree string) (written, error) {
	if w, ok := e.layers[id]; ok {
		return w, nil
	}
	t, err := e.temporary(ctx)
	if err != nil {
		return written{}, err
	}
	defer t.remove()
	f, err := os.OpenFile(filepath.Join(t.path, "layer"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return written{}, err
	}
	defer f.Close()
	w, err := e.pack(ctx, f, tree)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = e.put(w.Digest, w.Size, f)
	}
	e.layers[id] = w
	return w, err
}

// pack compresses a layer into a file: its size must be known before it can be put into an archive.
func (e *exporter) pack(ctx context.Context, f *os.File, tree string) (written, error) {
	blob, plain := digest.SHA256.Hash(), digest.SHA256.Hash()
	z, err := e.compression.Compress(io.MultiWriter(f, blob))
	if err != nil {
		return written{}, err
	}
	if _, err := (layer.Pack{Form: e.form}).Diff(ctx, io.MultiWriter(z, plain), tree); err != nil {
		return written{}, err
	}
	if err := z.Close(); err != nil {
		return written{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	media := map[layer.Compression]string{layer.Uncompressed: v1.MediaTypeImageLayer, layer.Gzip: v1.MediaTypeImageLayerGzip, layer.Zstd: v1.MediaTypeImageLayerZstd}
	return written{digest.NewDigest(digest.SHA256, plain),
		v1.Descriptor{MediaType: media[e.compression], Digest: digest.NewDigest(digest.SHA256, blob), Size: size}}, err
}

func (e *exporter) put(id digest.Digest, size int64, r io.Reader) error {
	if e.blobs[id] {
		return nil
	}
	e.blobs[id] = true
	return e.sink.put(blobName(id), size, r)
}

func (e *exporter) blob(v any, media string) (v1.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d := v1.Descriptor{MediaType: media, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, e.put(d.Digest, d.Size, bytes.NewReader(b))
}

func (e *exporter) json(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return e.sink.put(name, int64(len(b)), bytes.NewReader(b))
}
