//go:build linux

package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a chain of layers and what to run in it. As long as it is in the store, its layers are.
type Image struct {
	Name   string          // "docker.io/library/python:3.12", or whatever the archive calls it
	Layers []digest.Digest // the base first: DiffIDs
	Config v1.Image        // entry point, environment, history; the platform
}

// maxName is the longest name of an image, in bytes.
const maxName = 1024

// imageFile is the place of an image. A name may have any characters, so it is not the file's.
func (s *Store) imageFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	return s.at(imagesDir, hex.EncodeToString(sum[:]))
}

// Tag puts an image into the store, in place of one that has the name. All its layers must be there: a [*MissingError] names the first that is not.
func (s *Store) Tag(ctx context.Context, i Image) error { return fail("tag", i.Name, s.tag(ctx, i)) }

func (s *Store) tag(ctx context.Context, i Image) error {
	if i.Name == "" || len(i.Name) > maxName || strings.ContainsFunc(i.Name, func(r rune) bool { return r < ' ' }) {
		return malformed("%.100q is no name of an image", i.Name)
	}
	i.Config.RootFS = v1.RootFS{Type: "layers", DiffIDs: i.Layers}
	b, err := json.Marshal(i)
	if err != nil {
		return err
	}
	t, err := s.temporary(ctx)
	if err != nil {
		return err
	}
	defer t.remove()
	file := filepath.Join(t.path, "image")
	if err := writeFile(file, b); err != nil {
		return err
	}
	shared, err := s.lock(ctx, false, lockFile)
	if err != nil {
		return err
	}
	defer shared.Close()
	for _, id := range i.Layers {
		if _, err := s.layer(id); err != nil {
			return err
		}
	}
	if err := os.Rename(file, s.imageFile(i.Name)); err != nil {
		return err
	}
	return syncDir(s.at(imagesDir))
}

// Image gives an image by its name.
func (s *Store) Image(name string) (Image, error) {
	i, err := readImage(s.imageFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		err = &MissingError{name}
	}
	return i, fail("find", name, err)
}

func readImage(file string) (i Image, err error) {
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &i)
	}
	return i, err
}

// Images gives all images, in the order of their names.
func (s *Store) Images() ([]Image, error) {
	entries, err := os.ReadDir(s.at(imagesDir))
	if err != nil {
		return nil, fail("list", "", err)
	}
	var list []Image
	for _, e := range entries {
		i, err := readImage(s.at(imagesDir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fail("list", e.Name(), err)
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Untag takes an image out of the store. Its layers stay until Collect.
func (s *Store) Untag(name string) error {
	err := os.Remove(s.imageFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		err = &MissingError{name}
	}
	if err == nil {
		err = syncDir(s.at(imagesDir))
	}
	return fail("untag", name, err)
}
