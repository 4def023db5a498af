//go:build linux

package seccomp

import "strings"

func isGroup(name string) bool { return strings.HasPrefix(name, "@") }

// Group gives the names of the system calls in a group.
func Group(name string) ([]string, error) { return nil, &NameError{Kind: "group", Name: name} }

// expand gives the calls behind a name: one, none, or those of a group.
func expand(name string) []*call {
	if k, ok := findCall(name); ok {
		return []*call{k}
	}
	return nil
}
