//go:build linux

package store

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// users gives who needs which layer: leases that are held, and images. The caller holds the store's lock exclusively; leases of processes that have ended are removed.
func (s *Store) users() (map[digest.Digest]string, error) {
	used := map[digest.Digest]string{}
	images, err := s.Images()
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		for _, id := range i.Layers {
			used[id] = "image " + strconv.Quote(i.Name)
		}
	}
	leases, err := os.ReadDir(s.at(leasesDir))
	if err != nil {
		return nil, err
	}
	for _, e := range leases {
		name := s.at(leasesDir, e.Name())
		if f, ok := free(name); ok {
			os.Remove(name)
			if f != nil {
				f.Close()
			}
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for id := range strings.FieldsSeq(string(b)) {
			used[digest.Digest(id)] = "a lease"
		}
	}
	return used, nil
}

// Delete removes a layer. One that a lease or an image needs is not removed: an [*InUseError] says who needs it.
func (s *Store) Delete(ctx context.Context, id digest.Digest) error {
	dir, err := s.layerDir(id)
	if err != nil {
		return fail("delete", string(id), err)
	}
	lock, err := s.lock(ctx, true, lockFile)
	if err != nil {
		return fail("delete", string(id), err)
	}
	defer lock.Close()
	used, err := s.users()
	if err == nil && used[id] != "" {
		err = &InUseError{id, used[id]}
	}
	if err == nil {
		_, err = s.layer(id)
	}
	var gone string
	if err == nil {
		gone, err = s.moveAway(dir)
	}
	lock.Close()
	if err == nil {
		err = removeTree(gone)
	}
	return fail("delete", string(id), err)
}

// moveAway takes a layer out of its place at once; to remove it takes longer.
func (s *Store) moveAway(dir string) (string, error) {
	gone := s.at(tmpDir, "removed-"+rand.Text())
	if err := os.Rename(dir, gone); err != nil {
		return "", err
	}
	return gone, syncDir(s.at(layersDir))
}

func removeTree(path string) error { return layer.Remove(path) }

// Collect removes all layers that no image and no lease needs, and what processes that have ended have left half done, and gives the layers.
func (s *Store) Collect(ctx context.Context) ([]Layer, error) {
	removed, err := s.collect(ctx)
	return removed, fail("collect", "", err)
}

func (s *Store) collect(ctx context.Context) (removed []Layer, err error) {
	lock, err := s.lock(ctx, true, lockFile)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	used, err := s.users()
	if err != nil {
		return nil, err
	}
	layers, err := s.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		if used[l.DiffID] != "" {
			continue
		}
		dir, err := s.layerDir(l.DiffID)
		if err == nil {
			_, err = s.moveAway(dir)
		}
		if err != nil {
			return removed, err
		}
		removed = append(removed, l)
	}
	left, err := s.leftOver()
	lock.Close() // names are gone; the rest disturbs nobody
	for _, path := range left {
		if e := removeTree(path); err == nil {
			err = e
		}
		os.Remove(path + ".lock")
		if e := ctx.Err(); e != nil {
			return removed, e
		}
	}
	return removed, err
}

// leftOver gives what nobody works on any more.
func (s *Store) leftOver() (list []string, err error) {
	entries, err := os.ReadDir(s.at(tmpDir))
	for _, e := range entries {
		path := s.at(tmpDir, strings.TrimSuffix(e.Name(), ".lock"))
		f, ok := free(path + ".lock")
		if f != nil {
			f.Close()
		}
		if ok {
			list = append(list, path)
		}
	}
	return list, err
}

// Usage is what layers take on disk.
type Usage struct {
	Own    int64 // bytes of layers that no image but this one has
	Shared int64 // bytes of layers that others have, too
}

// Usage gives what an image of the store takes on disk, and what of it others share.
func (s *Store) Usage(name string) (u Usage, err error) {
	images, err := s.Images()
	if err != nil {
		return u, err
	}
	others, own := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	found := false
	for _, i := range images {
		for _, id := range i.Layers {
			if i.Name == name {
				own[id] = true
			} else {
				others[id] = true
			}
		}
		found = found || i.Name == name
	}
	if !found {
		return u, fail("measure", name, &MissingError{name})
	}
	for id := range own {
		l, err := s.layer(id)
		if err != nil {
			return u, fail("measure", name, err)
		}
		if others[id] {
			u.Shared += l.Bytes
		} else {
			u.Own += l.Bytes
		}
	}
	return u, nil
}
