//go:build linux

package seccomp

import (
	docker "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// DockerDefault is Docker's default profile for a command with the capabilities in its bounding set, by name; without any it is that
// for a command without capabilities. Where Docker's default capabilities are given, SYS_CHROOT among them, it is what docker
// run does. It depends on this machine's architecture and kernel version; [DockerProfile] gives it for others.
//
// The filter sets no_new_privs, which Docker does not: with AllowNewPrivileges it is Docker's own.
func DockerDefault(caps ...string) Filter { return DockerProfile().Filter(Target{Caps: caps}) }

// DockerProfile is Docker's default profile, from github.com/moby/profiles, which Docker keeps.
func DockerProfile() *Profile {
	d := docker.DefaultProfile()
	p := &Profile{DefaultAction: string(d.DefaultAction), DefaultErrnoRet: d.DefaultErrnoRet}
	for _, m := range d.ArchMap {
		p.ArchMap = append(p.ArchMap, ProfileArch{string(m.Arch), archNames(m.SubArches)})
	}
	for _, s := range d.Syscalls {
		r := &ProfileRule{Names: s.Names, Action: string(s.Action), ErrnoRet: s.ErrnoRet, Comment: s.Comment,
			Includes: condition(s.Includes), Excludes: condition(s.Excludes)}
		for _, a := range s.Args {
			r.Args = append(r.Args, &ProfileArg{a.Index, a.Value, a.ValueTwo, string(a.Op)})
		}
		p.Syscalls = append(p.Syscalls, r)
	}
	return p
}

func archNames(list []specs.Arch) (names []string) {
	for _, a := range list {
		names = append(names, string(a))
	}
	return names
}

func condition(f *docker.Filter) *ProfileIf {
	if f == nil {
		return nil
	}
	c := &ProfileIf{Caps: f.Caps, Arches: f.Arches}
	if f.MinKernel != nil {
		c.MinKernel = f.MinKernel.String()
	}
	return c
}
