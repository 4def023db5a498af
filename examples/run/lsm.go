//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/plan"
)

// label is what --security-opt label= says of SELinux.
type label struct {
	user, role, typ, level string
	disable                bool
}

func (l *label) set(s string) error {
	key, value, _ := strings.Cut(s, ":")
	field := map[string]*string{"user": &l.user, "role": &l.role, "type": &l.typ, "level": &l.level}[key]
	switch {
	case s == "disable":
		l.disable = true
	case field == nil || value == "":
		return errors.New("label is none of type:TYPE, level:LEVEL, user:USER, role:ROLE, disable")
	default:
		*field = value
	}
	return nil
}

// labeled are the parts of the security modules.
func (f *flags) labeled() (parts []plan.Primitive, err error) {
	if f.apparmor != "" && f.apparmor != unconfined {
		parts = append(parts, lsm.AppArmor(f.apparmor))
	}
	selinux, err := f.selinux()
	parts = append(parts, selinux...)
	if rules := landlock(f.landlock); len(rules) > 0 {
		parts = append(parts, rules)
	}
	return parts, err
}

// complete reports whether the label needs none of the host's defaults.
func (l label) complete() bool { return l.user != "" && l.role != "" && l.typ != "" }

// selinux labels the command where --security-opt label= or a volume asks for it. Volumes ask in vain where there is no
// SELinux, as with docker run.
func (f *flags) selinux() ([]plan.Primitive, error) {
	l := f.label
	explicit := l != label{}
	if l.disable || !explicit && !(f.relabels() && hasSELinux()) {
		return nil, nil
	}
	if !hasSELinux() {
		return nil, fmt.Errorf("--security-opt label=: the kernel has no SELinux: %w", errors.ErrUnsupported)
	}
	process, file, err := lsm.ContainerContexts()
	if err != nil && l.complete() && !f.relabels() {
		process.Level, err = "s0", nil // all else is given
	}
	if err != nil {
		return nil, fmt.Errorf("--security-opt label=, or a volume with z or Z: %w", err)
	}
	for _, s := range []struct{ to, from *string }{{&process.User, &l.user}, {&process.Role, &l.role}, {&process.Type, &l.typ}} {
		if *s.from != "" {
			*s.to = *s.from
		}
	}
	if process, file, err = f.levels(process, file); err != nil {
		return nil, err
	}
	return []plan.Primitive{plan.Func(func(p *plan.Plan) error { return f.relabelVolumes(p, file) }), lsm.SELinux{Process: process}}, nil
}

// levels gives both contexts the level that is asked for, or categories that no other sandbox has, for as long as we live.
func (f *flags) levels(process, file lsm.Context) (lsm.Context, lsm.Context, error) {
	if f.label.level != "" {
		process.Level, file.Level = f.label.level, f.label.level
		return process, file, nil
	}
	r, err := lsm.ReserveCategories()
	if err != nil {
		return process, file, err
	}
	f.categories = r
	return process.With(r.Categories), file.With(r.Categories), nil
}

func (f *flags) relabelVolumes(p *plan.Plan, file lsm.Context) error {
	for _, v := range f.volumes {
		c := file
		switch v.relabel {
		case 0:
			continue
		case 'z':
			c = file.Shared()
		}
		p.Before(plan.Action{Name: fmt.Sprintf("label %q and all below it %v", v.Source, c), Do: func(*plan.Run) error { return lsm.Relabel(v.Source, c) }})
	}
	return nil
}

// relabels reports whether a volume has the option z or Z.
func (f *flags) relabels() bool {
	return slices.ContainsFunc(f.volumes, func(v volume) bool { return v.relabel != 0 })
}

// hasSELinux: a kernel that does not say is one without.
func hasSELinux() bool {
	m, err := lsm.Active()
	return err == nil && m.Has("selinux")
}

// landlockRule is an element of --security-opt landlock=.
type landlockRule struct{ kind, value string }

// appendLandlock reads ro:/usr,rw:/tmp,connect:443,scope:signals.
func appendLandlock(list []landlockRule, s string) ([]landlockRule, error) {
	for word := range strings.SplitSeq(s, ",") {
		r := landlockRule{}
		r.kind, r.value, _ = strings.Cut(word, ":")
		if err := r.check(); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

func (r landlockRule) check() (err error) {
	switch r.kind {
	case "ro", "rw", "rx":
		if !strings.HasPrefix(r.value, "/") {
			err = fmt.Errorf("%q is not an absolute path", r.value)
		}
	case "bind", "connect":
		if r.value != "none" {
			_, err = strconv.ParseUint(r.value, 10, 16)
		}
	case "scope":
		if r.value != "signals" && r.value != "sockets" {
			err = fmt.Errorf("scope %q is neither signals nor sockets", r.value)
		}
	case "abi":
		_, err = strconv.ParseUint(r.value, 10, 16)
	default:
		err = fmt.Errorf("%q is none of ro, rx, rw, bind, connect, scope, abi", r.kind)
	}
	return err
}

// rule gives what lsm calls it.
func (r landlockRule) rule() lsm.Rule {
	ports := []uint16{} // "none"
	n, err := strconv.ParseUint(r.value, 10, 16)
	if err == nil {
		ports = append(ports, uint16(n))
	}
	switch r.kind {
	case "abi":
		return lsm.ABI(int(n))
	case "ro":
		return lsm.ReadOnly(r.value)
	case "rw":
		return lsm.ReadWrite(r.value)
	case "rx":
		return lsm.Execute(r.value)
	case "bind":
		return lsm.Bind(ports...)
	case "connect":
		return lsm.Connect(ports...)
	}
	if r.value == "signals" {
		return lsm.ScopeSignals()
	}
	return lsm.ScopeAbstractSockets()
}

func landlock(list []landlockRule) (rules lsm.Landlock) {
	for _, r := range list {
		rules = append(rules, r.rule())
	}
	return rules
}
