//go:build linux

package namespaces

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Hostname is the host name inside, 1 to 64 bytes (uts_namespaces(7), sethostname(2)). It asks for a UTS namespace,
// unless one is joined. A wrong name is an [*Error] with EINVAL, the empty one too.
//
// It needs CAP_SYS_ADMIN, or [User] in the same sandbox. First kernel: 2.6.19.
type Hostname string

// Apply asks for the name.
func (h Hostname) Apply(p *plan.Plan) error {
	if err := p.Claim(plan.Hostname); err != nil {
		return err
	}
	return applyName(p, "sethostname", unix.SYS_SETHOSTNAME, string(h))
}

// Domainname is the NIS domain name inside, 1 to 64 bytes (uts_namespaces(7), setdomainname(2)); it has nothing to do
// with DNS. "(none)" is what a system without one has. It asks for a UTS namespace, unless one is joined. A wrong name
// is an [*Error] with EINVAL, the empty one too.
//
// It needs CAP_SYS_ADMIN, or [User] in the same sandbox. First kernel: 2.6.19.
type Domainname string

// Apply asks for the name.
func (d Domainname) Apply(p *plan.Plan) error {
	if err := p.Claim(plan.Domainname); err != nil {
		return err
	}
	return applyName(p, "setdomainname", unix.SYS_SETDOMAINNAME, string(d))
}

func applyName(p *plan.Plan, call string, trap uintptr, name string) error {
	const most = 64 // __NEW_UTS_LEN
	switch {
	case name == "":
		return invalid(call, "the name is empty")
	case len(name) > most:
		return invalid(call, "the name has more than 64 bytes")
	case strings.IndexByte(name, 0) >= 0:
		return invalid(call, "the name has a NUL byte")
	}
	p.Late(func() error { return needUTS(p, call) })
	p.Child(plan.Names, plan.Call(call, trap, plan.Str(name), plan.Int(len(name))).
		Hint(syscall.EPERM, "the joined uts namespace belongs to another user namespace"))
	return nil
}

// needUTS asks for a UTS namespace where none is joined. A join of the one in which the caller is already joins
// nothing, and the name would become the host's.
func needUTS(p *plan.Plan, call string) error {
	if p.Joined()&unix.CLONE_NEWUTS != 0 {
		return nil
	}
	if p.Has(UTS.claim()) {
		return invalid(call, "the joined uts namespace is the caller's own")
	}
	p.Clone(unix.CLONE_NEWUTS)
	return nil
}
