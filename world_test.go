package caisson_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/dumpable"
	"github.com/caisson-dev/caisson/plan"
)

// runner is what the commands of os/exec and of caisson can do.
type runner interface {
	Start() error
	Wait() error
	Run() error
	Output() ([]byte, error)
	CombinedOutput() ([]byte, error)
	StdinPipe() (io.WriteCloser, error)
	StdoutPipe() (io.ReadCloser, error)
	StderrPipe() (io.ReadCloser, error)
	String() string
	Environ() []string
}

// process is what their processes can do.
type process interface {
	Signal(os.Signal) error
	Kill() error
	Wait() (*os.ProcessState, error)
	WithHandle(func(uintptr)) error
}

// cmd is a command of either, with the fields that both have.
type cmd struct {
	runner
	Path, Dir      *string
	Args, Env      *[]string
	Stdin          *io.Reader
	Stdout, Stderr *io.Writer
	ExtraFiles     *[]*os.File
	Err            *error
	Cancel         *func() error
	WaitDelay      *time.Duration

	process func() process // nil before Start
	pid     func() int
	state   func() *os.ProcessState
	ours    *caisson.Cmd // nil for os/exec's
}

func theirs(c *exec.Cmd) *cmd {
	return &cmd{runner: c, Path: &c.Path, Dir: &c.Dir, Args: &c.Args, Env: &c.Env, Stdin: &c.Stdin, Stdout: &c.Stdout, Stderr: &c.Stderr,
		ExtraFiles: &c.ExtraFiles, Err: &c.Err, Cancel: &c.Cancel, WaitDelay: &c.WaitDelay,
		process: func() process {
			if c.Process == nil {
				return nil
			}
			return c.Process
		},
		pid: func() int { return c.Process.Pid }, state: func() *os.ProcessState { return c.ProcessState }}
}

func ours(c *caisson.Cmd) *cmd {
	return &cmd{runner: c, Path: &c.Path, Dir: &c.Dir, Args: &c.Args, Env: &c.Env, Stdin: &c.Stdin, Stdout: &c.Stdout, Stderr: &c.Stderr,
		ExtraFiles: &c.ExtraFiles, Err: &c.Err, Cancel: &c.Cancel, WaitDelay: &c.WaitDelay, ours: c,
		process: func() process {
			if c.Process == nil {
				return nil
			}
			return c.Process
		},
		pid: func() int { return c.Process.Pid }, state: func() *os.ProcessState { return c.ProcessState }}
}

// world is something that commands are executed in.
type world struct {
	name           string
	command        func(name string, arg ...string) *cmd
	commandContext func(ctx context.Context, name string, arg ...string) *cmd

	ownRoot bool // names are looked up inside, and Dir "" is the root
	pidns   bool // the end of the command is the end of all
	pid1    bool // no signal but SIGKILL reaches a command that has no handler for it
	init    bool // the process is init, which exits with 128 + n for a signal
}

// worlds are os/exec, and what must behave as it does.
func worlds() []world {
	all := allWorlds()
	if os.Getenv("CAISSON_SLOW") == "1" {
		return slices.DeleteFunc(all, func(w world) bool { return w.name == "empty" })
	}
	return all
}

func allWorlds() []world {
	return []world{
		{name: "os/exec",
			command: func(name string, arg ...string) *cmd { return theirs(exec.Command(name, arg...)) },
			commandContext: func(ctx context.Context, name string, arg ...string) *cmd {
				return theirs(exec.CommandContext(ctx, name, arg...))
			}},
		sandboxed(world{name: "empty"}, caisson.New()),
		sandboxed(world{name: "namespaces", ownRoot: true, pidns: true, pid1: true}, caisson.New(isolated()...)),
		sandboxed(world{name: "init", ownRoot: true, pidns: true, init: true}, caisson.New(isolated()...).With(caisson.Init{})),
	}
}

func sandboxed(w world, s caisson.Sandbox) world {
	w.command = func(name string, arg ...string) *cmd { return ours(s.Command(name, arg...)) }
	w.commandContext = func(ctx context.Context, name string, arg ...string) *cmd {
		return ours(s.CommandContext(ctx, name, arg...))
	}
	return w
}

// refused reports whether the error says what is known: that there is no init process for this architecture.
func (w world) refused(err error) bool {
	return w.init && runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" && errors.Is(err, errors.ErrUnsupported)
}

// need skips a world that cannot be here, if it says so itself.
func (w world) need(t *testing.T) {
	t.Helper()
	if w.ownRoot && os.Geteuid() != 0 {
		needUserNamespace(t)
	}
	if err := w.command("/bin/true").Run(); err != nil {
		if w.refused(err) {
			t.Skip(err)
		}
		require.NoError(t, err)
	}
}

// isolated are the parts of an ordinary sandbox: the host's files, a /tmp of its own, and in it the files of the tests.
func isolated() []plan.Primitive {
	parts := []plan.Primitive{clone(unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNS)}
	if os.Geteuid() != 0 {
		parts = append(parts, userNamespace())
	}
	return append(parts, chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"},
		chroot.Bind{Source: os.TempDir(), Target: os.TempDir()})
}

func clone(flags uint64) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		p.Clone(flags)
		return nil
	})
}

// userNamespace is one in which the caller has its own ids, which an ordinary user may make.
func userNamespace() plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		p.Clone(unix.CLONE_NEWUSER)
		p.While(plan.Action{Name: "write the id maps", Do: func(r *plan.Run) error {
			dir := "/proc/" + strconv.Itoa(r.PID)
			return errors.Join(write(r, dir+"/setgroups", "deny"), write(r, dir+"/uid_map", oneID(os.Geteuid())),
				write(r, dir+"/gid_map", oneID(os.Getegid())))
		}})
		return nil
	})
}

func oneID(id int) string { return fmt.Sprintf("%d %d 1", id, id) }

// write writes to a file of the child, which is not ours while another start keeps the dumpable flag cleared, and never again when the
// child has ended.
func write(r *plan.Run, name, text string) (err error) {
	for range 200 {
		err = os.WriteFile(name, []byte(text), 0)
		if !errors.Is(err, syscall.EACCES) || r.Context.Err() != nil {
			return err
		}
		if err := dumpable.Wait(r.Context); err != nil {
			return err
		}
		time.Sleep(50 * time.Microsecond)
	}
	return err
}
