//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
)

// cmd makes the command in its sandbox. Nothing is done yet.
func (f *flags) cmd(ctx context.Context, who account) (*caisson.Cmd, error) {
	host, err := f.host()
	if err != nil {
		return nil, err
	}
	parts, err := f.parts(who, host)
	if err != nil {
		return nil, err
	}
	sandbox := caisson.New(parts...)
	cmd := sandbox.CommandContext(ctx, f.command[0], f.command[1:]...)
	cmd.Env, cmd.Dir = f.environment(who.home, host), f.workdir
	if f.tty {
		cmd.Terminal = &caisson.Terminal{}
	}
	return cmd, sandbox.Err()
}

// host is the host name that the command will see.
func (f *flags) host() (string, error) {
	if f.uts == "host" {
		return os.Hostname()
	}
	if f.hostname != "" {
		return f.hostname, nil
	}
	id := make([]byte, 6)
	rand.Read(id)
	return hex.EncodeToString(id), nil
}

// parts are what the sandbox is made of.
func (f *flags) parts(who account, host string) ([]plan.Primitive, error) {
	ids, err := f.ids()
	if err != nil {
		return nil, err
	}
	parts := append(ids, f.namespaces(), f.root())
	mounts, err := f.mounts(host)
	if err != nil {
		return nil, err
	}
	network, err := f.network.part(host)
	if err != nil {
		return nil, err
	}
	parts = append(append(parts, mounts...), network)
	if f.uts != "host" {
		parts = append(parts, namespaces.Hostname(host))
	}
	if f.domainname != "" {
		parts = append(parts, namespaces.Domainname(f.domainname))
	}
	for _, l := range f.limits {
		parts = append(parts, l)
	}
	for _, more := range []func() ([]plan.Primitive, error){f.group, f.labeled, f.filter} {
		m, err := more()
		if err != nil {
			return nil, err
		}
		parts = append(parts, m...)
	}
	if f.init {
		parts = append(parts, caisson.Init{})
	}
	// A session of its own: nothing can be pushed into the caller's terminal. And no command outlives us.
	return append(parts, caisson.Session{}, caisson.DieWithParent{}, f.capabilities(), f.credentials(who)), nil
}

// namespaces are those of docker run. The user namespace is added by ids, that of the network by its part.
func (f *flags) namespaces() namespaces.Set {
	set := namespaces.Mount
	for _, n := range []struct {
		mode string
		kind namespaces.Set
	}{{f.pid, namespaces.PID}, {f.ipc, namespaces.IPC}, {f.uts, namespaces.UTS}, {f.cgroupns, namespaces.Cgroup}} {
		if n.mode != "host" {
			set |= n.kind
		}
	}
	return set
}

// ids gives the user namespace, where there is to be one.
func (f *flags) ids() ([]plan.Primitive, error) {
	switch {
	case f.hostIDs():
		return nil, nil
	case f.userns == "auto":
		ids, err := namespaces.SubordinateIDs("")
		return []plan.Primitive{ids}, err
	case f.userns == "keep-id":
		return []plan.Primitive{namespaces.KeepIDs()}, nil
	}
	return []plan.Primitive{namespaces.MapRoot()}, nil
}

// hostIDs reports whether there is to be no user namespace.
func (f *flags) hostIDs() bool { return f.userns == "host" || f.userns == "" && os.Geteuid() == 0 }

// oneID reports whether the sandbox has a single user and a single group: the caller.
func (f *flags) oneID() bool { return !f.hostIDs() && f.userns != "auto" }

// credentials makes the command the user that --user names. Where the sandbox has a single group, others of the user's
// in /etc/group have no place, and are left out; those of --group-add are an error.
func (f *flags) credentials(who account) caisson.User {
	u := caisson.User{UID: who.uid, GID: who.gid, Groups: who.groups}
	if f.oneID() || setgroupsDenied() {
		u.Groups = nil
	}
	u.Groups = append(u.Groups, who.added...)
	u.NoSetGroups = len(u.Groups) == 0 && (f.oneID() || setgroupsDenied())
	return u
}

// setgroupsDenied: inside a user namespace that somebody has made without privilege nobody may change groups
// (user_namespaces(7)).
func setgroupsDenied() bool {
	policy, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && strings.TrimSpace(string(policy)) == "deny"
}
