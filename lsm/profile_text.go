//go:build linux

package lsm

import (
	"fmt"
	"strings"
)

// writer renders, and keeps the first error.
type writer struct {
	lines  []string
	indent string
	err    error
}

func (w *writer) line(format string, args ...any) {
	w.lines = append(w.lines, w.indent+fmt.Sprintf(format, args...))
}

func (w *writer) bad(what, value string) {
	if w.err == nil {
		w.err = invalid("profile", what+" "+printable(value))
	}
}

// quoted gives a value in quotes, inside which only a quote and a line break mean something.
func (w *writer) quoted(what, value string) string {
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == '"' || r == 0x7f || r == 0xfffd }) || strings.HasSuffix(value, `\`) {
		w.bad(what, value)
	}
	return `"` + value + `"`
}

// words gives values of which each is a word of letters, digits, _ and -.
func (w *writer) words(what string, values []string) []string {
	for _, v := range values {
		if v == "" || strings.ContainsFunc(v, notInWord) {
			w.bad(what, v)
		}
	}
	return values
}

func notInWord(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-')
}

func (w *writer) profile(p Profile, parent string) {
	if err := checkName(p.Name); err != nil || strings.Contains(p.Name, "//") || p.Name == "unconfined" {
		w.bad("name", p.Name)
	}
	flags := flagsOf(p)
	if len(flags) > 0 {
		flags = " flags=(" + flags + ")"
	}
	w.line("profile %s%s {", w.quoted("name", p.Name), flags)
	outer := w.indent
	w.indent += "  "
	w.body(p)
	for _, c := range p.Children {
		if parent != "" {
			w.bad("child of a child", c.Name)
		}
		w.profile(c, p.Name)
	}
	w.indent = outer
	w.line("}")
}

func flagsOf(p Profile) string {
	var flags []string
	for _, f := range []struct {
		set  bool
		name string
	}{{p.Complain, "complain"}, {p.AttachDisconnected, "attach_disconnected"}, {p.MediateDeleted, "mediate_deleted"}} {
		if f.set {
			flags = append(flags, f.name)
		}
	}
	return strings.Join(flags, ",")
}

func (w *writer) body(p Profile) {
	for _, a := range p.Abstractions {
		w.words("abstraction", strings.Split(a, "/"))
		w.line("#include <abstractions/%s>", a)
	}
	for _, r := range p.Network {
		w.network(r)
	}
	for _, r := range p.Capabilities {
		w.rule(r.Deny, "capability", w.words("capability", r.Names)...)
	}
	for _, r := range p.Files {
		w.file(r)
	}
	for _, r := range p.Mounts {
		w.mount(r)
	}
	for _, r := range p.Ptrace {
		w.rule(r.Deny, "ptrace", w.access(r.Access, "", nil, r.Peer)...)
	}
	for _, r := range p.Signals {
		w.rule(r.Deny, "signal", w.access(r.Access, "set", r.Signals, r.Peer)...)
	}
	for _, c := range p.Changes {
		w.line("change_profile -> %s,", w.quoted("profile", c))
	}
}

func (w *writer) rule(deny bool, kind string, rest ...string) {
	if deny {
		kind = "deny " + kind
	}
	w.line("%s,", strings.Join(append([]string{kind}, rest...), " "))
}

func (w *writer) network(r NetworkRule) {
	var rest []string
	for _, v := range []string{r.Family, r.Type} {
		if v != "" {
			rest = append(rest, w.words("network", []string{v})...)
		}
	}
	w.rule(r.Deny, "network", rest...)
}

func (w *writer) access(access []string, key string, values []string, peer string) (rest []string) {
	if len(access) > 0 {
		rest = append(rest, "("+strings.Join(w.words("access", access), ", ")+")")
	}
	if len(values) > 0 {
		rest = append(rest, key+"=("+strings.Join(w.words(key, values), ", ")+")")
	}
	if peer != "" {
		rest = append(rest, "peer="+w.quoted("peer", peer))
	}
	return rest
}
