//go:build linux

package launch

import (
	"slices"

	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// scratch is memory that a start needs while it lasts. The next start of the same plan uses it again, while the processor still has it at hand: fresh
// memory costs more than what is written to it.
type scratch struct {
	steps []plan.Step
	mem   sys.Memory
	lists [2][]sys.Call // for the first child and the one that goes on in its place
	stack [2][]byte
	slots []uintptr
	plain []string // names of the last program that was found not to be a script
}

func scratchOf(p *plan.Plan) *scratch {
	if c, ok := p.Scratch().Get().(*scratch); ok {
		return c
	}
	return new(scratch)
}

// empty gives slots without descriptors.
func (c *scratch) empty(n int) []uintptr {
	c.slots = slices.Grow(c.slots[:0], n)[:n]
	for i := range c.slots {
		c.slots[i] = ^uintptr(0)
	}
	return c.slots
}

// stackOf gives the stack of child i, which nothing is left on that matters.
func (c *scratch) stackOf(i int) []byte {
	if c.stack[i] == nil {
		c.stack[i] = make([]byte, stackSize)
	}
	return c.stack[i]
}

// giveBack ends the use of the memory. No child is there any more that shares it, but for one that has executed the command.
func (s *start) giveBack() {
	clear(s.steps) // they hold the command
	s.plan.Scratch().Put(s.scratch)
	s.scratch = nil
}
