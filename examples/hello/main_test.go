//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestMain makes the test binary be the program that is tested, when it has its name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "hello":
		main()
	case "probe":
		probe()
	case "nothing":
	default:
		os.Exit(m.Run())
	}
}

// probe makes a user namespace.
func probe() {
	c := exec.Command("/proc/self/exe")
	c.Args[0] = "nothing"
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if err := c.Run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

const nobody = 65534

// program makes a program of the test binary that everybody may execute.
func program(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caisson-hello")
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, e1 := os.Executable()
	b, e2 := os.ReadFile(self)
	name := filepath.Join(dir, "hello")
	if err := errors.Join(err, e1, e2, os.Chmod(dir, 0o755), os.WriteFile(name, b, 0o755)); err != nil {
		t.Fatal(err)
	}
	return name
}

func command(name string, uid int) *exec.Cmd {
	c := exec.Command(name)
	c.Dir = "/"
	if uid != os.Geteuid() {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	return c
}

func TestRoot(t *testing.T) {
	if uid := os.Geteuid(); uid != 0 {
		t.Skipf("uid is %d, not 0", uid)
	}
	check(t, 0)
}

func TestUser(t *testing.T) {
	uid := os.Geteuid()
	if uid == 0 {
		uid = nobody
	}
	c := command(program(t), uid)
	c.Args[0] = "probe"
	if out, err := c.CombinedOutput(); err != nil {
		t.Skipf("uid %d may not make a user namespace: %v: %s", uid, err, out)
	}
	check(t, uid)
}

// check runs the program and compares each of its lines.
func check(t *testing.T, uid int) {
	out, err := command(program(t), uid).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	want := []string{"pid 1", "hostname hello", "uid map: 0 inside is " + strconv.Itoa(uid) + " outside, for 1", "interface lo"}
	if len(lines) < len(want) || !slices.Equal(lines[:len(want)], want) {
		t.Fatalf("%q, want %q first", lines, want)
	}
	checkMounts(t, lines[len(want):])
}

// checkMounts: the host's mounts are read-only, and what is on top of them is not.
func checkMounts(t *testing.T, lines []string) {
	top := map[string]string{}
	for _, line := range lines {
		m := regexp.MustCompile(`^mount (\S+) (\S+) (ro|rw)$`).FindStringSubmatch(line)
		if m == nil {
			t.Errorf("%q is no mount", line)
			continue
		}
		top[m[1]] = m[2] + " " + m[3]
	}
	for to, want := range map[string]string{"/proc": "proc rw", "/dev": "tmpfs rw", "/tmp": "tmpfs rw", "/dev/pts": "devpts rw", "/dev/shm": "tmpfs rw"} {
		if top[to] != want {
			t.Errorf("on %s is %q, not %q", to, top[to], want)
		}
		delete(top, to)
	}
	if !strings.HasSuffix(top["/"], " ro") {
		t.Errorf("the root is %q", top["/"])
	}
	for to, what := range top {
		if strings.HasSuffix(what, " rw") && !strings.HasPrefix(to, "/dev/") {
			t.Errorf("%s can be written: %s", to, what)
		}
	}
}
