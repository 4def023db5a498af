//go:build linux

package caisson

import (
	"context"
	"os/exec"
	"slices"
	"strings"

	"github.com/caisson-dev/caisson/plan"
)

// Error says which step of a start failed, and why. It unwraps to the errno. A program that was not found is also
// exec.ErrNotFound for errors.Is.
type Error = plan.Error

// Sandbox describes in what commands are started. It is an immutable value that can be used from several goroutines at once. The zero value
// isolates nothing.
type Sandbox struct {
	parts []plan.Primitive
	plan  *plan.Plan
}

// New makes a sandbox of its parts. Nothing is done but to validate them; an error is returned by [Sandbox.Err] and by each start.
func New(parts ...plan.Primitive) Sandbox { return Sandbox{}.With(parts...) }

// With gives a sandbox with further parts; s is unchanged. Two parts that provide the same thing are a
// [plan.ConflictError].
func (s Sandbox) With(parts ...plan.Primitive) Sandbox {
	all := slices.Concat(s.parts, parts)
	return Sandbox{parts: all, plan: plan.Build(all...)}
}

// Plan is what a start does, step by step; printed, it reads like the output of strace(1). The plan of a command with
// its arguments is given by [Cmd.Plan].
func (s Sandbox) Plan() *plan.Plan {
	if s.plan == nil {
		return plan.Build()
	}
	return s.plan
}

// Err is the first error of the parts, or nil. Each start returns it as well.
func (s Sandbox) Err() error { return s.Plan().Err() }

// Command gives a Cmd that executes the named program with the arguments in the sandbox, as os/exec.Command does.
//
// In a sandbox without a root of its own, a name without a slash is looked up in the PATH of the caller, with
// os/exec's rules ([os/exec.ErrDot]). In a sandbox with a root of its own it is looked up inside, when the command is
// started, in the absolute directories of the PATH in [Cmd.Env].
func (s Sandbox) Command(name string, arg ...string) *Cmd {
	c := newCmd(s.Plan(), nil, name, arg)
	c.parts = s.parts
	return c
}

// CommandContext is like Command, and kills the command when the context ends before it does: see [Cmd.Cancel] and
// [Cmd.WaitDelay]. The context also bounds the start. A nil context panics, as in os/exec.
func (s Sandbox) CommandContext(ctx context.Context, name string, arg ...string) *Cmd {
	return s.Command(name, arg...).withContext(ctx)
}

func newCmd(p *plan.Plan, in *Process, name string, arg []string) *Cmd {
	c := &Cmd{Path: name, Args: append([]string{name}, arg...), plan: p, in: in}
	if !ownRoot(p, in) {
		std := exec.Command(name)
		c.Path, c.Err = std.Path, std.Err
	}
	return c
}

func ownRoot(p *plan.Plan, in *Process) bool { return p.Has(plan.RootDir) || in != nil && in.ownRoot }

// defaultPath is where programs are looked up when the command's environment has no PATH: Docker's default.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// candidates are the paths that are tried in turn inside a root. Relative directories of PATH are passed over: a program of
// the working directory is not executed by accident.
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var all []string
	for _, dir := range strings.Split(path, ":") {
		if strings.HasPrefix(dir, "/") {
			all = append(all, strings.TrimRight(dir, "/")+"/"+name)
		}
	}
	return all
}
