//go:build linux

// Command escape shows why a sandbox wants more than one wall. It starts a command in a root file system of its own, and gives it by mistake a descriptor
// of a directory of the host: through that the command reads a file that does not exist in its world. Then it does the same
// again under each security module that the machine has, and says which of them stopped it:
//
//	go run ./examples/escape
//
// Landlock needs no privilege. AppArmor and SELinux need root, to load a profile and to label a file. The exit status is 0 when all
// that could be tried has held, and the open door was really open.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
)

func main() {
	held, err := show(os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "escape:", err)
	}
	if err != nil || !held {
		os.Exit(1)
	}
}

const secret = "the host's secret"

// layer is a wall.
type layer struct {
	name string
	// build makes the part of the sandbox, and what takes back what it did to the host. errors.ErrUnsupported and fs.ErrPermission: not here.
	build func(dir string) (plan.Primitive, func(), error)
}

var layers = [...]layer{{"Landlock", landlock}, {"AppArmor", appArmor}, {"SELinux", seLinux}}

func show(w io.Writer) (held bool, err error) {
	dir, err := os.MkdirTemp("", "escape")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/secret", []byte(secret+"\n"), 0o644)); err != nil {
		return false, err
	}
	out, err := escape(dir)
	fmt.Fprintf(w, "%-10s %s\n", "no module", out)
	if err != nil || !strings.Contains(out, secret) {
		return false, fmt.Errorf("the door is not open: %w", errors.Join(err, errors.New(out)))
	}
	held = true
	for _, l := range layers {
		held = l.try(w, dir) && held
	}
	return held, nil
}

// try reports false only when the wall did not hold.
func (l layer) try(w io.Writer, dir string) bool {
	part, undo, err := l.build(dir)
	if err != nil {
		fmt.Fprintf(w, "%-10s not tried: %v\n", l.name, err)
		return true
	}
	defer undo()
	out, err := escape(dir, part)
	switch {
	case err == nil && strings.Contains(out, secret):
		fmt.Fprintf(w, "%-10s DID NOT HOLD: %s\n", l.name, out)
		return false
	case strings.Contains(out, "Permission denied"):
		fmt.Fprintf(w, "%-10s stopped it: %s\n", l.name, out)
		return true
	}
	fmt.Fprintf(w, "%-10s gave no answer: %v %s\n", l.name, err, out)
	return false
}

// escape reads the secret by a descriptor of the directory. In the sandbox's own tree it is not there: /tmp is another one.
func escape(dir string, parts ...plan.Primitive) (string, error) {
	leak, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer leak.Close()
	sandbox := caisson.New(
		namespaces.User|namespaces.PID|namespaces.Mount|namespaces.IPC,
		chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"},
	).With(parts...)
	cmd := sandbox.Command("/bin/sh", "-c", `test -e "$0/secret" && echo "it is inside" || cat /proc/self/fd/3/secret`, dir)
	cmd.ExtraFiles = []*os.File{leak} // the mistake
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func nothing() {}

func landlock(string) (plan.Primitive, func(), error) {
	rules := lsm.BestEffort{lsm.Execute("/usr"), lsm.Execute("/bin", "/lib", "/lib64").Optional(), lsm.ReadOnly("/etc", "/proc"), lsm.ReadWrite("/dev", "/tmp")}
	_, err := rules.Prepare()
	return rules, nothing, err
}

// appArmor allows all but what no path of the sandbox leads to: the profile is without AttachDisconnected.
func appArmor(string) (plan.Primitive, func(), error) {
	profile := lsm.Profile{Name: "caisson-escape", Files: []lsm.FileRule{{}}, Capabilities: []lsm.CapabilityRule{{}}, Network: []lsm.NetworkRule{{}}}
	m, err := lsm.Active()
	if err == nil && !m.Has("apparmor") {
		err = errors.ErrUnsupported
	}
	if err == nil {
		err = profile.Load(context.Background())
	}
	return lsm.AppArmor(profile.Name), func() { lsm.RemoveProfile(profile.Name) }, err
}

// seLinux gives the secret to one sandbox, and runs the command as another one. The directory is for all: were it not, the kernel would already
// take the descriptor away at execve.
func seLinux(dir string) (plan.Primitive, func(), error) {
	process, file, err := contexts()
	if err != nil {
		return nil, nil, err
	}
	mine, err := lsm.ReserveCategories()
	if err != nil {
		return nil, nil, err
	}
	theirs, err := lsm.ReserveCategories()
	if err == nil {
		defer theirs.Close()
		err = errors.Join(lsm.Relabel(dir, file.Shared()), lsm.Relabel(dir+"/secret", file.With(theirs.Categories)))
	}
	return lsm.SELinux{Process: process.With(mine.Categories)}, func() { mine.Close() }, err
}

// contexts are those of the host's policy for containers, or else the usual ones, if the policy knows them.
func contexts() (process, file lsm.Context, err error) {
	if process, file, err = lsm.ContainerContexts(); err == nil {
		return process, file, nil
	}
	process = lsm.Context{User: "system_u", Role: "system_r", Type: "container_t", Level: "s0"}
	file = lsm.Context{User: "system_u", Role: "object_r", Type: "container_file_t", Level: "s0"}
	return process, file, lsm.CheckContext(process)
}
