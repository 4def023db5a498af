//go:build linux

package seccomp

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Difference is a call that two programs answer in two ways.
type Difference struct {
	Arch   Arch
	Number int
	Args   [6]uint64 // an example of arguments with which they differ
	Old    Action
	New    Action
}

// String gives the difference on one line: "x86_64 mount(0x0, ...): allow, now errno EPERM".
func (d Difference) String() string {
	name, ok := d.Arch.Name(d.Number)
	if !ok {
		name = fmt.Sprintf("system call %d", d.Number)
	}
	return fmt.Sprintf("%v %s(%#x, %#x, %#x, %#x, %#x, %#x): %v, now %v", d.Arch, name, d.Args[0], d.Args[1], d.Args[2], d.Args[3], d.Args[4], d.Args[5],
		d.Old, d.New)
}

// Compare finds the calls that two programs answer differently: for each architecture that one of them knows and each number, one example of
// arguments. It tries the numbers that either of them names and their neighbours, and, argument by argument, the values at which a condition of
// either begins or ends to hold, in all combinations up to 4,096 of them. Nothing found is no proof where there are more, or where the masks of several
// conditions overlap.
func Compare(old, new *Program) (found []Difference) {
	arches := old.Arches()
	for _, a := range new.Arches() {
		if !slices.Contains(arches, a) {
			arches = append(arches, a)
		}
	}
	for _, a := range arches {
		for _, nr := range interesting(a, old.abi(a), new.abi(a)) {
			if d, differs := compareCall(a, nr, old.at(a, nr), new.at(a, nr)); differs {
				found = append(found, d)
			}
		}
	}
	return found
}

// interesting are the numbers at which an answer may change, from either program.
func interesting(a Arch, abis ...*abi) []uint32 {
	const most = 1<<32 - 1
	set := map[uint32]bool{}
	for _, b := range abis {
		if b == nil {
			continue
		}
		for _, n := range b.shifts() {
			set[n] = true
		}
		for _, d := range b.decisions {
			set[d.nr], set[d.nr+1] = true, true
		}
	}
	low, high := uint32(0), uint32(most)
	switch a {
	case X86_64:
		high = x32Bit - 1
	case X32:
		low = x32Bit
	}
	set[low] = true
	maps.DeleteFunc(set, func(n uint32, _ bool) bool { return n < low || n > high })
	return slices.Sorted(maps.Keys(set))
}

func compareCall(a Arch, nr uint32, old, new decision) (Difference, bool) {
	points := [6][]uint64{}
	for i := range points {
		points[i] = slices.Compact(slices.Sorted(slices.Values(append(old.points(i), append(new.points(i), 0)...))))
	}
	var args [6]uint64
	for n := range min(combinations(points), 4096) {
		for i := range args {
			args[i] = points[i][n%len(points[i])]
			n /= len(points[i])
		}
		if x, y := old.answer(args).action, new.answer(args).action; x != y {
			return Difference{a, int(nr), args, x, y}, true
		}
	}
	return Difference{}, false
}

func combinations(points [6][]uint64) int {
	product := 1
	for _, p := range points {
		product *= min(len(p), 4096)
		product = min(product, 1<<20)
	}
	return product
}

// points are values of an argument that lie on either side of what conditions ask for.
func (d decision) points(arg int) (list []uint64) {
	for _, b := range d.branches {
		for _, m := range b.when {
			if m.arg != arg {
				continue
			}
			list = append(list, m.lo, m.lo-1, m.hi, m.hi+1)
			if m.masked {
				list = append(list, m.hi|m.lo, m.hi^m.lo, m.hi|^m.lo, cmp.Or(m.lo&-m.lo, 1))
			}
		}
	}
	return list
}
