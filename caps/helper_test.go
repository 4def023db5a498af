package caps

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

const nobody = 65534

// user makes the child a user, as caisson.User does.
func user(id int) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		n := plan.Int(id)
		p.Child(plan.Credentials, plan.Call("setgroups", sys.Setgroups, plan.Int(0), plan.Null()),
			plan.Call("setresgid", sys.Setresgid, n, n, n), plan.Call("setresuid", sys.Setresuid, n, n, n))
		return p.Claim(plan.User)
	})
}

// userns makes a user namespace in which the caller is some id, without setresuid(2).
func userns(id int) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		p.Clone(unix.CLONE_NEWUSER)
		p.While(plan.Action{Name: "write id maps", Do: func(r *plan.Run) error {
			dir := fmt.Sprintf("/proc/%d/", r.PID)
			for _, f := range [][2]string{{"setgroups", "deny"}, {"gid_map", fmt.Sprintf("%d %d 1", id, os.Getegid())},
				{"uid_map", fmt.Sprintf("%d %d 1", id, os.Geteuid())}} {
				if err := os.WriteFile(dir+f[0], []byte(f[1]), 0); err != nil {
					return err
				}
			}
			return nil
		}})
		return nil
	})
}

// admin makes the plan need CAP_SYS_ADMIN until phase Last.
var admin = plan.Func(func(p *plan.Plan) error { p.NeedAdmin(); return nil })

// run starts a command and gives what it has printed.
func run(p *plan.Plan, opt launch.Options, args ...string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	path, err := exec.LookPath(args[0])
	if err != nil {
		return "", err
	}
	cmd := &plan.Command{Candidates: []string{path}, Args: args, Env: os.Environ(), Files: []*os.File{nil, w, w}}
	proc, err := launch.Start(context.Background(), p, cmd, opt)
	w.Close()
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	if e := wait(proc); err == nil {
		err = e
	}
	return string(out), err
}

func wait(proc *launch.Process) error {
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(proc.PID, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	return proc.Release()
}

// status is what the command finds itself to have.
func status(t *testing.T, parts ...plan.Primitive) State {
	t.Helper()
	s, err := tryStatus(plan.Build(parts...))
	require.NoError(t, err)
	return s
}

func tryStatus(p *plan.Plan) (State, error) {
	out, err := run(p, launch.Options{}, "cat", "/proc/self/status")
	if err != nil {
		return State{}, err
	}
	s, err := parseStatus(out)
	s.Securebits = 0
	return s, err
}

// sleeper starts a command that stays until the test is over.
func sleeper(t *testing.T, parts ...plan.Primitive) *launch.Process {
	t.Helper()
	cmd := &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "1000"}, Files: []*os.File{nil, nil, nil}}
	proc, err := launch.Start(context.Background(), plan.Build(parts...), cmd, launch.Options{})
	require.NoError(t, err)
	t.Cleanup(func() {
		unix.Kill(proc.PID, unix.SIGKILL)
		require.NoError(t, wait(proc))
	})
	return proc
}

// asRoot skips where the test process lacks what root has.
func asRoot(t *testing.T, needed Set) {
	t.Helper()
	s, err := Current()
	require.NoError(t, err)
	if lacked := needed &^ s.Effective; os.Geteuid() != 0 || lacked != 0 {
		t.Skipf("needs root with %v, this is user %d with %v", needed, os.Geteuid(), s)
	}
}

// asOrdinary reports whether the test is to go on: as an ordinary user. As root it runs the test again as one, in a
// process of its own, and fails if that did not pass.
func asOrdinary(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	again(t, func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	})
	return false
}

// again runs the test in a process of its own.
func again(t *testing.T, change func(*exec.Cmd)) {
	t.Helper()
	c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	c.Dir, c.Env = "/", append(os.Environ(), "TMPDIR=/tmp", "GORACE=atexit_sleep_ms=0")
	change(c)
	out, err := c.CombinedOutput()
	require.NoError(t, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)) // os/exec leaves us undumpable
	text := string(out)
	require.NoError(t, err, text)
	if i := strings.Index(text, "--- SKIP: "+t.Name()); i >= 0 {
		t.Skip("in a process of its own: " + text[i:])
	}
	require.Contains(t, text, "--- PASS: "+t.Name(), text)
}

// hasUserNamespaces skips where the system forbids them to ordinary users, which it says itself.
func hasUserNamespaces(t *testing.T) {
	t.Helper()
	c := exec.Command("/bin/true")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	if err := c.Run(); plan.Errno(err) == syscall.EPERM || plan.Errno(err) == syscall.ENOSPC {
		t.Skipf("this system forbids user namespaces to ordinary users: %v", err)
	}
}

// hasCommand skips where a program is not installed.
func hasCommand(t *testing.T, name, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%v: it is in %s", err, pkg)
	}
}

// slow reports whether the machine is a slow one.
func slow() bool { return os.Getenv("CAISSON_SLOW") != "" || testing.Short() }

// golden compares what the parts put into the plan with a file in testdata. UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name string, parts ...plan.Primitive) {
	t.Helper()
	p := plan.Build(parts...)
	require.NoError(t, p.Err())
	var b strings.Builder
	for _, s := range p.Steps(nil) {
		switch {
		case s.Kind == plan.StepCall && s.Primitive != "launch":
			fmt.Fprintf(&b, "%-12v %v\n", s.Phase, s)
		case s.Kind == plan.StepAction:
			fmt.Fprintf(&b, "%-12v %v\n", "before", s)
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

func buildPlan(parts ...plan.Primitive) *plan.Plan { return plan.Build(parts...) }
