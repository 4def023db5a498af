//go:build linux

package store

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxLayers = 1000 // of an image
	maxNested = 4    // indexes in indexes
	maxImages = 1000 // of an archive, and of an index
)

// wanted is an image as its archive describes it.
type wanted struct {
	image  Image
	blobs  []string // names of the layers in the source, the base first
	expect []Expect
}

// Import takes the images of a file or directory into the store, and gives them. What it is it finds out by itself: an OCI layout, as a directory or archive; an archive
// of docker save; or the tarball of a root file system, an image of one layer that is called by the file's name. Archives may be compressed.
//
// Of an image for several platforms the one of this machine is taken. Layers that are known are not read; the others are unpacked side by side. All digests that an
// archive has are verified.
func (s *Store) Import(ctx context.Context, path string) ([]Image, error) {
	images, err := s.importFrom(ctx, path)
	return images, fail("import", path, err)
}

func (s *Store) importFrom(ctx context.Context, path string) ([]Image, error) {
	src, err := s.openSource(ctx, path)
	if isTooMany(err) {
		return s.importRootfs(ctx, path)
	}
	if err != nil {
		return nil, err
	}
	defer src.Close()
	var list []wanted
	switch {
	case has(src, v1.ImageIndexFile) && has(src, v1.ImageLayoutFile):
		list, err = readLayout(src)
	case has(src, "manifest.json"):
		list, err = readDocker(src)
	default:
		if _, isDir := src.(directory); isDir {
			return nil, &MissingError{filepath.Join(path, v1.ImageIndexFile)}
		}
		return s.importRootfs(ctx, path)
	}
	if err != nil {
		return nil, err
	}
	var images []Image
	for _, w := range list {
		if err := s.importOne(ctx, src, &w); err != nil {
			return images, fail("import", w.image.Name, err)
		}
		images = append(images, w.image)
	}
	return images, nil
}

// importOne adds the layers of an image side by side. The first failure stops the others.
func (s *Store) importOne(ctx context.Context, src source, w *wanted) error {
	lease, err := s.Reserve(ctx, w.image.Layers...)
	if err != nil {
		return err
	}
	defer lease.Release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	places := make(chan struct{}, min(max(2, runtime.GOMAXPROCS(0)), 4))
	for i, blob := range w.blobs {
		places <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		workers.Go(func() {
			defer func() { <-places }()
			_, err := s.Add(ctx, func() (io.ReadCloser, error) {
				r, size, err := src.open(blob)
				if err == nil && w.expect[i].Size > 0 && size != w.expect[i].Size {
					r.Close()
					return nil, &MismatchError{"size", sizeText(w.expect[i].Size), sizeText(size)}
				}
				return r, err
			}, w.expect[i])
			if err != nil {
				cancel(err)
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return s.tag(ctx, w.image)
}

// importRootfs makes an image of one layer.
func (s *Store) importRootfs(ctx context.Context, path string) ([]Image, error) {
	l, err := s.Add(ctx, func() (io.ReadCloser, error) { return os.Open(path) }, Expect{})
	if err != nil {
		return nil, err
	}
	i := Image{Name: filepath.Base(path), Layers: []digest.Digest{l.DiffID}, Config: v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}}
	return []Image{i}, s.tag(ctx, i)
}
