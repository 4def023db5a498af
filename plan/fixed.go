//go:build linux

package plan

import (
	"slices"
	"sync"

	"github.com/caisson-dev/caisson/internal/sys"
)

// fix turns into numbers, once, what is the same in each start: most calls of most plans.
func (p *Plan) fix() {
	var m sys.Memory
	for _, ops := range append([][]Op{p.early}, p.ops[:]...) {
		for i := range ops {
			if o := &ops[i]; !o.changes() {
				c := o.Lower(&m, nil)
				o.fixed = &c
			}
		}
	}
	p.block = m.Block()
}

// changes reports whether the numbers of the call belong to one start: of descriptors, of the parent's answers and of memory that is written to.
func (o *Op) changes() bool {
	return o.expand != nil || o.uses(kindFile) || o.uses(kindAnswer) || o.uses(kindBuf)
}

// Fixed gives the call as numbers where it is the same in each start, or nil. Its memory is in [Plan.Block]. For launchers.
func (o *Op) Fixed() *sys.Call { return o.fixed }

// Block is the memory of calls that are the same in each start. For launchers.
func (p *Plan) Block() sys.Block { return p.block }

// Scratch keeps memory of starts that are over for those that come. For launchers.
func (p *Plan) Scratch() *sync.Pool { return &p.scratch }

// AppendSteps appends what [Plan.Steps] gives. For launchers.
func (p *Plan) AppendSteps(s []Step, c *Command) []Step {
	b := steps{p: p, c: c, s: slices.Grow(s, len(p.before)+len(p.while)+16+p.calls())}
	b.all()
	return b.s
}
