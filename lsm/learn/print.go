//go:build linux

package learn

import (
	"fmt"
	"strconv"
	"strings"
)

// Go gives the rules as a Go expression.
func (p Profile) Go() string {
	var b strings.Builder
	b.WriteString("lsm.Landlock{\n")
	for _, g := range p.groups() {
		if len(g.paths) == 1 {
			fmt.Fprintf(&b, "\tlsm.%s(%s),\n", g.name, strconv.Quote(g.paths[0]))
			continue
		}
		fmt.Fprintf(&b, "\tlsm.%s(\n", g.name)
		for _, name := range g.paths {
			fmt.Fprintf(&b, "\t\t%s,\n", strconv.Quote(name))
		}
		b.WriteString("\t),\n")
	}
	if len(p.groups()) == 0 {
		b.WriteString("\tlsm.ReadOnly(),\n")
	}
	return b.String() + "}"
}

// String gives the rules as a list, one path a line: "read-only /etc/hosts". A path that is not one word is quoted.
func (p Profile) String() string {
	var b strings.Builder
	for _, g := range p.groups() {
		for _, name := range g.paths {
			b.WriteString(g.rule(name).String() + "\n")
		}
	}
	return b.String()
}
