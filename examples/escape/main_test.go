//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/plan"
)

func needNamespaces(t *testing.T) {
	c := exec.Command("/bin/true")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	if err := c.Run(); err != nil {
		t.Skipf("the user may not make a user namespace: %v", err)
	}
}

// TestEscape: the door is open without a module, and each module that is enabled closes it.
func TestEscape(t *testing.T) {
	needNamespaces(t)
	var out bytes.Buffer
	held, err := show(&out)
	t.Logf("\n%s", out.String())
	if err != nil || !held {
		t.Fatalf("held %t, %v", held, err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 1+len(layers) || !strings.HasSuffix(lines[0], secret) {
		t.Fatalf("%q", lines)
	}
	enforcing := map[string]bool{"Landlock": lsm.LandlockABI() > 0, "AppArmor": module(t, "apparmor"), "SELinux": module(t, "selinux")}
	for i, l := range layers {
		if line := lines[i+1]; strings.Contains(line, "stopped it") != enforcing[l.name] {
			t.Errorf("%s is enforcing: %t; but %q", l.name, enforcing[l.name], line)
		}
	}
}

// module says whether the kernel lane's machine enforces it; elsewhere tools or a policy for it may be missing.
func module(t *testing.T, name string) bool {
	m, err := lsm.Active()
	if err == nil && m.Has(name) && os.Getenv("CAISSON_GUEST_LSM") != name {
		t.Skipf("%s is enabled, but this is no machine of the kernel lane's", name)
	}
	return err == nil && m.Has(name)
}

// TestNotHeld: a wall that does not hold is said to be none.
func TestNotHeld(t *testing.T) {
	needNamespaces(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/secret", []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	open := layer{"paper", func(string) (plan.Primitive, func(), error) {
		return plan.Func(func(*plan.Plan) error { return nil }), nothing, nil
	}}
	if open.try(&out, dir) || !strings.Contains(out.String(), "DID NOT HOLD") {
		t.Error(out.String())
	}
}
