//go:build linux

package seccomp

import (
	"fmt"
	"iter"
	"math"
	"slices"
)

// call is one system call in all architectures.
type call struct {
	name string
	args string        // l, i, h: 64, 32 or 16 bits of the argument are read; what is missing is l (testdata/args.txt, which says how it was checked)
	nr   [arches]int32 // -1 where there is none
}

func findCall(name string) (*call, bool) {
	if i := rowOf(name); i >= 0 {
		return &table[i], true
	}
	return nil, false
}

// number is the call's number as a filter sees it; -1 where the architecture does not have it.
func (c *call) number(a Arch) int {
	n := int(c.nr[a-1])
	if a == X32 && n >= 0 {
		n |= x32Bit
	}
	return n
}

// Number gives the number of the system call in this architecture, as filters see it: numbers of X32 have bit 0x40000000.
func (a Arch) Number(name string) (nr int, ok bool) {
	c, ok := findCall(name)
	if !ok || !a.valid() {
		return 0, false
	}
	nr = c.number(a)
	return nr, nr >= 0
}

// Name gives the name of a system call by its number in this architecture.
func (a Arch) Name(nr int) (string, bool) {
	if c := a.byNumber(nr); c != nil {
		return c.name, true
	}
	return "", false
}

func (a Arch) byNumber(nr int) *call {
	if a.valid() && nr >= 0 {
		for i := range table {
			if table[i].number(a) == nr {
				return &table[i]
			}
		}
	}
	return nil
}

// Calls yields all system calls of the architecture, name and number, in the order of the names.
func (a Arch) Calls() iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		if !a.valid() {
			return
		}
		for i := range table {
			if nr := table[i].number(a); nr >= 0 && !yield(table[i].name, nr) {
				return
			}
		}
	}
}

// Newest is the highest number that the table knows; the tables are those of Linux 7.0. What lies above it is newer, but for numbers
// apart: from 0xf0001 on the private calls of arm, and on x32 those from 512 to 547.
func (a Arch) Newest() int {
	newest := 0
	for _, nr := range a.Calls() {
		if !a.apart(uint32(nr)) {
			newest = max(newest, nr)
		}
	}
	return newest
}

// apart reports whether a number lies in a range of its own, above the numbers that new calls get.
func (a Arch) apart(nr uint32) bool {
	first, last := a.apartFrom()
	return nr >= first && nr <= last
}

// apartFrom gives the first and the last number of that range.
func (a Arch) apartFrom() (first, last uint32) {
	switch a {
	case ARM:
		return 0xf0001, 0xf0006
	case X32:
		return x32Bit | 512, x32Bit | 547
	}
	return math.MaxUint32, 0
}

// bits tells how many bits of an argument the kernel reads when the call is made in this architecture.
func (c *call) bits(a Arch, arg int) int {
	switch {
	case a == S390X && c.name == "clone": // newsp, flags, ...
		return [...]int{64, 32, 64, 64, 64, 64}[arg]
	case a.info().bits == 32 && slices.Contains(shortIDs, c.name):
		return 16
	}
	n := a.info().bits
	if a == X32 && c.nr[X32-1] >= 512 { // entries for programs of 32 bits
		n = 32
	}
	if arg < len(c.args) {
		switch c.args[arg] {
		case 'i':
			n = 32
		case 'h':
			n = 16
		}
	}
	return n
}

// shortIDs are calls that on 32-bit architectures take user and group ids of 16 bits; those of 32 bits have names that end with 32.
var shortIDs = []string{"chown", "fchown", "lchown", "setfsgid", "setfsuid", "setgid", "setregid", "setresgid", "setresuid", "setreuid", "setuid"}

// callName names a call for messages, by its number where it has no name.
func callName(k *call, nr uint32) string {
	if k == nil {
		return fmt.Sprintf("system call %d", nr)
	}
	return k.name
}
