package namespaces

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// start starts the plan with a shell command. The caller gets what it printed, or why it did not start.
func start(t *testing.T, p *plan.Plan, script string) (string, error) {
	t.Helper()
	return startWith(t, launch.Options{}, p, script)
}

func startWith(t *testing.T, opt launch.Options, p *plan.Plan, script string) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd := &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Env: os.Environ(), Files: []*os.File{nil, w, w}}
	proc, err := launch.Start(context.Background(), p, cmd, opt)
	w.Close()
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	var ws unix.WaitStatus
	_, err = retry(func() (int, error) { return unix.Wait4(proc.PID, &ws, 0, nil) })
	require.NoError(t, err)
	require.NoError(t, proc.Release())
	return strings.TrimSpace(string(out)), nil
}

// says starts the parts and gives what the command printed.
func says(t *testing.T, script string, parts ...plan.Primitive) string {
	t.Helper()
	out, err := start(t, plan.Build(parts...), script)
	require.NoError(t, err)
	return out
}

// refused starts the parts, which must fail.
func refused(t *testing.T, parts ...plan.Primitive) error {
	t.Helper()
	out, err := start(t, plan.Build(parts...), "echo started")
	require.Error(t, err, out)
	return err
}

// sleeper starts a process that stays until the test is over.
func sleeper(t *testing.T, parts ...plan.Primitive) (pid int, pidfd *os.File) {
	t.Helper()
	cmd := &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "1000"}, Files: []*os.File{nil, nil, nil}}
	proc, err := launch.Start(context.Background(), plan.Build(parts...), cmd, launch.Options{})
	require.NoError(t, err)
	t.Cleanup(func() {
		unix.Kill(proc.PID, unix.SIGKILL)
		var ws unix.WaitStatus
		retry(func() (int, error) { return unix.Wait4(proc.PID, &ws, 0, nil) })
		require.NoError(t, proc.Release())
	})
	return proc.PID, proc.PIDFD
}

// asRoot skips where the test process has not all that root has for namespaces.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("needs root, this is user %d", os.Geteuid())
	}
	for _, c := range []int{unix.CAP_SYS_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETFCAP} {
		if !hasCap(c) {
			t.Skipf("needs capability %d, which this root lacks", c)
		}
	}
}

const nobody = 65534

// asOrdinary reports whether the test is to go on: as an ordinary user. As root it runs the test again as one, in a
// process of its own, and fails if that did not pass.
func asOrdinary(t *testing.T) bool {
	t.Helper()
	return asUser(t, 12345)
}

func asUser(t *testing.T, id uint32, env ...string) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	c.Dir, c.Env = "/", append(os.Environ(), append(env, "TMPDIR=/tmp", "GORACE=atexit_sleep_ms=0")...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	out, err := c.CombinedOutput()
	text := string(out)
	require.NoError(t, err, text)
	if i := strings.Index(text, "--- SKIP: "+t.Name()); i >= 0 {
		t.Skip("as an ordinary user: " + text[i:])
	}
	require.Contains(t, text, "--- PASS: "+t.Name(), text)
	return false
}

// hasUserNamespaces skips where the system forbids them to ordinary users, which it says itself.
func hasUserNamespaces(t *testing.T) {
	t.Helper()
	c := exec.Command("/bin/true")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	if err := c.Run(); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this system forbids user namespaces to ordinary users: %v", err)
	}
}

// hasNamespace skips where the kernel lacks a kind of namespace.
func hasNamespace(t *testing.T, k Set) {
	t.Helper()
	if _, err := os.Stat(processFile(0, k)); errors.Is(err, os.ErrNotExist) {
		t.Skipf("this kernel has no %v namespaces", k)
	}
}

// hasCommand skips where a program is not installed.
func hasCommand(t *testing.T, name, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%v: it is in %s", err, pkg)
	}
}

// loops is how often to try: few times on machines that ask for it.
func loops(n int) int {
	if os.Getenv("CAISSON_SLOW") != "" {
		return max(2, n/8)
	}
	return n
}

// whoami is a command that tells what id and /proc know of it; who reads that: user, group and supplementary groups,
// whether setgroups is allowed, and both maps.
const whoami = "cat /proc/self/status /proc/self/setgroups /proc/self/uid_map /proc/self/gid_map"

func who(t *testing.T, out string) string {
	t.Helper()
	lines := strings.Split(out, "\n")
	text := field(out, "Uid") + " " + field(out, "Gid") + " " + strings.Join(strings.Fields(statusLine(out, "Groups")), ",")
	for i, l := range lines {
		if l == "allow" || l == "deny" {
			return text + "\n" + l + "\n" + strings.Join(strings.Fields(strings.Join(lines[i+1:], " ")), " ")
		}
	}
	t.Fatal(out)
	return ""
}

// statusLine gives what stands behind a name in /proc/PID/status.
func statusLine(status, name string) string {
	_, rest, _ := strings.Cut("\n"+status, "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func field(status, name string) string {
	return strings.Fields(statusLine(status, name) + " ?")[0]
}

// link is what /proc/PID/ns shows of a process; 0 is the test.
func link(t *testing.T, pid int, k Set) string {
	t.Helper()
	self := "self"
	if pid != 0 {
		self = strconv.Itoa(pid)
	}
	text, err := os.Readlink("/proc/" + self + "/ns/" + k.kind().file)
	require.NoError(t, err)
	return text
}

// golden compares what the parts put into a plan with a file in testdata. UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name string, parts ...plan.Primitive) {
	t.Helper()
	p := plan.Build(parts...)
	require.NoError(t, p.Err())
	require.Equal(t, p.String(), plan.Build(parts...).String(), "applied twice")
	var b strings.Builder
	for _, s := range p.Steps(nil) {
		switch {
		case s.Kind == plan.StepCall && s.Primitive != "launch":
			fmt.Fprintf(&b, "%-8v %v  # %s\n", s.Phase, s, s.Primitive)
		case s.Kind == plan.StepAction || s.Kind == plan.StepOpen:
			fmt.Fprintf(&b, "%-8v %v  # %s\n", "before", s, s.Primitive)
		case s.Kind == plan.StepWhile:
			fmt.Fprintf(&b, "%-8v %v  # %s\n", "waited", s, s.Primitive)
		case s.Kind == plan.StepClone || s.Kind == plan.StepReclone || strings.HasPrefix(s.String(), "unshare"):
			fmt.Fprintf(&b, "%-8v %v\n", "launch", s)
		}
	}
	file := filepath.Join("testdata", name+".golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// ids applies the map as for a caller with these rights.
func ids(m IDs, c caller) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error { return m.applyFor(p, c) })
}

var (
	rootCaller     = caller{setuid: true, setgid: true}
	ordinaryCaller = caller{uid: 1000, gid: 100,
		findUID: func() (string, error) { return "/usr/bin/newuidmap", nil }, findGID: func() (string, error) { return "/usr/bin/newgidmap", nil }}
)

func readAll(name string) (string, error) {
	b, err := os.ReadFile(name)
	return string(b), err
}
