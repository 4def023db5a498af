//go:build linux

package caisson

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// Cmd is a command to be executed in a sandbox, or one that is. Its fields and methods are those of os/exec's Cmd and
// behave as documented there; what differs is said below. It cannot be used again after Start. It is made by
// [Sandbox.Command], [Sandbox.CommandContext], [Process.Exec] and [Process.ExecContext].
//
// There is no SysProcAttr: each of its fields has a part that a sandbox can be made with.
type Cmd struct {
	// Path is the program. In a sandbox with a root of its own it is a path inside, and may be a name that is looked
	// up there; see [Sandbox.Command].
	Path string

	// Args holds the arguments, the program's name first. Empty means {Path}.
	Args []string

	// Env is the environment, "key=value"; of two values of one key the last one counts. Nil is the environment of the
	// caller; an empty slice that is not nil is an empty environment.
	Env []string

	// Dir is the working directory, in a sandbox with a root of its own a path inside. "" is the caller's own, and the root directory in
	// a sandbox with a root of its own. A path through a link of /proc/PID/fd is refused.
	Dir string

	// Stdin is the standard input. Nil is /dev/null of the host; an *os.File is passed on as it is; from anything
	// else a goroutine copies into a pipe.
	Stdin io.Reader

	// Stdout and Stderr are the standard outputs, with the same rules. If they are the same writer, of a type that can be
	// compared, at most one goroutine at a time calls its Write.
	Stdout io.Writer
	Stderr io.Writer

	// ExtraFiles are passed on as descriptors 3 and following; a nil entry is a closed descriptor, and a file that has been
	// closed is an error, also as Stdin, Stdout and Stderr. All other descriptors of the caller are
	// closed in the child, whoever opened them, close-on-exec or not.
	ExtraFiles []*os.File

	// Terminal gives the command a terminal of its own: see [Terminal]. Nil leaves it without one.
	Terminal *Terminal

	// Process is the running command, after Start.
	Process *Process

	// ProcessState is what is known about the end of the command, after Wait.
	ProcessState *os.ProcessState

	// Err is an error of the lookup of Path. Start returns it.
	Err error

	// Cancel is called when the context has ended before the command. CommandContext sets it to kill everything inside.
	Cancel func() error

	// WaitDelay bounds the time from the end of the context, or of the command, to the end of Wait. When it is over, the command is killed
	// and pipes are closed that something else holds open; Wait then returns os/exec.ErrWaitDelay if there is no
	// other error. Zero is no bound.
	WaitDelay time.Duration

	ctx      context.Context
	plan     *plan.Plan
	parts    []plan.Primitive
	in       *Process // Exec: the sandbox
	started  atomic.Bool
	waited   bool
	io       plumbing
	canceler *canceler
	begin    time.Time
	result   Result
	options  launch.Options
}

func (c *Cmd) withContext(ctx context.Context) *Cmd {
	if ctx == nil {
		panic("nil Context")
	}
	c.ctx = ctx
	c.Cancel = func() error { return c.Process.Kill() }
	return c
}

// String gives the command for people to read: the path and the arguments, joined by spaces.
func (c *Cmd) String() string {
	if c.Err != nil {
		return strings.Join(c.Args, " ")
	}
	return strings.Join(append([]string{c.Path}, c.argv()[1:]...), " ")
}

// Environ gives a copy of the environment in which the command would be executed. Where Dir is set, PWD is set to it.
func (c *Cmd) Environ() []string {
	if c.Env == nil && c.Dir == "" {
		return os.Environ() // in which each key is there once
	}
	std := exec.Cmd{Env: c.Env, Dir: c.Dir}
	return std.Environ()
}

func (c *Cmd) argv() []string {
	if len(c.Args) > 0 {
		return c.Args
	}
	return []string{c.Path}
}

// Plan prints what Start would do, step by step.
func (c *Cmd) Plan() string {
	cmd, err := c.checked()
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	cmd.Files = make([]*os.File, 3+len(c.ExtraFiles))
	return c.fullPlan().Text(cmd)
}

// fullPlan is the plan of the sandbox, or of a further command in it.
func (c *Cmd) fullPlan() *plan.Plan {
	switch {
	case c.Terminal != nil:
		return c.planWithTerminal()
	case c.in == nil:
		return c.plan
	}
	return c.in.again()
}

