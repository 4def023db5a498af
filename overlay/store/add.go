//go:build linux

package store

import (
	"context"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// Expect is what a layer that is added must be. The zero value takes any.
type Expect struct {
	DiffID digest.Digest // of the uncompressed archive
	Digest digest.Digest // of the bytes that come, compressed or not
	Size   int64         // of the bytes that come
}

// Add unpacks a layer, plain or compressed, and gives what is known of it. A layer whose expected DiffID is in the store is not read: open may be nil or costly.
//
// The layer is there when it is complete, verified and on disk, or not at all. What is not as expected is a [*MismatchError]; an entry that is refused a *layer.RefusedError.
// Nothing protects it from Collect but a lease or an image: hold a lease of its DiffID before, with [Store.Reserve], if others collect.
func (s *Store) Add(ctx context.Context, open func() (io.ReadCloser, error), want Expect) (Layer, error) {
	l, err := s.add(ctx, open, want)
	return l, fail("add", string(want.DiffID), err)
}

func (s *Store) add(ctx context.Context, open func() (io.ReadCloser, error), want Expect) (Layer, error) {
	if want.DiffID != "" {
		if l, err := s.known(want); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
		// One who unpacks is enough; the others wait and find it there.
		lock, err := s.lock(ctx, true, locksDir, want.DiffID.Encoded()[:2])
		if err != nil {
			return Layer{}, err
		}
		defer lock.Close()
		if l, err := s.known(want); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
	}
	if want.Digest != "" {
		if err := checkDigest(want.Digest); err != nil {
			return Layer{}, err
		}
	}
	t, err := s.temporary(ctx)
	if err != nil {
		return Layer{}, err
	}
	defer t.remove()
	r, err := open()
	if err != nil {
		return Layer{}, err
	}
	defer r.Close()
	l, err := s.unpack(ctx, filepath.Join(t.path, treeDir), r, want)
	if err != nil {
		return Layer{}, err
	}
	return l, s.publish(ctx, t, l)
}

// known gives a layer that is there.
func (s *Store) known(want Expect) (Layer, error) {
	l, err := s.layer(want.DiffID)
	if err == nil {
		s.report(Progress{DiffID: want.DiffID, Size: want.Size, Known: true, Done: true, Totals: l.Totals})
	}
	return l, err
}

// counted is a stream whose bytes are counted, hashed and limited.
type counted struct {
	r     io.Reader
	hash  hash.Hash
	n     int64
	limit int64 // 0: none
	each  func(n int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.hash.Write(p[:n])
	if c.n += int64(n); c.limit > 0 && c.n > c.limit {
		return 0, &MismatchError{"size", sizeText(c.limit), "more"}
	}
	if c.each != nil {
		c.each(c.n)
	}
	return n, err
}

func (c *counted) digest() digest.Digest { return digest.NewDigest(digest.SHA256, c.hash) }

// unpack makes a layer's tree, and verifies on the way what it is made of.
func (s *Store) unpack(ctx context.Context, tree string, r io.Reader, want Expect) (Layer, error) {
	if err := os.Mkdir(tree, 0o755); err != nil {
		return Layer{}, err
	}
	said := time.Now()
	in := &counted{r: r, hash: digest.SHA256.Hash(), limit: want.Size, each: func(n int64) {
		if now := time.Now(); now.Sub(said) > time.Second/10 {
			said = now
			s.report(Progress{DiffID: want.DiffID, Read: n, Size: want.Size})
		}
	}}
	d, err := layer.Decompress(in)
	if err != nil {
		return Layer{}, err
	}
	defer d.Close()
	plain := &counted{r: d, hash: digest.SHA256.Hash()}
	u := layer.Unpack{Form: s.form, Devices: s.Devices, Unprivileged: s.Unprivileged, Limits: s.Limits}
	l := Layer{}
	if l.Totals, err = u.Apply(ctx, tree, plain); err != nil {
		return l, err
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // what a compressor may have left behind its end
		return l, err
	}
	l.DiffID = plain.digest()
	if err := check(want, l.DiffID, in); err != nil {
		return l, err
	}
	if s.Verifiable {
		if l.Tree, err = s.treeDigest(ctx, tree); err != nil {
			return l, err
		}
	}
	l.Bytes, err = layer.Usage(ctx, tree)
	if err == nil {
		s.report(Progress{DiffID: l.DiffID, Read: in.n, Size: want.Size, Done: true, Totals: l.Totals})
	}
	return l, err
}

func check(want Expect, diffID digest.Digest, in *counted) error {
	switch {
	case want.Size > 0 && in.n != want.Size:
		return &MismatchError{"size", sizeText(want.Size), sizeText(in.n)}
	case want.Digest != "" && in.digest() != want.Digest:
		return &MismatchError{"blob", string(want.Digest), string(in.digest())}
	case want.DiffID != "" && diffID != want.DiffID:
		return &MismatchError{"layer", string(want.DiffID), string(diffID)}
	}
	return nil
}

func (s *Store) treeDigest(ctx context.Context, tree string) (digest.Digest, error) {
	h := digest.SHA256.Hash()
	_, err := layer.Pack{Form: s.form}.Diff(ctx, h, tree)
	return digest.NewDigest(digest.SHA256, h), err
}

// publish puts a finished layer into its place. Everything of it is on disk before its name is.
func (s *Store) publish(ctx context.Context, t *temporary, l Layer) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(t.path, infoFile), b); err != nil {
		return err
	}
	if err := syncAll(t.path); err != nil {
		return err
	}
	shared, err := s.lock(ctx, false, lockFile)
	if err != nil {
		return err
	}
	defer shared.Close()
	dir, err := s.layerDir(l.DiffID)
	if err != nil {
		return err
	}
	err = unix.Rename(t.path, dir)
	if err == unix.ENOTEMPTY || err == unix.EEXIST { // somebody else was faster, and it is the same
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(s.at(layersDir))
}

// Verify reads a layer and compares it with what it was when it was unpacked: a [*MismatchError] where it is another. Of a layer that was added without Dir.Verifiable this is
// not known: errors.ErrUnsupported.
func (s *Store) Verify(ctx context.Context, id digest.Digest) error {
	lease, err := s.Lease(ctx, id)
	if err != nil {
		return fail("verify", string(id), err)
	}
	defer lease.Release()
	l, err := s.layer(id)
	if err == nil && l.Tree == "" {
		err = errors.ErrUnsupported
	}
	if err != nil {
		return fail("verify", string(id), err)
	}
	got, err := s.treeDigest(ctx, lease.Lowers()[0])
	if err == nil && got != l.Tree {
		err = &MismatchError{"tree", string(l.Tree), string(got)}
	}
	return fail("verify", string(id), err)
}
