//go:build linux

package seccomp

import (
	"syscall"

	"github.com/caisson-dev/caisson/plan"
)

// refused finds an answer that the call may get in this process's own architecture, with some arguments, and that is not good.
func (p *Program) refused(name string, good func(Action) bool) (Action, bool) {
	nr, ok := Native().Number(name)
	if !ok {
		return p.policy.otherArch(), true
	}
	for _, b := range p.at(Native(), uint32(nr)).branches {
		if !good(b.action) {
			return b.action, true
		}
	}
	return 0, false
}

func (p *Program) allows(name string) bool {
	_, refused := p.refused(name, Action.Allows)
	return !refused
}

// performed reports whether the call may be performed: a supervisor may say so.
func (a Action) performed() bool { return a.Allows() || a == Notify }

// at is what the policy says about a number.
func (p *Program) at(a Arch, nr uint32) decision {
	if b := p.abi(a); b != nil {
		return b.at(nr)
	}
	return decision{nr: nr, branches: []branch{{action: p.policy.otherArch(), rule: -1}}}
}

// launches finds out whether a child that installs the program gets as far as its command.
func (p *Program) launches() error {
	if a, no := p.refused("execve", Action.performed); no {
		return &LaunchError{Call: "execve", Answer: a, Why: "the command could not be executed"}
	}
	// A child that cannot execute its command ends by exit_group, and tries it again until it works.
	if a, no := p.refused("exit_group", func(a Action) bool { return a.Allows() || a.ends() }); no {
		return &LaunchError{Call: "exit_group", Answer: a, Why: "a command that cannot be executed would never end"}
	}
	return nil
}

// ends reports whether the answer is the end of a process that handles no SIGSYS.
func (a Action) ends() bool {
	return a.kind() == KillProcess.kind() || a.kind() == KillThread.kind() || a.kind() == Trap(0).kind()
}

// initCalls are the calls that the init program cannot do without, in its own process and in the child that executes the command
// (internal/initprog). It also makes getpid, ioctl, setpgid, close, kill and prctl, and goes on when they fail.
var initCalls = [...]string{"execveat", "rt_sigprocmask", "fcntl", "getpid", "rt_sigaction", "write", "wait4", "rt_sigtimedwait", "exit_group"}

// mayFail are calls of the init program whose failure it bears, but not its own end.
var mayFail = [...]string{"ioctl", "setpgid", "close", "kill", "prctl"}

// launchesWith looks at what other parts of the plan do after the filter is in force.
func (p *Program) launchesWith(pl *plan.Plan) error {
	if pl.NeedsAdmin() && pl.Has(plan.Caps) {
		if a, no := p.refused("capset", Action.Allows); no {
			return &LaunchError{Call: "capset", Answer: a, Why: "without no_new_privs the capabilities are dropped after the filter is installed"}
		}
	}
	if pl.Has(plan.InitProg) {
		return p.launchesInit()
	}
	return nil
}

func (p *Program) launchesInit() error {
	for _, name := range initCalls {
		if a, no := p.refused(name, Action.performed); no {
			return &LaunchError{Call: name, Answer: a, Why: "the init process needs it"}
		}
	}
	for _, name := range mayFail {
		if a, no := p.refused(name, func(a Action) bool { return !a.ends() }); no {
			return &LaunchError{Call: name, Answer: a, Why: "the init process would be ended by it"}
		}
	}
	if a := p.initClone(); !a.performed() {
		return &LaunchError{Call: "clone", Answer: a, Why: "the init process needs it"}
	}
	return nil
}

// initClone is the answer to clone as the init program calls it.
func (p *Program) initClone() Action {
	const flags = 0x4100 | uint64(syscall.SIGCHLD) // CLONE_VM|CLONE_VFORK
	nr, _ := Native().Number("clone")
	args := [6]uint64{flags}
	if Native() == S390X {
		args = [6]uint64{0, flags}
	}
	return p.at(Native(), uint32(nr)).answer(args).action
}

// answer is the first branch that holds.
func (d decision) answer(args [6]uint64) branch {
	for _, b := range d.branches {
		if b.holds(args) {
			return b
		}
	}
	return branch{rule: -1}
}