func (c *Cmd) command() *plan.Command {
	env := c.Environ()
	cmd := &plan.Command{Candidates: []string{c.Path}, Args: c.argv(), Env: env, Dir: c.Dir}
	if ownRoot(c.plan, c.in) {
		cmd.Candidates = candidates(c.Path, env)
	}
	cmd.Init = c.in == nil && c.plan.Has(plan.InitProg)
	return cmd
}

// check finds what can be known before anything is touched.
func (c *Cmd) check() error {
	switch {
	case c.plan == nil:
		return errors.New("exec: Cmd was not made by a Sandbox")
	case c.Err != nil:
		return c.Err
	case c.Path == "":
		return errors.New("exec: no command")
	case c.Cancel != nil && c.ctx == nil:
		return errors.New("exec: command with a non-nil Cancel was not created with CommandContext")
	case c.WaitDelay < 0:
		return fmt.Errorf("exec: negative WaitDelay: %w", syscall.EINVAL)
	}
	for _, s := range [][]string{{c.Path, c.Dir}, c.Args, c.Env} {
		if err := noNUL(s); err != nil {
			return err
		}
	}
	if err := c.plan.Err(); err != nil {
		return err
	}
	return c.checkTerminal()
}

// checked gives the command, or what can be known to be wrong with it.
func (c *Cmd) checked() (*plan.Command, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	cmd := c.command()
	if len(cmd.Candidates) == 0 {
		return nil, &exec.Error{Name: c.Path, Err: exec.ErrNotFound}
	}
	return cmd, nil
}

// checkDir looks for the working directory where the sandbox has the caller's files: then nothing needs to be set up and undone.
func (c *Cmd) checkDir() error {
	if c.Dir == "" || c.in != nil || ownRoot(c.plan, c.in) || c.plan.Joined()&unix.CLONE_NEWNS != 0 {
		return nil
	}
	if _, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		err.(*fs.PathError).Op = "chdir"
		return err
	}
	return nil
}

func noNUL(ss []string) error {
	for _, s := range ss {
		if strings.IndexByte(s, 0) >= 0 {
			return fmt.Errorf("exec: NUL byte in %q: %w", s, syscall.EINVAL)
		}
	}
	return nil
}

// Start starts the command and does not wait for it to end. When it returns without an error, the command has been executed, and Wait must be
// called. An error in building the sandbox is an [*Error]; nothing is left behind then.
func (c *Cmd) Start() error {
	if c.started.Swap(true) {
		return errors.New("exec: already started")
	}
	err := c.start()
	c.io.closeChildSide()
	if err != nil {
		c.io.closeParentSide()
		return err
	}
	c.io.copy()
	c.canceler = c.watch()
	return nil
}

func (c *Cmd) start() error {
	cmd, err := c.checked()
	if err != nil {
		return err
	}
	if c.ctx != nil && c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	if err := c.checkDir(); err != nil {
		return err
	}
	if cmd.Files, err = c.io.files(c.Stdin, c.Stdout, c.Stderr); err != nil {
		return err
	}
	cmd.Files = append(cmd.Files, c.ExtraFiles...)
	if err := open(cmd.Files); err != nil {
		return err
	}
	c.begin = time.Now()
	c.Process, err = c.Terminal.withTerminal(func() (*Process, error) { return c.launch(cmd) })
	return err
}

// open refuses files that have been closed: the command would get other files under their numbers, or none.
func open(files []*os.File) error {
	for i, f := range files {
		if f != nil && f.Fd() == ^uintptr(0) {
			return fmt.Errorf("exec: descriptor %d: %w", i, os.ErrClosed)
		}
	}
	return nil
}

func (c *Cmd) launch(cmd *plan.Command) (*Process, error) {
	ctx := c.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	p, opt := c.fullPlan(), c.options
	if c.in != nil {
		opt.Inherit = c.in.child.Run
	}
	child, err := launch.Start(ctx, p, cmd, opt)
	if err != nil {
		return nil, notFound(err, !strings.Contains(c.Path, "/"))
	}
	process := newProcess(c, child)
	if c.in != nil && (c.plan.Cloned()|c.plan.Joined())&unix.CLONE_NEWPID != 0 {
		// The first process of a pid namespace does not end before all others in it have been waited for, also those
		// whose parent is outside: whoever waits for the sandbox would wait for whoever waits for this command.
		go process.Wait()
	}
	return process, nil
}

