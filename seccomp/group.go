//go:build linux

package seccomp

import (
	"iter"
	"slices"
	"strings"
)

func isGroup(name string) bool { return strings.HasPrefix(name, "@") }

type group struct {
	name, about string
	names       string // calls, and other groups
}

// Groups yields the names of the groups and what they are, in the order of the names.
func Groups() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, g := range groups {
			if !yield(g.name, g.about) {
				return
			}
		}
	}
}

func findGroup(name string) (group, bool) {
	i := slices.IndexFunc(groups[:], func(g group) bool { return g.name == name })
	if i < 0 {
		return group{}, false
	}
	return groups[i], true
}

// Group gives the names of the system calls in a group ("@mount"), sorted, those of the groups in it among them. The error is a [*NameError].
func Group(name string) ([]string, error) {
	if _, ok := findGroup(name); !ok {
		return nil, &NameError{Kind: "group of system calls", Name: name}
	}
	var names []string
	for _, k := range expand(name) {
		names = append(names, k.name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// expand gives the calls behind a name: one, none, or those of a group.
func expand(name string) (found []*call) {
	for _, k := range appendNamed(nil, name, true) {
		found = append(found, k.call)
	}
	return found
}

// appendNamed appends the calls behind a name.
func appendNamed(list []namedCall, name string, explicit bool) []namedCall {
	if !isGroup(name) {
		if k, ok := findCall(name); ok {
			return append(list, namedCall{k, explicit})
		}
		return list
	}
	g, _ := findGroup(name)
	for word := range strings.FieldsSeq(g.names) {
		list = appendNamed(list, word, explicit)
	}
	return list
}
