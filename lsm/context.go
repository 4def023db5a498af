//go:build linux

package lsm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Context is a security context of SELinux: user:role:type:level. Of a file the role is object_r.
type Context struct {
	User, Role, Type string
	Level            string // sensitivity and categories, "s0:c1,c2" or a range "s0-s0:c0.c1023"; "" where the policy has no levels
}

// ParseContext reads the text form.
func ParseContext(s string) (Context, error) {
	parts := strings.SplitN(s, ":", 4)
	if len(parts) < 3 {
		return Context{}, contextError(s)
	}
	c := Context{User: parts[0], Role: parts[1], Type: parts[2]}
	if len(parts) == 4 {
		if c.Level = parts[3]; c.Level == "" {
			return Context{}, contextError(s)
		}
	}
	return c, c.check()
}

func contextError(s string) error {
	return invalid("context "+printable(s), "not user:role:type or user:role:type:level")
}

// check refuses what the kernel would read as something else, or not at all.
func (c Context) check() error {
	for _, part := range []string{c.User, c.Role, c.Type} {
		if part == "" || strings.ContainsFunc(part, notInIdentifier) {
			return contextError(c.String())
		}
	}
	if strings.ContainsFunc(c.Level, func(r rune) bool { return notInIdentifier(r) && r != ':' && r != ',' }) {
		return contextError(c.String())
	}
	if len(c.String()) > labelSize/2 {
		return contextError(c.User)
	}
	return nil
}

func notInIdentifier(r rune) bool { return notInWord(r) && r != '.' }

// String gives the text form.
func (c Context) String() string {
	text := c.User + ":" + c.Role + ":" + c.Type
	if c.Level != "" {
		text += ":" + c.Level
	}
	return text
}

// MountOption gives the option of mount(2) that labels all files of a mount: context="...". File systems without labels of their own, and
// tmpfs, take it; a bind mount does not.
func (c Context) MountOption() string { return `context="` + c.String() + `"` }

// Categories are two different categories, of 0 to 1023, that keep sandboxes apart (MCS): neither of two that differ in one may touch the other's processes
// and files. [ReserveCategories] gives a pair that nobody else has.
type Categories struct{ A, B int }

// maxCategory is what policies with MCS have.
const maxCategory = 1023

// String gives the text form, the lower one first: c1,c2.
func (c Categories) String() string {
	return fmt.Sprintf("c%d,c%d", min(c.A, c.B), max(c.A, c.B))
}

func (c Categories) check() error {
	if c.A == c.B || min(c.A, c.B) < 0 || max(c.A, c.B) > maxCategory {
		return invalid("categories "+c.String(), "not two different ones of c0 to c1023")
	}
	return nil
}

// With gives the context with the categories, at the sensitivity that it has.
func (c Context) With(cats Categories) Context {
	c.Level = c.sensitivity() + ":" + cats.String()
	return c
}

// Shared gives the context without categories: of a file that several sandboxes may use.
func (c Context) Shared() Context {
	c.Level = c.sensitivity()
	return c
}

func (c Context) sensitivity() string {
	low, _, _ := strings.Cut(c.Level, "-")
	s, _, _ := strings.Cut(low, ":")
	if s == "" {
		return "s0"
	}
	return s
}

// sameContext compares contexts as the kernel does: c1.c3 is c1,c2,c3, and the order of categories means nothing.
func sameContext(have, want string) bool {
	a, errA := ParseContext(have)
	b, errB := ParseContext(want)
	if errA != nil || errB != nil {
		return have == want && have != ""
	}
	return a.User == b.User && a.Role == b.Role && a.Type == b.Type && sameLevel(a.Level, b.Level)
}

func sameLevel(a, b string) bool {
	x, errX := parseRange(a)
	y, errY := parseRange(b)
	if errX != nil || errY != nil {
		return a == b
	}
	return x[0].equal(y[0]) && x[1].equal(y[1])
}

// level is a sensitivity with its categories in order.
type level struct {
	sensitivity string
	categories  []int
}

func (l level) equal(m level) bool {
	return l.sensitivity == m.sensitivity && slices.Equal(l.categories, m.categories)
}

// parseRange gives the low and the high level.
func parseRange(s string) (both [2]level, err error) {
	low, high, isRange := strings.Cut(s, "-")
	if both[0], err = parseLevel(low); err != nil || !isRange {
		return [2]level{both[0], both[0]}, err
	}
	both[1], err = parseLevel(high)
	return both, err
}

func parseLevel(s string) (l level, err error) {
	sensitivity, list, some := strings.Cut(s, ":")
	l.sensitivity = sensitivity
	if !some {
		return l, nil
	}
	for item := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(item, ".")
		first, err := parseCategory(from)
		last := first
		if err == nil && isRange {
			last, err = parseCategory(to)
		}
		if err != nil || last < first {
			return level{}, syscall.EINVAL
		}
		for c := first; c <= last; c++ {
			l.categories = append(l.categories, c)
		}
	}
	slices.Sort(l.categories)
	l.categories = slices.Compact(l.categories)
	return l, nil
}

func parseCategory(s string) (int, error) {
	digits, ok := strings.CutPrefix(s, "c")
	n, err := strconv.ParseUint(digits, 10, 12)
	if !ok || err != nil || n > maxCategory || strconv.Itoa(int(n)) != digits {
		return 0, syscall.EINVAL
	}
	return int(n), nil
}
