//go:build linux

// Package sys holds what plan and launcher share below the level of a plan: raw system calls, and the memory to which
// their arguments point.
package sys

import (
	"runtime"
	"unsafe"
)

// Memory holds what the arguments of raw calls point at. Addresses stay valid until Free: this is the one place in
// which Go memory becomes a number. The zero value is ready for use, and so is one that has been freed.
type Memory struct {
	pin   runtime.Pinner
	first []byte   // the first chunk, which is used again after Free
	begun bool     // it is in use
	chunk []byte   // what is left of the last one
	parts [][]byte // all that is pinned, but for what was given to Pin
}

const chunkSize = 4096

// Block is memory that a Memory has filled and that does not change any more. Others point into it, many at a time.
type Block struct{ parts [][]byte }

// Zero gives the address of n zero bytes, aligned to 8.
func (m *Memory) Zero(n int) uintptr { return address(m.alloc(n, 8)) }

// Bytes gives the address of b itself, which must not change while it is in use.
func (m *Memory) Bytes(b []byte) uintptr {
	if len(b) == 0 {
		return m.Zero(1)
	}
	m.hold(b)
	return address(b)
}

// Copy gives the address of a copy of b, and the copy.
func (m *Memory) Copy(b []byte) (uintptr, []byte) {
	c := m.alloc(len(b), 8)
	copy(c, b)
	return address(c), c
}

// String gives the address of a copy of s with a NUL byte at the end.
func (m *Memory) String(s string) uintptr {
	b := m.alloc(len(s)+1, 1)
	copy(b, s)
	return address(b)
}

// Strings gives the address of an array of the strings' addresses with a null pointer at the end.
func (m *Memory) Strings(ss []string) uintptr {
	const size = int(unsafe.Sizeof(uintptr(0)))
	b := m.alloc((len(ss)+1)*size, 8)
	v := unsafe.Slice((*uintptr)(unsafe.Pointer(&b[0])), len(ss)+1)
	for i, s := range ss {
		v[i] = m.String(s)
	}
	return address(b)
}

// Pin keeps what pointer points at in its place, on the heap.
func (m *Memory) Pin(pointer any) { m.pin.Pin(pointer) }

// Free ends the validity of all addresses.
func (m *Memory) Free() {
	m.pin.Unpin()
	clear(m.parts) // the collector's
	if m.begun {
		clear(m.first) // so that Zero gives zeros
	}
	m.parts, m.chunk, m.begun = m.parts[:0], nil, false
}

// Block gives what has been allocated so far, and frees m, which is not to be used any more.
func (m *Memory) Block() Block {
	b := Block{parts: m.parts}
	m.pin.Unpin()
	*m = Memory{}
	return b
}

// Use makes the addresses in b valid until Free.
func (m *Memory) Use(b Block) {
	for _, p := range b.parts {
		m.hold(p)
	}
}

func (m *Memory) hold(b []byte) {
	m.pin.Pin(&b[0])
	m.parts = append(m.parts, b)
}

func (m *Memory) alloc(n, align int) []byte {
	n = max(n, 1)
	skip := -(chunkSize - len(m.chunk)) & (align - 1)
	if skip+n > len(m.chunk) {
		if n > chunkSize/4 {
			b := make([]byte, n)
			m.hold(b)
			return b
		}
		m.chunk, skip = m.next(), 0
		m.hold(m.chunk)
	}
	b := m.chunk[skip : skip+n : skip+n]
	m.chunk = m.chunk[skip+n:]
	return b
}

// next gives a chunk of zero bytes.
func (m *Memory) next() []byte {
	if m.begun {
		return make([]byte, chunkSize)
	}
	if m.first == nil {
		m.first = make([]byte, chunkSize)
	}
	m.begun = true
	return m.first
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
