//go:build linux

package layer

import (
	"bufio"
	"context"
	"io"
	"os"
	"syscall"
)

const (
	tarBlock   = 512
	blockSize  = 128 << 10 // of what is read ahead, and of what is written at a time
	blocks     = 8         // read ahead
	headerMost = 4 << 20   // bytes of header that an entry may have; archive/tar takes up to 1 MiB for each of its parts
)

// ahead reads a layer, and decompresses it, while what has been read is unpacked. A plain file is read directly: the kernel has read it ahead, and a
// block is copied once less. Large files in it are not read here at all: who writes them reads them, several at a time, and they are passed over.
type ahead struct {
	file   *os.File      // a plain file; nil: anything else
	direct *bufio.Reader // of file
	pos    int64         // in file, of what is read next
	ctx    context.Context
	cancel context.CancelFunc
	full   chan block
	free   chan []byte
	whole  []byte // the block of which rest is a part
	rest   []byte
	err    error
	zero   bool  // the last header-sized piece was all zeros: the end of an archive
	budget int64 // bytes to go until reading is refused; negative: none
}

type block struct {
	b   []byte
	err error
}

func readAhead(ctx context.Context, r io.Reader) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{ctx: ctx, cancel: cancel, full: make(chan block, blocks+1), free: make(chan []byte, blocks), budget: -1}
	for range blocks {
		a.free <- nil
	}
	if f, ok := r.(*os.File); ok && plainFile(f) {
		if at, err := f.Seek(0, io.SeekCurrent); err == nil {
			a.file, a.pos, a.direct = f, at, bufio.NewReaderSize(f, 32<<10)
			return a
		}
	}
	go a.fill(r)
	return a
}

// plainFile reports whether a file is a regular one that is not compressed. Where it is read from stays.
func plainFile(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return false
	}
	start := make([]byte, 4)
	n, err := f.ReadAt(start, at)
	return (err == nil || err == io.EOF) && compressionOf(start[:n]) == Uncompressed
}

// stop lets the reader go. A Read that does not return keeps its goroutine.
func (a *ahead) stop() { a.cancel() }

func (a *ahead) fill(r io.Reader) {
	defer close(a.full)
	in, err := Decompress(r)
	if err == nil {
		defer in.Close()
	}
	for err == nil {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.ctx.Done():
			return
		}
		if b == nil {
			b = make([]byte, blockSize)
		}
		var n int
		if n, err = io.ReadFull(in, b); err == io.ErrUnexpectedEOF && in.ended() {
			err = io.EOF
		}
		a.full <- block{b: b[:n]}
	}
	a.full <- block{err: err}
}

// Read fills p, unless the data end.
func (a *ahead) Read(p []byte) (int, error) {
	n := a.take(p)
	if a.budget >= 0 {
		if a.budget -= int64(n); a.budget < 0 {
			return 0, refuse(IsHeader, "")
		}
	}
	if n == tarBlock {
		a.zero = isZero(p[:n])
	}
	if n > 0 {
		return n, nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	return 0, a.err
}

func (a *ahead) take(p []byte) (n int) {
	if a.direct != nil && a.err == nil {
		n, a.err = io.ReadFull(a.direct, p)
		a.pos += int64(n)
		if a.err == io.ErrUnexpectedEOF {
			a.err = io.EOF
		}
		if e := a.ctx.Err(); e != nil {
			n, a.err = 0, e
		}
		return n
	}
	for n < len(p) {
		if len(a.rest) == 0 && !a.next() {
			break
		}
		m := copy(p[n:], a.rest)
		a.rest = a.rest[m:]
		n += m
	}
	return n
}

// reader is what archive/tar reads from.
func (a *ahead) reader() io.Reader {
	if a.file != nil {
		return seeker{a}
	}
	return a
}

// seeker lets archive/tar pass over what it does not read.
type seeker struct{ *ahead }

// Seek goes on from where it is, and nothing else.
func (s seeker) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || offset < 0 || s.pos+offset < s.pos {
		return 0, syscall.EINVAL
	}
	if offset <= int64(s.direct.Buffered()) {
		s.direct.Discard(int(offset))
	} else if _, err := s.file.Seek(s.pos+offset, io.SeekStart); err != nil {
		return 0, err
	} else {
		s.direct.Reset(s.file)
	}
	s.pos += offset
	return s.pos, nil
}

// next takes the next block, and gives the last one back.
func (a *ahead) next() bool {
	if a.err != nil {
		return false
	}
	if a.whole != nil {
		a.free <- a.whole[:blockSize]
		a.whole = nil
	}
	select {
	case b, ok := <-a.full:
		if !ok || a.ctx.Err() != nil {
			a.err = context.Cause(a.ctx)
			return false
		}
		a.whole, a.rest, a.err = b.b, b.b, b.err
		return a.err == nil
	case <-a.ctx.Done():
		a.err = context.Cause(a.ctx)
		return false
	}
}
