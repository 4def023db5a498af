//go:build linux

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test binary be run, and be the program that is run: there need not be a compiler where the tests are.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "run":
		main()
	case "tool":
		syscall.Exit(tool(os.Args[1], os.Args[2:])) // with -race os.Exit would sleep a second
	}
	code := m.Run()
	os.RemoveAll(programs())
	os.Exit(code)
}

// programs is a directory that everybody may read, with the programs run and tool.
var programs = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "caisson-run")
	name := filepath.Join(dir, "run")
	self, e1 := os.Executable()
	b, e2 := os.ReadFile(self)
	err = errors.Join(err, e1, e2, os.Chmod(dir, 0o755), os.WriteFile(name, b, 0o755), os.Symlink("run", filepath.Join(dir, "tool")))
	if err != nil {
		panic(err)
	}
	if dynamic(name) {
		relink(name)
	}
	return dir
})

// relink makes the program again, without libraries: with a C compiler package net has some. Where there is no go to do it, tests that need such a
// program are skipped.
func relink(name string) {
	c := exec.Command("go", "test", "-c", "-o", name+".static", ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if c.Run() == nil {
		os.Rename(name+".static", name)
	}
}

// inside is where the programs are in a sandbox that has the host's root.
const inside = "/tmp/programs"

// in gives arguments of run: the flags, and the tool as command.
func in(flags []string, toolArgs ...string) []string {
	args := append([]string{"-v", programs() + ":" + inside + ":ro"}, flags...)
	return append(append(args, "--", inside+"/tool"), toolArgs...)
}

// outcome is how a run has ended.
type outcome struct {
	stdout, stderr string
	code           int
}

// has fails the test unless the run ended with the code, and the outputs are these up to spaces at the ends.
func (o outcome) has(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	if o.code != code || strings.TrimSpace(o.stdout) != stdout || strings.TrimSpace(o.stderr) != stderr {
		t.Fatalf("got %d, %q, %q; want %d, %q, %q", o.code, o.stdout, o.stderr, code, stdout, stderr)
	}
}

// fails fails the test unless the run has nothing but one line on standard error, which contains what.
func (o outcome) fails(t *testing.T, code int, what string) {
	t.Helper()
	line, one := strings.CutSuffix(o.stderr, "\n")
	if o.code != code || o.stdout != "" || !one || strings.Contains(line, "\n") || !strings.HasPrefix(line, "run: ") || !strings.Contains(line, what) {
		t.Fatalf("got %d, %q, %q; want %d and one line with %q", o.code, o.stdout, o.stderr, code, what)
	}
}

// ordinary is a user without privilege: nobody, or who runs the tests.
func ordinary() int {
	if uid := os.Geteuid(); uid != 0 {
		return uid
	}
	return 65534
}

// command gives run, as the user.
func command(uid int, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(programs(), "run"), args...)
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "OUTSIDE=yes", "GORACE=atexit_sleep_ms=0"}
	c.Dir = "/"
	if uid != os.Geteuid() {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	return c
}

// try runs run to its end as whoever runs the tests.
func try(t *testing.T, args ...string) outcome {
	t.Helper()
	return end(t, command(os.Geteuid(), args...))
}

func end(t *testing.T, c *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	timer := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
	defer timer.Stop()
	err := c.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{stdout.String(), stderr.String(), c.ProcessState.ExitCode()}
}

// needRoot skips the tests of what only root can do.
func needRoot(t *testing.T) {
	t.Helper()
	if uid := os.Geteuid(); uid != 0 {
		t.Skipf("uid is %d, not 0", uid)
	}
}

// needUser skips where the kernel does not let an ordinary user make a user namespace.
func needUser(t *testing.T) {
	t.Helper()
	c := command(ordinary())
	c.Path, c.Args = filepath.Join(programs(), "tool"), []string{"tool", "newuser"}
	if o := end(t, c); o.code != 0 {
		t.Skipf("uid %d may not make a user namespace: %s", ordinary(), o.stdout)
	}
}

// rootfs is a root directory with the tool, and with users of its own.
func rootfs(t *testing.T) string {
	t.Helper()
	needStatic(t)
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nbroken\nalice:x:1234:1235::/home/alice:\nbob:x:1236:1236:::\n",
		"etc/group":  "root:x:0:\nalice:x:1235:\nstaff:x:50:bob,alice\nvideo:x:44:\n",
		"etc/subuid": "root:200000:65536\n", "etc/subgid": "root:300000:65536\n",
		"bin/plain": "just text\n", "bin/closed": "#!/bin/tool\n", "bin/lost": "#!/no/such/interpreter\n",
	}
	for _, d := range []string{"etc", "bin", "tmp", "home/alice"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	must(t, os.Chmod(filepath.Join(dir, "bin/closed"), 0o644))
	for _, name := range []string{"run", "tool"} {
		must(t, os.Link(filepath.Join(programs(), "run"), filepath.Join(dir, "bin", name)))
	}
	return dir
}

// needStatic: the test binary is the only program in the root directory, without libraries.
func needStatic(t *testing.T) {
	t.Helper()
	if dynamic(filepath.Join(programs(), "run")) {
		t.Skip("the test binary is dynamically linked, and there is no go to make another one: it does not work alone in a root directory")
	}
}

func dynamic(name string) bool {
	f, err := elf.Open(name)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wait waits for text in the output, for ten seconds at most.
func wait(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	var all bytes.Buffer
	found := make(chan bool, 1)
	go func() {
		b := make([]byte, 4096)
		for !strings.Contains(all.String(), text) {
			n, err := r.Read(b)
			all.Write(b[:n])
			if err != nil {
				found <- strings.Contains(all.String(), text)
				return
			}
		}
		found <- true
	}()
	select {
	case ok := <-found:
		if !ok {
			t.Fatalf("no %q in %q", text, all.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("no %q in 30 s", text)
	}
	return all.String()
}

func Example_flags() {
	// A program with arguments of its own: flags of run end at the first argument that is none.
	f, err := parse([]string{"-it", "--rootfs", "/srv/alpine", "sh", "-c", "echo"})
	fmt.Println(f.interactive, f.tty, f.rootfs, f.command, err)
	// Output: true true /srv/alpine [sh -c echo] <nil>
}
