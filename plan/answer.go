//go:build linux

package plan

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
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

// address maps memory that also a child shares which gets a copy of all other. A start that is tried once more begins with
// zeros. Where there is no memory, the address is 0, and the call fails.
func (a *answer) address() uintptr {
	if a.memory == nil {
		m, err := unix.Mmap(-1, 0, a.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
		if err != nil {
			return 0
		}
		a.memory = m
	}
	clear(a.memory)
	return uintptr(unsafe.Pointer(&a.memory[0]))
}

func (a *answer) free() {
	if a.memory != nil {
		unix.Munmap(a.memory)
		a.memory = nil
	}
}
