//go:build linux

package plan

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Lacks reports whether the calls recorded so far leave the command, and whatever it executes, without a capability (CAP_... of package unix) in its user namespace
// for good: it is out of the bounding set, and the last capset(2) leaves it out of the inheritable set, and thereby of the ambient one. Nothing else is
// a source of capabilities for execve(2) (capabilities(7)). Ask in [Plan.Final]; what other parts decide in Final is seen by a further one.
func (p *Plan) Lacks(capability int) bool {
	dropped, inherited := false, true
	for ph := Bounds; ph <= Last; ph++ {
		for i, o := range p.ops[ph] {
			switch {
			case o.trap == unix.SYS_CAPSET:
				inherited = !surely(p.ops[ph], i) || inherits(o, capability)
			case o.trap == unix.SYS_PRCTL && len(o.args) > 1 && o.args[0].is(unix.PR_CAPBSET_DROP) && o.args[1].is(capability):
				dropped = dropped || surely(p.ops[ph], i)
			}
		}
	}
	return dropped && !inherited
}

// is reports whether the argument is the number, whatever happens before.
func (a Arg) is(n int) bool { return a.kind == kindInt && a.n == uint64(n) }

// surely reports whether call i is made and succeeds, or the start fails.
func surely(ops []Op, i int) bool {
	for j, o := range ops[:i] {
		if o.skip >= i-j {
			return false
		}
	}
	return ops[i].tolerate == 0
}

// inherits reports whether a capset(2) of version 3 has the capability in the inheritable set, the third of three numbers for the first 32 capabilities, and again for the others.
func inherits(o Op, capability int) bool {
	const size, inheritable = 12, 8
	at := capability/32*size + inheritable
	if len(o.args) != 2 || len(o.args[1].fields) > 0 || len(o.args[1].data) < at+4 {
		return true
	}
	return binary.NativeEndian.Uint32(o.args[1].data[at:])&(1<<(capability%32)) != 0
}
