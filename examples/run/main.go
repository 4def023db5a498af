//go:build linux

// Command run is docker run without Docker: it starts a command in a sandbox, and takes the flags that docker run does.
//
//	run -- python3 -c 'print(6*7)'
//	run -it --rootfs ./alpine sh
//	run -v "$PWD:/tmp/src:ro" -w /tmp/src --timeout 10s make test
//	run --explain -- true
//
// Without --rootfs the command sees the host's own files, read-only, with scratch directories on /tmp and /run. It works
// on any machine, and an ordinary user needs no privilege. run --help prints the flags.
//
// What the command may do is what docker run lets it do: Docker's default capabilities, less mknod, its filter of system calls, its
// masked paths. As root, without --userns, the command's root is the host's, cut down by these. --userns=auto makes it nobody
// outside.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/plan"
)

// The exit codes that are not the command's own, as docker run has them.
const (
	exitOurs          = 125 // the error is ours: flags, sandbox
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // plus the signal that ended the command
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	os.Exit(code)
}

// run gives the exit code, and an error where the code alone does not tell what has happened.
func run(args []string) (int, error) {
	f, err := parse(args)
	if err != nil {
		return exitOurs, err
	}
	if f.help {
		fmt.Print(usage)
		return 0, nil
	}
	code := exitOurs
	if err = f.unpack(context.Background()); err == nil {
		code, err = f.inSandbox()
	}
	if e := f.finish(); e != nil {
		return exitOurs, errors.Join(err, e)
	}
	return code, err
}

// inSandbox makes the sandbox and runs the command.
func (f *flags) inSandbox() (int, error) {
	ctx, cancel := f.context()
	defer cancel()
	who, err := f.account(f.readInRoot)
	if err != nil {
		return exitOurs, err
	}
	cmd, err := f.cmd(ctx, who)
	if err != nil {
		return exitOurs, err
	}
	if f.explain {
		fmt.Print(cmd.Plan())
		return 0, nil
	}
	return f.execute(cmd)
}

func (f *flags) context() (context.Context, context.CancelFunc) {
	if f.timeout == 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), f.timeout)
}

// connection is how the command is connected with the caller: by a terminal of its own or by its standard descriptors.
type connection interface {
	begin()   // the command has been started
	drain()   // it has ended: wait for its output
	restore() // leave the caller's terminal as it was; called in any case
}

func (f *flags) connect(cmd *caisson.Cmd) (connection, error) {
	if f.tty {
		return f.openTerminal(cmd)
	}
	return connectPipes(cmd, f.interactive)
}

// execute runs the command to its end.
func (f *flags) execute(cmd *caisson.Cmd) (int, error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwarded()...) // before the start: none may end us from here on
	c, err := f.connect(cmd)
	if err != nil {
		return exitOurs, err
	}
	defer c.restore()
	if err := cmd.Start(); err != nil {
		return f.notStarted(err, cmd.Path)
	}
	f.started = true
	c.begin()
	go forward(signals, cmd.Process)
	err = cmd.Wait()
	c.drain()
	if f.stats {
		printStats(os.Stderr, cmd.Result())
	}
	return f.ended(cmd.Result(), err)
}

// forwarded are the signals that would end us: they are the command's. As PID 1 the command gets those for which it has
// a handler (pid_namespaces(7)); with --init it gets all.
func forwarded() []os.Signal {
	return []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
		syscall.SIGTERM, syscall.SIGVTALRM, syscall.SIGIO, syscall.SIGPWR}
}

func forward(signals <-chan os.Signal, p *caisson.Process) {
	for s := range signals {
		p.Signal(s) // an error means that it has just ended
	}
}

// notStarted is what to say and return when there is no command.
func (f *flags) notStarted(err error, name string) (int, error) {
	var e *caisson.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return f.timedOut()
	case errors.Is(err, exec.ErrNotFound):
		return exitNotFound, fmt.Errorf("%q: no such program in the sandbox, or its interpreter is missing there", name)
	case errors.As(err, &e) && e.Step == e.Steps && notExecutable(e.Err):
		return exitNotExecutable, fmt.Errorf("%q: %v (%s)", name, e.Err, e.Hint)
	}
	return exitOurs, err
}

// notExecutable tells errors of the program from those of the machine: no memory, too many processes.
func notExecutable(err error) bool {
	switch err {
	case syscall.EACCES, syscall.ENOEXEC, syscall.ENOTDIR, syscall.EISDIR, syscall.ELOOP, syscall.EPERM, syscall.ETXTBSY,
		syscall.ELIBBAD, syscall.EINVAL, syscall.E2BIG, syscall.ENAMETOOLONG:
		return true
	}
	return false
}

// ended is what to say and return when the command has ended.
func (f *flags) ended(r caisson.Result, err error) (int, error) {
	exit := new(exec.ExitError)
	switch {
	case r.Reason == plan.TimedOut:
		return f.timedOut()
	case r.Reason == plan.OutOfMemory:
		return exitSignal + int(syscall.SIGKILL), errors.New("killed: the control group has reached its limit of memory (--memory)")
	case r.Reason == plan.Filtered:
		return exitSignal + int(syscall.SIGSYS), filtered(r)
	case r.Signal != 0:
		return exitSignal + int(r.Signal), detail(r)
	case err == nil || errors.As(err, &exit):
		return r.ExitCode, detail(r)
	}
	return exitOurs, err
}

// detail is what the control group knows beside: that processes inside were killed for lack of memory.
func detail(r caisson.Result) error {
	if r.Detail == "" {
		return nil
	}
	return errors.New(r.Detail)
}

// filtered says what is known of the call that the filter has answered with the end.
func filtered(r caisson.Result) error {
	text := "killed by the filter of system calls"
	for _, more := range []string{r.Syscall, r.Detail} {
		if more != "" {
			text += ", " + more
		}
	}
	return errors.New(text)
}

func (f *flags) timedOut() (int, error) {
	return exitSignal + int(syscall.SIGKILL), fmt.Errorf("killed after %v, as --timeout says", f.timeout)
}
