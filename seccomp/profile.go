//go:build linux

package seccomp

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Profile is a profile in the form of Docker and of the OCI runtime specification. [ParseProfile] reads one, [Profile.Policy] gives it
// a meaning, and encoding/json writes it.
type Profile struct {
	DefaultAction    string         `json:"defaultAction"`              // SCMP_ACT_ERRNO
	DefaultErrnoRet  *uint          `json:"defaultErrnoRet,omitempty"`  // of SCMP_ACT_ERRNO and SCMP_ACT_TRACE; EPERM without it
	Architectures    []string       `json:"architectures,omitempty"`    // SCMP_ARCH_X86_64; the native one is always there
	ArchMap          []ProfileArch  `json:"archMap,omitempty"`          // Docker's alternative to Architectures
	Flags            []string       `json:"flags,omitempty"`            // SECCOMP_FILTER_FLAG_LOG
	ListenerPath     string         `json:"listenerPath,omitempty"`     // the socket of a supervisor
	ListenerMetadata string         `json:"listenerMetadata,omitempty"` // what it is told
	Syscalls         []*ProfileRule `json:"syscalls"`
}

// ProfileArch says which further architectures a profile covers on one.
type ProfileArch struct {
	Arch     string   `json:"architecture"`
	SubArchs []string `json:"subArchitectures"`
}

// ProfileRule is one rule of a profile.
type ProfileRule struct {
	Names    []string      `json:"names,omitempty"`
	Name     string        `json:"name,omitempty"` // the old form of Names
	Action   string        `json:"action"`
	ErrnoRet *uint         `json:"errnoRet,omitempty"`
	Args     []*ProfileArg `json:"args,omitempty"`
	Comment  string        `json:"comment,omitempty"`
	Includes *ProfileIf    `json:"includes,omitempty"` // the rule holds only where all of this is so
	Excludes *ProfileIf    `json:"excludes,omitempty"` // the rule holds only where none of this is so
}

// ProfileArg is a condition on an argument. Where one rule has two for the same argument, each of them alone is enough; this is how runc
// reads it.
type ProfileArg struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"` // the mask of SCMP_CMP_MASKED_EQ
	ValueTwo uint64 `json:"valueTwo,omitempty"`
	Op       string `json:"op"`
}

// ProfileIf is a condition on what the profile is used for.
type ProfileIf struct {
	Caps      []string `json:"caps,omitempty"`      // CAP_SYS_ADMIN
	Arches    []string `json:"arches,omitempty"`    // amd64
	MinKernel string   `json:"minKernel,omitempty"` // 4.8
}

// Target is what a profile is to be used for. The zero value is a command without capabilities on this machine.
type Target struct {
	// Caps are the capabilities of the bounding set by name, in any case, with CAP_ or without.
	Caps []string
	// Arch is the native architecture; the zero value is Native().
	Arch Arch
	// Kernel is the version of the kernel, major and minor; the zero value is that of this machine.
	Kernel [2]int
	// NoENOSYS leaves out what runc adds: without it, where the default is not to allow, a number above all that the profile names in
	// an architecture is answered by ENOSYS, so that programs fall back to older calls.
	NoENOSYS bool
}

// Policy gives the policy that Docker and runc make of the profile for the target. Its rules stand where those of the profile stand; one
// that does not count has no names. Rules that answer the same call in two ways are resolved as libseccomp does it: one
// without conditions wins; two with conditions that could both hold are a [*ContradictionError]. The other errors are a
// [*FieldError].
func (p *Profile) Policy(t Target) (Policy, error) {
	t, err := t.complete()
	if err != nil {
		return Policy{}, err
	}
	fallback, err := profileAction(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return Policy{}, &FieldError{Field: "defaultAction", Err: err}
	}
	if fallback == Notify {
		return Policy{}, &FieldError{Field: "defaultAction", Err: invalid("a supervisor cannot answer every call")}
	}
	q := Policy{Default: fallback, OtherArch: KillThread, Newer: fallback, oci: true}
	if q.Arches, err = p.arches(t.Arch); err != nil {
		return Policy{}, err
	}
	q.Rules = make([]Rule, 0, len(p.Syscalls)+1) // addENOSYS adds one
	for i, r := range p.Syscalls {
		rule, err := r.rule(t, fallback)
		if err != nil {
			err.Field = fmt.Sprintf("syscalls[%d]%s", i, err.Field)
			return Policy{}, err
		}
		q.Rules = append(q.Rules, rule)
	}
	if !t.NoENOSYS {
		q.addENOSYS()
	}
	return q, nil
}