// notFound makes a program that does not exist an exec.ErrNotFound too. Where several directories were searched, one of them may
// be a file.
func notFound(err error, searched bool) error {
	e, ok := err.(*Error)
	if ok && e.Step == e.Steps && (errors.Is(e.Err, syscall.ENOENT) || searched && errors.Is(e.Err, syscall.ENOTDIR)) {
		e.Err = &missing{e.Err}
	}
	return err
}

type missing struct{ err error }

func (m *missing) Error() string   { return m.err.Error() }
func (m *missing) Unwrap() []error { return []error{m.err, exec.ErrNotFound} }

// Run starts the command and waits for it to end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Wait waits for the command to end, and for the copying from Stdin and to Stdout and Stderr. A command that ended without success gives an
// *os/exec.ExitError.
func (c *Cmd) Wait() error {
	if c.Process == nil {
		return errors.New("exec: not started")
	}
	if c.waited {
		return errors.New("exec: Wait was already called")
	}
	c.waited = true
	state, err := c.Process.Wait()
	c.ProcessState = state
	c.Terminal.ended(c.WaitDelay)
	if state != nil && !state.Success() {
		exit := &exec.ExitError{ProcessState: state}
		if err == nil {
			err = exit
		} else {
			err = errors.Join(exit, err) // something could not be undone
		}
	}
	cancelErr := c.canceler.processEnded(c)
	copyErr := c.io.wait()
	delayed := c.canceler.stop()
	c.io.closeParentSide()
	c.result = c.Process.outcome(c.begin, c.canceler.cause)
	for _, e := range []error{cancelErr, delayed, copyErr} {
		if err == nil {
			err = e
		}
	}
	return err
}

// Output runs the command and gives its standard output. If Stderr is nil, an *os/exec.ExitError holds the beginning and the end of the standard error.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("exec: Stdout already set")
	}
	var out bytes.Buffer
	c.Stdout = &out
	var edges *edges
	if c.Stderr == nil {
		edges = newEdges(32 << 10)
		c.Stderr = edges
	}
	err := c.Run()
	var exit *exec.ExitError
	if edges != nil && errors.As(err, &exit) {
		exit.Stderr = edges.bytes()
	}
	return out.Bytes(), err
}

// CombinedOutput runs the command and gives its standard output and standard error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("exec: Stdout already set")
	}
	if c.Stderr != nil {
		return nil, errors.New("exec: Stderr already set")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// StdinPipe gives a pipe to the command's standard input. Wait closes it; a caller that wants the command to see the end of its input earlier closes it
// itself.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil {
		return nil, errors.New("exec: Stdin already set")
	}
	r, w, err := c.pipe("StdinPipe")
	if err != nil {
		return nil, err
	}
	c.Stdin = r
	c.io.child, c.io.parent = append(c.io.child, r), append(c.io.parent, w)
	return w, nil
}

// StdoutPipe gives a pipe from the command's standard output. Wait closes it, so all must have been read before Wait is called.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	if c.Stdout != nil {
		return nil, errors.New("exec: Stdout already set")
	}
	r, w, err := c.pipe("StdoutPipe")
	if err != nil {
		return nil, err
	}
	c.Stdout = w
	c.io.child, c.io.parent = append(c.io.child, w), append(c.io.parent, r)
	return r, nil
}

// StderrPipe gives a pipe from the command's standard error. Wait closes it, so all must have been read before Wait is called.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	if c.Stderr != nil {
		return nil, errors.New("exec: Stderr already set")
	}
	r, w, err := c.pipe("StderrPipe")
	if err != nil {
		return nil, err
	}
	c.Stderr = w
	c.io.child, c.io.parent = append(c.io.child, w), append(c.io.parent, r)
	return r, nil
}

func (c *Cmd) pipe(method string) (r, w *os.File, err error) {
	if c.Process != nil {
		return nil, nil, errors.New("exec: " + method + " after process started")
	}
	return os.Pipe()
}
