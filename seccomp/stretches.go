//go:build linux

package seccomp

import "slices"

// stretches cuts the values of an argument where the answer changes. Each branch asks for one range of it, the last one for none.
func (g *graph) stretches(list []branch) (found []stretch) {
	ranges, last := list[:len(list)-1], list[len(list)-1]
	starts := make([]uint64, 1, 1+2*len(ranges))
	for i := range ranges {
		m := &ranges[i].when[0]
		starts = append(starts, m.lo)
		if m.hi < m.most() {
			starts = append(starts, m.hi+1)
		}
	}
	slices.Sort(starts)
	for _, start := range slices.Compact(starts) {
		n := g.answer(first(ranges, last, start).action)
		if k := len(found); k == 0 || found[k-1].node != n {
			found = append(found, stretch{start, n})
		}
	}
	return found
}

// first is the branch that answers where the argument has the value.
func first(ranges []branch, last branch, value uint64) branch {
	for i := range ranges {
		if ranges[i].when[0].includes(value) {
			return ranges[i]
		}
	}
	return last
}
