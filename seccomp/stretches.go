//go:build linux

package seccomp

import "slices"

// stretches cuts the values of an argument where the answer changes. Each branch asks for one range of it, the last one for none.
func (g *graph) stretches(list []branch, arg int) (found []stretch) {
	starts := []uint64{0}
	for _, b := range list[:len(list)-1] {
		m := b.when[0]
		starts = append(starts, m.lo)
		if m.hi < m.most() {
			starts = append(starts, m.hi+1)
		}
	}
	slices.Sort(starts)
	for _, start := range slices.Compact(starts) {
		var args [6]uint64
		args[arg] = start
		n := g.answer(list[slices.IndexFunc(list, func(b branch) bool { return b.holds(args) })].action)
		if k := len(found); k == 0 || found[k-1].node != n {
			found = append(found, stretch{start, n})
		}
	}
	return found
}
