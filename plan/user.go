//go:build linux

package plan

import (
	"math"

	"github.com/caisson-dev/caisson/internal/sys"
)

// UID is the user that the calls recorded so far make the child, in phases Users to Credentials: the last setresuid(2)
// counts. It is false where there is none, or where the id is not known before the start. Ask in [Plan.Final].
func (p *Plan) UID() (id uint32, ok bool) {
	for ph := Users; ph <= Credentials; ph++ {
		for _, o := range p.ops[ph] {
			if o.trap != sys.Setresuid || len(o.args) != 3 || uint32(o.args[1].n) == math.MaxUint32 { // -1: left alone
				continue
			}
			id, ok = uint32(o.args[1].n), o.args[1].kind == kindInt
		}
	}
	return id, ok
}

// Final records a decision that needs to see the calls that decisions of Late have recorded: it is called when no such
// decision is left.
func (p *Plan) Final(f func() error) { p.final(f, 8) }

// final puts f behind the decisions that are there. Two decisions of Final do not wait for each other for ever.
func (p *Plan) final(f func() error, rounds int) {
	p.Late(func() error {
		if len(p.late) > 0 && rounds > 0 {
			p.final(f, rounds-1)
			return nil
		}
		return f()
	})
}
