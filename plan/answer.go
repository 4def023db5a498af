//go:build linux

package plan

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/sys"
)

// Answer is memory into which a call of the child writes and which the parent reads in an action of [Plan.After].
type Answer struct{ n int }

// Answer gives fresh memory of size bytes, zero in each start.
func (p *Plan) Answer(size int) Answer {
	p.answers = append(p.answers, max(size, 1))
	return Answer{len(p.answers) - 1}
}

// Into is the address of the answer's memory.
func Into(a Answer) Arg {
	return Arg{kind: kindAnswer, n: uint64(a.n), text: "[answer " + strconv.Itoa(a.n) + "]"}
}

// Answer gives what the child has written, followed by zeros. It is valid until the start returns, and nil when no call has been
// lowered that writes there.
func (r *Run) Answer(a Answer) []byte {
	if a.n < len(r.answers) {
		return r.answers[a.n].memory
	}
	return nil
}

type answer struct {
	size   int
	memory []byte
	mapped bool // it is to be unmapped
}

func newAnswers(sizes []int) []answer {
	if len(sizes) == 0 {
		return nil
	}
	all := make([]answer, len(sizes))
	for i, n := range sizes {
		all[i].size = n
	}
	return all
}

// Fresh begins a try of the start, with answers of zeros. A child that gets a copy of the memory needs them in memory that is shared all
// the same. For launchers.
func (r *Run) Fresh(copied bool) {
	r.copied = copied
	for i := range r.answers {
		r.answers[i].free()
	}
}

// address is 0 where there is no memory, and the call fails.
func (a *answer) address(m *sys.Memory, copied bool) uintptr {
	if a.memory == nil {
		a.allocate(copied)
	}
	switch {
	case a.memory == nil:
		return 0
	case a.mapped:
		return uintptr(unsafe.Pointer(&a.memory[0]))
	}
	return m.Bytes(a.memory)
}

func (a *answer) allocate(copied bool) {
	if !copied {
		a.memory = make([]byte, a.size)
		return
	}
	if b, err := unix.Mmap(-1, 0, a.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS); err == nil {
		a.memory, a.mapped = b, true
	}
}

func (a *answer) free() {
	if a.mapped {
		unix.Munmap(a.memory)
	}
	a.memory, a.mapped = nil, false
}
