//go:build linux

package main

import (
	"context"
	"os/exec"
	"testing"

	"github.com/caisson-dev/caisson/lsm"
)

// TestAppArmorFlag: the command has the profile, which forbids it a file.
func TestAppArmorFlag(t *testing.T) {
	active, err := lsm.Active()
	if err != nil || !active.Has("apparmor") {
		t.Skip("needs AppArmor: ", active, err)
	}
	needRoot(t)
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		t.Skip("needs apparmor_parser (package apparmor)")
	}
	const name = "caisson-test-run"
	p := lsm.Profile{Name: name, AttachDisconnected: true, MediateDeleted: true, Network: []lsm.NetworkRule{{}}, Capabilities: []lsm.CapabilityRule{{}},
		Files:  []lsm.FileRule{{}, {Deny: true, Path: "/etc/passwd", Perms: "rwkl"}},
		Mounts: []lsm.MountRule{{}, {Op: "umount"}, {Op: "pivot_root"}}, Ptrace: []lsm.PtraceRule{{}}, Signals: []lsm.SignalRule{{}}}
	must(t, p.Load(context.Background()))
	t.Cleanup(func() { must(t, lsm.RemoveProfile(name)) })
	flags := []string{"--security-opt", "apparmor=" + name}
	try(t, in(flags, "cat", "/proc/self/attr/current")...).has(t, 0, name+" (enforce)", "")
	try(t, in(flags, "cat", "/etc/passwd")...).has(t, 1, "open /etc/passwd: permission denied", "")
	try(t, in([]string{"--security-opt", "apparmor=" + name + "-none"}, "true")...).fails(t, 125, name+"-none")
}
