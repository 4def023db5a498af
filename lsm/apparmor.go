//go:build linux

package lsm

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson/plan"
)

// AppArmor is the name of the profile under which the command runs (apparmor(7)), instead of the caller's. "A//&B" stacks profiles: what one of them denies is
// denied. ":ns:A" is profile A of the policy namespace ns. The profile must be loaded: see [Profile.Load].
//
// No privilege is needed where the caller is unconfined; a confined one needs a change_profile rule. With no_new_privs a confined
// caller may only add restrictions: see [Stack].
//
// A profile that only complains is no error: the command has its label, and the Detail of the result says that nothing is denied.
//
// A profile that is not loaded is ENOENT; a kernel without AppArmor is errors.ErrUnsupported; a label that is not the one asked for a [*LabelError].
type AppArmor string

// Stack is the name of a profile that is added to the caller's own: what one of the two denies is denied. A confined caller needs a
// change_profile rule for it, too: "change_profile -> &NAME". Of an unconfined caller the label becomes "NAME//&unconfined".
type Stack string

// Apply implements plan.Primitive.
func (a AppArmor) Apply(p *plan.Plan) error {
	return applyProfile(p, here(), "exec", string(a), sameStack)
}

// Apply implements plan.Primitive.
func (s Stack) Apply(p *plan.Plan) error {
	return applyProfile(p, here(), "stack", string(s), hasStack)
}

func applyProfile(p *plan.Plan, h host, command, name string, same func(have, want string) bool) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := p.Claim("AppArmor profile"); err != nil {
		return err
	}
	dir, err := h.need("apparmor", "attr/apparmor/")
	if err != nil {
		return err
	}
	change{module: "apparmor", ask: dir + "exec", current: dir + "current", request: command + " " + name, want: name, same: same, hints: profileHints}.record(p, h)
	return nil
}

var profileHints = map[syscall.Errno]string{
	syscall.ENOENT: "the profile is not loaded, or not in the caller's policy namespace",
	syscall.EPERM:  "the caller is confined, and its profile does not allow to change to this one",
	syscall.EACCES: "the caller is confined, and its profile does not allow to change to this one",
	syscall.EINVAL: "the kernel has AppArmor, but it is not enabled",
}

// checkName refuses what the kernel would read as something else. It cuts off white space, and reads & at the beginning as the
// caller's own label.
func checkName(name string) error {
	for _, part := range strings.Split(name, "//&") {
		switch {
		case part == "" || part != strings.TrimSpace(part):
			return invalid("profile "+printable(name), "a name is empty, or begins or ends with white space")
		case strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == 0x7f }):
			return invalid("profile "+printable(name), "a control character")
		case part[0] == '&':
			return invalid("profile "+printable(name), "a name begins with &; Stack adds to the caller's profile")
		}
	}
	if len(name) > labelSize/2 {
		return invalid("profile", "the name is too long")
	}
	return nil
}

// stack gives the names of stacked profiles in order, without the mode. The kernel prints ":ns://A", or ":ns:A", and has an order of
// its own.
func stack(label string) []string {
	names := strings.Split(parseLabel("apparmor", label).Name, "//&")
	for i, n := range names {
		if ns, profile, ok := strings.Cut(strings.TrimPrefix(n, ":"), ":"); ok && strings.HasPrefix(n, ":") {
			names[i] = ":" + ns + ":" + strings.TrimPrefix(profile, "//")
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func sameStack(have, want string) bool { return slices.Equal(stack(have), stack(want)) }

func hasStack(have, want string) bool {
	all := stack(have)
	return !slices.ContainsFunc(stack(want), func(n string) bool { return !slices.Contains(all, n) })
}

// Profiles gives the AppArmor profiles that are loaded and that the caller's policy namespace shows, with their mode. It needs
// CAP_MAC_ADMIN on most kernels.
func Profiles() ([]Label, error) { return here().profiles() }

const policyDir = "/sys/kernel/security"

func (h host) profiles() ([]Label, error) {
	list, err := h.read(policyDir, securityMagic, "apparmor/profiles")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unsupported("list the profiles", "the kernel does not have AppArmor enabled, or securityfs is not mounted")
	}
	if err != nil {
		return nil, err
	}
	var all []Label
	for line := range strings.Lines(list) {
		all = append(all, parseLabel("apparmor", strings.TrimSuffix(line, "\n")))
	}
	return all, nil
}

// LoadProfile gives the kernel profiles in the binary form that apparmor_parser(8) compiles, and replaces loaded ones of the same name. It needs
// CAP_MAC_ADMIN. What is no such profile, or one for another kernel, is EPROTO or EPROTONOSUPPORT.
func LoadProfile(binary []byte) error { return here().policy(".replace", binary) }

// RemoveProfile removes a loaded profile; what runs under it becomes unconfined. One that is not loaded is ENOENT. It needs CAP_MAC_ADMIN.
func RemoveProfile(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return here().policy(".remove", []byte(name))
}

func (h host) policy(file string, data []byte) error {
	if len(data) == 0 {
		return invalid("load a profile", "it is empty")
	}
	err := h.write(policyDir, securityMagic, "apparmor/"+file, data)
	var e *Error
	if errors.Is(err, fs.ErrNotExist) && errors.As(err, &e) && strings.HasPrefix(e.Op, "open ") {
		return unsupported("load a profile", "the kernel does not have AppArmor enabled, or securityfs is not mounted")
	}
	return err
}
