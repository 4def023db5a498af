//go:build linux

package layer

import (
	"archive/tar"
	"bytes"
	"io"
	"time"
)

// Most entries of most layers are small files with headers that have nothing special. To read such a header is most of what archive/tar does, and a
// tenth of all work. So it is read here; whatever is not as plain as that, or not right, is left to archive/tar, which then says what is wrong.

// The fields of a header that are read, from and to (struct posix_header of tar.h).
var (
	nameField  = [2]int{0, 100}
	modeField  = [2]int{100, 108}
	uidField   = [2]int{108, 116}
	gidField   = [2]int{116, 124}
	sizeField  = [2]int{124, 136}
	mtimeField = [2]int{136, 148}
	sumField   = [2]int{148, 156}
	majorField = [2]int{329, 337}
	minorField = [2]int{337, 345}
)

const (
	typeAt   = 156
	linkAt   = 157
	magicAt  = 257
	prefixAt = 345 // and what else there is: the times of GNU tar, the mark of star
)

// plainHeader reads the header of a file or directory into h, if all of it can be read without a doubt.
func plainHeader(b []byte, h *tar.Header) bool {
	kind := b[typeAt]
	if kind != tar.TypeReg && kind != tar.TypeDir || b[linkAt] != 0 {
		return false
	}
	magic := string(b[magicAt : magicAt+8])
	if magic != "ustar\x0000" && magic != "ustar  \x00" || !isZero(b[prefixAt:tarBlock]) {
		return false
	}
	var n [8]int64
	for i, f := range [...][2]int{modeField, uidField, gidField, sizeField, mtimeField, sumField, majorField, minorField} {
		var ok bool
		if n[i], ok = octal(b[f[0]:f[1]]); !ok && (i < 6 || !isZero(b[f[0]:f[1]])) {
			return false
		}
	}
	if n[5] != checksum(b) || kind == tar.TypeDir && n[3] != 0 {
		return false
	}
	name, _, _ := bytes.Cut(b[nameField[0]:nameField[1]], []byte{0})
	if len(name) == 0 || kind == tar.TypeReg && name[len(name)-1] == '/' {
		return false
	}
	*h = tar.Header{Typeflag: kind, Name: string(name), Mode: n[0], Uid: int(n[1]), Gid: int(n[2]), Size: n[3], ModTime: time.Unix(n[4], 0)}
	return int64(h.Uid) == n[1] && int64(h.Gid) == n[2]
}

// octal reads digits that end with spaces or zeros, or with the field.
func octal(b []byte) (n int64, ok bool) {
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '7'; i++ {
		n = n<<3 | int64(b[i]-'0')
	}
	for _, c := range b[i:] {
		if c != 0 && c != ' ' {
			return 0, false
		}
	}
	return n, i > 0
}

// checksum adds all bytes, with spaces in the place of the sum.
func checksum(b []byte) (sum int64) {
	for _, c := range b[:tarBlock] {
		sum += int64(c)
	}
	for _, c := range b[sumField[0]:sumField[1]] {
		sum += ' ' - int64(c)
	}
	return sum
}

// next gives the next entry. In one read here, and in most others, what is left of the contents is known, so that the next one can be read here.
func (u *unpacker) next() (*tar.Header, error) {
	if u.known {
		if err := u.in.skip(u.left); err != nil {
			return nil, err
		}
		if b := u.in.peek(); b != nil && plainHeader(b, &u.header) {
			u.in.consume()
			u.tar, u.left, u.content = nil, u.header.Size+padding(u.header.Size), u.in
			return &u.header, nil
		}
	}
	if u.tar == nil || u.known { // it would skip once more
		u.tar = tar.NewReader(u.in.reader())
	}
	u.in.budget = headerMost
	h, err := u.tar.Next()
	u.in.budget, u.content, u.left = -1, u.tar, 0
	if err != nil && err != tar.ErrInsecurePath { // which parseName is stricter about
		return nil, err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		u.known, u.left = !isSparse(h), h.Size+padding(h.Size)
	case tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		u.known = true
	default:
		u.known = false
	}
	return h, nil
}

func padding(size int64) int64 { return -size & (tarBlock - 1) }

// peek gives the next header-sized piece without reading it; nil where it is not there as a whole.
func (a *ahead) peek() []byte {
	if a.direct != nil {
		b, _ := a.direct.Peek(tarBlock)
		if len(b) < tarBlock || a.ctx.Err() != nil {
			return nil
		}
		return b
	}
	if len(a.rest) == 0 && !a.next() || len(a.rest) < tarBlock {
		return nil
	}
	return a.rest[:tarBlock]
}

// consume reads what peek has given.
func (a *ahead) consume() {
	if a.direct != nil {
		a.direct.Discard(tarBlock)
		a.pos += tarBlock
		return
	}
	a.rest = a.rest[tarBlock:]
}

// skip passes over n bytes, which must be there.
func (a *ahead) skip(n int64) error {
	if n > 1 && a.direct != nil {
		if _, err := (seeker{a}).Seek(n-1, io.SeekCurrent); err != nil {
			return err
		}
		n = 1 // whether it is there is seen by reading the last one
	}
	var b [tarBlock]byte
	for n > 0 {
		if len(a.rest) > 0 {
			m := min(int64(len(a.rest)), n)
			a.rest, n = a.rest[m:], n-m
			continue
		}
		m := a.take(b[:min(n, 1)])
		if m == 0 {
			if a.err == io.EOF {
				return io.ErrUnexpectedEOF
			}
			return a.err
		}
		n -= int64(m)
	}
	return nil
}
