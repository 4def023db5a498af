//go:build linux

package seccomp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// rule is the rule for the target. Where it does not count, or says what the default says, it has no names. The error's
// field is relative to the rule.
func (r *ProfileRule) rule(t Target, fallback Action) (Rule, *FieldError) {
	if r == nil {
		return Rule{}, &FieldError{Err: invalid("null is no rule")}
	}
	names := r.Names
	if r.Name != "" {
		if len(names) > 0 {
			return Rule{}, &FieldError{Field: ".name", Err: invalid("the rule has names, too")}
		}
		names = []string{r.Name}
	}
	if i := slices.Index(names, ""); i >= 0 {
		return Rule{}, &FieldError{Field: fmt.Sprintf(".names[%d]", i), Err: invalid("the name is empty")}
	}
	action, err := profileAction(r.Action, r.ErrnoRet)
	if err != nil {
		return Rule{}, &FieldError{Field: ".action", Err: err}
	}
	out := Rule{Action: action, SkipUnknown: true}
	counts, ferr := r.counts(t)
	if ferr != nil || !counts || action == fallback {
		return out, ferr
	}
	out.Names = slices.DeleteFunc(slices.Clone(names), isGroup)
	if out.When, ferr = r.when(); ferr != nil {
		return Rule{}, ferr
	}
	return out, nil
}

// counts reports whether includes and excludes let the rule count.
func (r *ProfileRule) counts(t Target) (bool, *FieldError) {
	if x := r.Excludes; x != nil {
		newEnough, err := t.kernelFrom(x.MinKernel)
		if err != nil {
			return false, &FieldError{Field: ".excludes.minKernel", Err: err}
		}
		if slices.Contains(x.Arches, t.Arch.info().docker) || slices.ContainsFunc(x.Caps, t.has) || x.MinKernel != "" && newEnough {
			return false, nil
		}
	}
	if in := r.Includes; in != nil {
		newEnough, err := t.kernelFrom(in.MinKernel)
		if err != nil {
			return false, &FieldError{Field: ".includes.minKernel", Err: err}
		}
		lacks := func(c string) bool { return !t.has(c) }
		if len(in.Arches) > 0 && !slices.Contains(in.Arches, t.Arch.info().docker) || slices.ContainsFunc(in.Caps, lacks) || !newEnough {
			return false, nil
		}
	}
	return true, nil
}

// has: in profiles the names are exact.
func (t Target) has(name string) bool { return slices.Contains(t.Caps, name) }

// kernelFrom reports whether the target's kernel is of the version, or newer; true where there is no version.
func (t Target) kernelFrom(version string) (bool, error) {
	if version == "" {
		return true, nil
	}
	major, minor, ok := strings.Cut(version, ".")
	a, err1 := strconv.ParseUint(major, 10, 8)
	b, err2 := strconv.ParseUint(minor, 10, 8)
	if !ok || err1 != nil || err2 != nil || a+b == 0 {
		return false, &NameError{Kind: "kernel version of the form 4.8", Name: version}
	}
	k := t.Kernel
	return k[0] > int(a) || k[0] == int(a) && k[1] >= int(b), nil
}

// when: conditions on different arguments must all hold; where two are on one argument, any is enough.
func (r *ProfileRule) when() (Any, *FieldError) {
	var all All
	var alternatives Any
	twice := false
	for i, arg := range r.Args {
		c, err := arg.condition()
		if err != nil {
			return nil, &FieldError{Field: fmt.Sprintf(".args[%d]", i), Err: err}
		}
		twice = twice || slices.ContainsFunc(all, func(o Condition) bool { return o.Arg == c.Arg })
		all, alternatives = append(all, c), append(alternatives, All{c})
	}
	if len(all) == 0 || twice {
		return alternatives, nil
	}
	return Any{all}, nil
}

var profileOps = [...]struct {
	name string
	op   Op
}{
	{"SCMP_CMP_EQ", Equal}, {"SCMP_CMP_NE", NotEqual}, {"SCMP_CMP_LT", Less}, {"SCMP_CMP_LE", LessEqual},
	{"SCMP_CMP_GT", Greater}, {"SCMP_CMP_GE", GreaterEqual}, {"SCMP_CMP_MASKED_EQ", MaskedEqual},
}

func (a *ProfileArg) condition() (Condition, error) {
	if a == nil {
		return Condition{}, invalid("null is no condition")
	}
	for _, o := range profileOps {
		if o.name != a.Op {
			continue
		}
		c := Condition{Arg: int(min(a.Index, 1<<16)), Op: o.op, Value: a.Value, Width: Libseccomp}
		if c.Op == MaskedEqual {
			c.Mask, c.Value = a.Value, a.ValueTwo&a.Value
		}
		return c, c.check()
	}
	return Condition{}, &NameError{Kind: "operator", Name: a.Op}
}

var profileActions = [...]struct {
	name   string
	action Action
}{
	{"SCMP_ACT_KILL", KillThread}, {"SCMP_ACT_KILL_THREAD", KillThread}, {"SCMP_ACT_KILL_PROCESS", KillProcess}, {"SCMP_ACT_TRAP", Trap(0)},
	{"SCMP_ACT_ERRNO", Errno(0)}, {"SCMP_ACT_TRACE", Trace(0)}, {"SCMP_ACT_ALLOW", Allow}, {"SCMP_ACT_LOG", Log}, {"SCMP_ACT_NOTIFY", Notify},
}

// profileAction: the data of ERRNO and TRACE is EPERM unless it is given.
func profileAction(name string, errno *uint) (Action, error) {
	for _, a := range profileActions {
		if a.name != name {
			continue
		}
		data := uint(syscall.EPERM)
		if errno != nil {
			data = *errno
		}
		switch a.action {
		case Errno(0):
			if data > MaxErrno {
				return 0, &NameError{Kind: "errno", Name: fmt.Sprint(data)}
			}
			return Errno(syscall.Errno(data)), nil
		case Trace(0):
			if data > dataMask {
				return 0, &NameError{Kind: "number of 16 bits for a tracer", Name: fmt.Sprint(data)}
			}
			return Trace(uint16(data)), nil
		}
		return a.action, nil
	}
	return 0, &NameError{Kind: "action of a profile", Name: name}
}

// capability brings a name into the form of profiles.
func capability(name string) (string, error) {
	short := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	for c := range strings.FieldsSeq(capabilities) {
		if c == short {
			return "CAP_" + short, nil
		}
	}
	return "", &NameError{Kind: "capability", Name: name}
}

// capabilities are all 41 (capabilities(7)).
const capabilities = `CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
	NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT
	SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
	WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`
