//go:build linux

package lsm

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
)

// Profile is an AppArmor profile (apparmor.d(5)). What its rules do not allow is denied; Deny of a rule takes away what others allow, and is
// not logged. The zero value of each field adds nothing.
//
// In paths and peers AppArmor's patterns work: * and ** for what has no slash and for anything, {a,b}, [a-z], and variables.
type Profile struct {
	Name               string
	Complain           bool // denials are only logged
	AttachDisconnected bool // files that no path leads to, as those of another mount namespace, count as below /
	MediateDeleted     bool // files that have been deleted keep their rules

	Abstractions []string // of /etc/apparmor.d/abstractions, for example "base"; they must be there when the profile is compiled
	Files        []FileRule
	Capabilities []CapabilityRule
	Network      []NetworkRule
	Mounts       []MountRule
	Ptrace       []PtraceRule
	Signals      []SignalRule
	Changes      []string  // profiles that a program may change to
	Children     []Profile // for programs that are executed with the permission "Cx -> name"; without children of their own
}

// FileRule is about files.
type FileRule struct {
	Deny  bool
	Owner bool   // only files of the process's own user
	Path  string // a pattern; "" is every file
	// Perms are r, w or a (append), m (map to execute), k (lock), l (link), and one way to execute, not together with Deny: ix stays in the profile, Px
	// and Cx go on to the profile or child that is named for the program, Ux to none, with a cleaned environment; px, cx and ux keep it. With Deny, x is
	// any of them. "" is all, and needs the empty path.
	Perms string
	To    string // with Px or Cx: the profile or child that the program gets
}

// CapabilityRule is about capabilities.
type CapabilityRule struct {
	Deny  bool
	Names []string // "net_bind_service"; none is all
}

// NetworkRule is about sockets.
type NetworkRule struct {
	Deny   bool
	Family string // "inet", "unix"; "" is all
	Type   string // "stream", "dgram", "raw"; "" is all
}

// MountRule is about mounts.
type MountRule struct {
	Deny    bool
	Op      string   // "mount", "remount", "umount" or "pivot_root"; "" is mount
	FSType  string   // "tmpfs"; "" is all
	Options []string // all of them and no others must be given; none is any
	Source  string   // a pattern; "" is any
	Target  string   // a pattern; "" is any
}

// PtraceRule is about ptrace(2), and about what it decides on, such as files of /proc/PID.
type PtraceRule struct {
	Deny   bool
	Access []string // "trace", "read", "tracedby", "readby"; none is all
	Peer   string   // a profile; "" is any
}

// SignalRule is about signals.
type SignalRule struct {
	Deny    bool
	Access  []string // "send", "receive"; none is both
	Signals []string // "term", "kill"; none is all
	Peer    string   // a profile; "" is any
}

// Text renders the profile as apparmor_parser(8) reads it. A value that would mean something else there is an EINVAL.
func (p Profile) Text() (string, error) {
	w := &writer{}
	w.line("#include <tunables/global>")
	w.profile(p, "")
	if w.err != nil {
		return "", w.err
	}
	return strings.Join(w.lines, "\n") + "\n", nil
}

// Compile has apparmor_parser(8) make the binary form of the profile. It needs no privilege and no AppArmor in the kernel. Where there is no such
// program, the error is errors.ErrUnsupported.
func (p Profile) Compile(ctx context.Context) ([]byte, error) {
	text, err := p.Text()
	if err != nil {
		return nil, err
	}
	parser, err := findParser()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, parser, "--skip-kernel-load", "--skip-cache", "--stdout")
	var out, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &out, &complaint
	if err := cmd.Run(); err != nil {
		return nil, &Error{"compile the profile " + printable(p.Name), err, strings.TrimSpace(complaint.String())}
	}
	return out.Bytes(), nil
}

// Load compiles the profile and gives it to the kernel; see [LoadProfile]. A loaded one of the same name is replaced, also for what runs under it.
func (p Profile) Load(ctx context.Context) error {
	binary, err := p.Compile(ctx)
	if err != nil {
		return err
	}
	return LoadProfile(binary)
}

// findParser looks in the directories of administrators, too: PATH of an ordinary user may lack them.
func findParser() (string, error) {
	for _, name := range []string{"apparmor_parser", "/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &Error{"find apparmor_parser", errors.ErrUnsupported, "install AppArmor's user space, or load a profile that was compiled elsewhere"}
}

// DockerDefault is the profile that Docker gives containers, under a name of the caller's choice: all but mounting, tracing of other profiles, the dangerous files
// of /proc and /sys, and sockets of families that containers have no use for: obsolete ones, AF_ALG, and AF_VSOCK, which leads out of a virtual machine.
// A caller that is itself confined, and wants to send signals to the command, adds a [SignalRule] with the name of its own profile.
func DockerDefault(name string) Profile {
	deny := func(path, perms string) FileRule { return FileRule{Deny: true, Path: path, Perms: perms} }
	network := []NetworkRule{{}}
	for _, family := range [...]string{"ax25", "ipx", "appletalk", "netrom", "rose", "econet", "atmsvc", "irda", "wanpipe", "alg", "vsock"} {
		network = append(network, NetworkRule{Deny: true, Family: family})
	}
	return Profile{
		Name: name, AttachDisconnected: true, MediateDeleted: true, Abstractions: []string{"base"},
		Network: network, Capabilities: []CapabilityRule{{}},
		Files: []FileRule{{},
			deny("@{PROC}/*", "w"), // not in a directory of a process
			deny("@{PROC}/{[^1-9/],[^1-9/][^0-9/],[^1-9s/][^0-9y/][^0-9s/],[^1-9/][^0-9/][^0-9/][^0-9/]*}/**", "w"),
			deny("@{PROC}/sys/[^k]**", "w"),
			deny("@{PROC}/sys/kernel/{?,??,[^s][^h][^m]**}", "w"),
			deny("@{PROC}/sysrq-trigger", "rwklx"), deny("@{PROC}/kcore", "rwklx"),
			deny("/sys/[^f]*/**", "wklx"), deny("/sys/f[^s]*/**", "wklx"), deny("/sys/fs/[^c]*/**", "wklx"),
			deny("/sys/fs/c[^g]*/**", "wklx"), deny("/sys/fs/cg[^r]*/**", "wklx"),
			deny("/sys/firmware/**", "rwklx"), deny("/sys/devices/virtual/powercap/**", "rwklx"), deny("/sys/kernel/security/**", "rwklx"),
		},
		Mounts:  []MountRule{{Op: "umount"}, {Deny: true}},
		Ptrace:  []PtraceRule{{Access: []string{"trace", "read", "tracedby", "readby"}, Peer: name}},
		Signals: []SignalRule{{Access: []string{"receive"}, Peer: "unconfined"}, {Access: []string{"receive"}, Peer: "runc"}, {Access: []string{"receive"}, Peer: "crun"}, {Access: []string{"send", "receive"}, Peer: name}},
	}
}
