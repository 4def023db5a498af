//go:build linux

package main

import (
	"os"

	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
)

const unconfined = "unconfined"

// filter gives the parts that decide about system calls: Docker's default profile, that of a file, or none. no_new_privs is
// set only where it is asked for, as by docker run: the filter is installed while CAP_SYS_ADMIN is still there.
func (f *flags) filter() (parts []plan.Primitive, err error) {
	if f.noNewPrivs {
		parts = append(parts, caps.NoNewPrivs{})
	}
	p, err := f.profile()
	if p == nil || err != nil {
		return parts, err
	}
	filter := p.Filter(seccomp.Target{Caps: f.capabilityNames()})
	filter.AllowNewPrivileges = !f.noNewPrivs
	return append(parts, filter), filter.Err()
}

// profile gives nil where there is to be no filter.
func (f *flags) profile() (*seccomp.Profile, error) {
	switch {
	case f.seccomp == unconfined, f.seccomp == "" && f.privileged:
		return nil, nil
	case f.seccomp == "", f.seccomp == "builtin":
		return seccomp.DockerProfile(), nil
	}
	text, err := os.ReadFile(f.seccomp)
	if err != nil {
		return nil, err
	}
	return seccomp.ParseProfile(text)
}
