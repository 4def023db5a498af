//go:build linux

package store

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Lease holds layers: as long as it does nobody removes them, from whichever process. It ends with Release, or with the process.
type Lease struct {
	lock   *os.File
	path   string
	layers []string
}

// Lease holds the layers of a chain, the base first, as the configuration of an image has them. One that is not there is a [*MissingError] that names it.
func (s *Store) Lease(ctx context.Context, chain ...digest.Digest) (*Lease, error) {
	l, err := s.hold(ctx, chain, true)
	return l, fail("lease", "", err)
}

// Reserve is Lease for layers that need not be there yet: those that are about to be added.
func (s *Store) Reserve(ctx context.Context, chain ...digest.Digest) (*Lease, error) {
	l, err := s.hold(ctx, chain, false)
	return l, fail("reserve", "", err)
}

// hold writes the lease down while nobody removes anything. From then on whoever removes finds it.
func (s *Store) hold(ctx context.Context, chain []digest.Digest, mustExist bool) (*Lease, error) {
	shared, err := s.lock(ctx, false, lockFile)
	if err != nil {
		return nil, err
	}
	defer shared.Close()
	l := &Lease{}
	var text strings.Builder
	for _, id := range chain {
		dir, err := s.layerDir(id)
		if err == nil && mustExist {
			_, err = s.layer(id)
		}
		if err != nil {
			return nil, err
		}
		text.WriteString(string(id) + "\n")
		l.layers = append([]string{filepath.Join(dir, treeDir)}, l.layers...)
	}
	name := rand.Text()
	if l.lock, err = s.lock(ctx, true, leasesDir, name); err != nil {
		return nil, err
	}
	l.path = s.at(leasesDir, name)
	if _, err := l.lock.WriteString(text.String()); err != nil {
		l.Release()
		return nil, err
	}
	return l, nil
}

// Lowers gives the directories of the chain as overlay mounts want them: the topmost layer first, the base last. They must not be written to, and are valid as long as the
// lease is held.
func (l *Lease) Lowers() []string { return append([]string(nil), l.layers...) }

// Release lets the layers go.
func (l *Lease) Release() error {
	err := os.Remove(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return fail("release", "", errors.Join(err, ignoreClosed(l.lock.Close())))
}

func ignoreClosed(err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}
