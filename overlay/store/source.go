//go:build linux

package store

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

const (
	maxText  = 16 << 20 // bytes of a manifest, an index or a configuration
	maxFiles = 100_000  // in an archive
	maxLinks = 10
)

// source has the files of an image, by name.
type source interface {
	open(name string) (io.ReadCloser, int64, error)
	Close() error
}

// directory is an OCI layout. Links in it may lead anywhere inside and nowhere else; what is not a regular file is not opened.
type directory struct{ *os.Root }

func (d directory) open(name string) (io.ReadCloser, int64, error) {
	st, err := d.Stat(name)
	if err == nil && !st.Mode().IsRegular() {
		err = malformed("%.100q is not a regular file", name)
	}
	if err != nil {
		return nil, 0, missing(err, name)
	}
	f, err := d.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, missing(err, name)
	}
	return f, st.Size(), nil
}

func missing(err error, name string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &MissingError{name}
	}
	return err
}

// archive is a tar file: names are looked up, never made.
type archive struct {
	f     *os.File
	files map[string]piece
	temp  *temporary // where f is, if it had to be decompressed
}

// piece is a file in the archive, or a link to another one.
type piece struct {
	at, size int64
	link     string
}

func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	p, ok := a.files[path.Clean(name)]
	for i := 0; ok && p.link != "" && i < maxLinks; i++ {
		p, ok = a.files[p.link]
	}
	if !ok || p.link != "" {
		return nil, 0, &MissingError{name}
	}
	return io.NopCloser(io.NewSectionReader(a.f, p.at, p.size)), p.size, nil
}

func (a *archive) Close() error {
	err := a.f.Close()
	if a.temp != nil {
		a.temp.remove()
	}
	return err
}

// openSource opens a directory or an archive. A compressed archive is decompressed first, since its parts come in any order.
func (s *Store) openSource(ctx context.Context, name string) (source, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		return directory{root}, nil
	}
	if !st.Mode().IsRegular() {
		return nil, malformed("neither a directory nor a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	a := &archive{f: f, files: map[string]piece{}}
	if err = s.decompress(ctx, a); err == nil {
		err = a.index(ctx)
	}
	if err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func (s *Store) decompress(ctx context.Context, a *archive) error {
	d, err := layer.Decompress(a.f)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.Compression == layer.Uncompressed {
		_, err := a.f.Seek(0, io.SeekStart)
		return err
	}
	if a.temp, err = s.temporary(ctx); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(a.temp.path, "archive"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	limit := s.Limits.Bytes
	if limit == 0 {
		limit = 1 << 40
	}
	n, err := io.Copy(f, &stoppable{ctx, io.LimitReader(d, limit)})
	if err == nil && n == limit {
		err = malformed("the archive has more than %d bytes", limit)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return err
	}
	a.f.Close()
	a.f = f
	return nil
}

// stoppable is a stream that ends with a context.
type stoppable struct {
	ctx context.Context
	r   io.Reader
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

// index notes where in the archive what is. The reader of archive/tar takes blocks of headers from the file and skips by seeking, so after a header
// the file is where the contents begin.
func (a *archive) index(ctx context.Context) error {
	r := tar.NewReader(a.f)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && err != tar.ErrInsecurePath {
			return fmt.Errorf("%w: %w", layer.ErrCorrupt, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(h.Name) >= unix.PathMax || len(h.Linkname) >= unix.PathMax {
			continue // nothing that an image has, and a thousand of them take the memory of the machine
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := a.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			a.files[name] = piece{at: at, size: h.Size}
		case tar.TypeSymlink, tar.TypeLink: // old versions of docker save, for a layer that is there twice
			to := path.Clean(h.Linkname)
			if h.Typeflag == tar.TypeSymlink {
				to = path.Join(path.Dir(name), h.Linkname)
			}
			a.files[name] = piece{link: to}
		}
		if len(a.files) > maxFiles {
			return errManyFiles // a root file system, for example
		}
	}
}

var errManyFiles = malformed("more than %d files in an archive", maxFiles)

// text reads a small file.
func text(src source, name string) ([]byte, error) {
	r, size, err := src.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > maxText {
		return nil, malformed("%.100q has %d bytes", name, size)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err == nil && int64(len(b)) != size {
		err = &MismatchError{"size", sizeText(size), sizeText(int64(len(b)))}
	}
	return b, err
}

func sizeText(n int64) string { return fmt.Sprintf("%d bytes", n) }

// has reports whether a file is there.
func has(src source, name string) bool {
	r, _, err := src.open(name)
	if err == nil {
		r.Close()
	}
	return err == nil
}

func isTooMany(err error) bool { return err == error(errManyFiles) }
