//go:build linux

package layer

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compression of a layer.
type Compression uint8

// The compressions that the OCI's images have.
const (
	Uncompressed Compression = iota
	Gzip
	Zstd
)

// String gives the suffix that the OCI's media types have: "gzip", "zstd"; "none" for an uncompressed layer.
func (c Compression) String() string {
	switch c {
	case Uncompressed:
		return "none"
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("compression %d", uint8(c))
}

// windowMost is the most memory that a layer may ask of the decompressor. zstd takes 8 MiB up to level 19, and more only with --ultra or --long.
const windowMost = 32 << 20

// Decompressor gives what a compressed stream holds.
type Decompressor struct {
	Compression Compression // what the stream is
	r           io.Reader
	source      *source
	close       func()
	eof         bool // the data have ended as they should
}

// Decompress finds out how a stream is compressed and gives what is in it. A zstd stream may take 32 MiB of memory; one that asks for more is [ErrCorrupt]. Reading
// what is damaged gives ErrCorrupt, and io.ErrUnexpectedEOF too where the stream ends too early.
func Decompress(r io.Reader) (*Decompressor, error) {
	from := &source{r: r}
	b := bufio.NewReaderSize(from, 64<<10)
	start, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch compressionOf(start) {
	case Gzip:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, from.blame(err)
		}
		return &Decompressor{Compression: Gzip, r: z, source: from, close: func() { z.Close() }}, nil
	case Zstd:
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(windowMost), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, from.blame(err)
		}
		return &Decompressor{Compression: Zstd, r: z, source: from, close: z.Close}, nil
	}
	return &Decompressor{r: b, source: from, close: func() {}}, nil
}

// compressionOf knows the first bytes. For zstd those may be of a frame that is to be skipped: an archive of zstd:chunked can begin with one.
func compressionOf(b []byte) Compression {
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return Gzip
	case len(b) == 4 && (bytes.Equal(b, []byte{0x28, 0xb5, 0x2f, 0xfd}) || b[0]&0xf0 == 0x50 && bytes.Equal(b[1:], []byte{0x2a, 0x4d, 0x18})):
		return Zstd
	}
	return Uncompressed
}

// Read gives what is in the stream.
func (d *Decompressor) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err == io.EOF {
		d.eof = true
	} else if err != nil && d.Compression != Uncompressed {
		err = d.source.blame(err)
	}
	return n, err
}

func (d *Decompressor) ended() bool { return d.eof }

// Close frees the decompressor's memory. It does not close the stream.
func (d *Decompressor) Close() error {
	d.close()
	return nil
}

// source remembers what went wrong with the stream itself.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// blame tells faults of the data from those of the source.
func (s *source) blame(err error) error {
	if s.err != nil {
		return s.err
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &corrupt{err}
}

// Compress gives a writer that compresses to w, and must be closed. Closing it does not close w. The same bytes give the same bytes, with the same version of the
// compressor.
func (c Compression) Compress(w io.Writer) (io.WriteCloser, error) {
	switch c {
	case Uncompressed:
		return nopCloser{w}, nil
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.DefaultCompression)
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}
	return nil, &Error{Op: "compress", Err: errBadValue}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