// Filter compiles the policy for the target and gives it the profile's flags. A profile of Docker's kind does not set no_new_privs, and
// neither does Docker: set AllowNewPrivileges for that.
func (p *Profile) Filter(t Target) Filter {
	q, err := p.Policy(t)
	if err != nil {
		return Filter{err: err}
	}
	f := New(q)
	if flags, err := ParseFlags(strings.Join(p.Flags, ",")); err == nil {
		f.Flags = flags
	} else {
		f.err = &FieldError{Field: "flags", Err: err}
	}
	return f
}

func (t Target) complete() (Target, error) {
	var err error
	if t.Arch == 0 {
		t.Arch = Native()
	}
	if !t.Arch.valid() {
		return t, unsupported("use a profile", "there is no table of system calls for this architecture")
	}
	if t.Kernel == [2]int{} {
		t.Kernel, err = kernelVersion()
	}
	caps := make([]string, len(t.Caps))
	for i, c := range t.Caps {
		if caps[i], err = capability(c); err != nil {
			return t, err
		}
	}
	t.Caps = caps
	return t, err
}

func kernelVersion() (v [2]int, err error) {
	var name unix.Utsname
	if err = unix.Uname(&name); err == nil {
		v, err = parseKernel(unix.ByteSliceToString(name.Release[:]))
	}
	return v, err
}

// parseKernel reads major and minor of "6.1.0-37-amd64".
func parseKernel(release string) (v [2]int, err error) {
	for i := range v {
		digits := len(release) - len(strings.TrimLeft(release, "0123456789"))
		if v[i], err = strconv.Atoi(release[:digits]); err != nil {
			return v, fmt.Errorf("kernel release %q: %w", release, err)
		}
		release = strings.TrimPrefix(release[digits:], ".")
	}
	return v, nil
}

// arches: the native architecture is in every profile. Of others, those are kept that there is a table for; calls by the rest
// end the thread, as calls by those that no profile names.
func (p *Profile) arches(native Arch) ([]Arch, error) {
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		return nil, &FieldError{Field: "archMap", Err: invalid("the profile has architectures, too")}
	}
	field, names := "architectures", p.Architectures
	for i, m := range p.ArchMap {
		if m.Arch == "SCMP_ARCH_"+native.info().oci {
			field, names = fmt.Sprintf("archMap[%d].subArchitectures", i), m.SubArchs
			break
		}
	}
	list := []Arch{native}
	for i, name := range names {
		a, err := ParseArch(name)
		if err != nil && !slices.Contains(untabled(), name) {
			return nil, &FieldError{Field: fmt.Sprintf("%s[%d]", field, i), Err: err}
		}
		if err == nil && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list, nil
}

// untabled are architectures that profiles may name and that there is no table for.
func untabled() []string {
	return []string{"SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC",
		"SCMP_ARCH_PPC64", "SCMP_ARCH_S390", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB"}
}

// addENOSYS lets Newer begin above the highest number that a rule names.
func (p *Policy) addENOSYS() {
	nosys := Errno(syscall.ENOSYS)
	if p.Default.Allows() || p.Default.kind() == Trace(0).kind() || p.Default == nosys {
		return
	}
	p.Newer, p.newest = nosys, p.highest()
	if slices.Contains(p.Arches, S390X) { // what the kernel does not know arrives as 0 there
		p.Rules = append(p.Rules, Rule{Numbers: []int{0}, Arches: []Arch{S390X}, Action: nosys})
	}
}

// highest are the highest numbers that the rules name in each architecture. Where they name none, nothing is newer.
func (p *Policy) highest() map[Arch]uint32 {
	var most [arches + 1]int // one more than the number; 0 is none
	for _, r := range p.Rules {
		for _, name := range r.Names {
			k, ok := findCall(name)
			for i := 0; ok && i < len(p.Arches); i++ {
				if a := p.Arches[i]; !a.apart(uint32(k.number(a))) {
					most[a] = max(most[a], k.number(a)+1)
				}
			}
		}
	}
	highest := make(map[Arch]uint32, len(p.Arches))
	for _, a := range p.Arches {
		highest[a] = math.MaxUint32
		if most[a] > 0 {
			highest[a] = uint32(most[a] - 1)
		}
	}
	return highest
}
