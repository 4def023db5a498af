//go:build linux

package firewall

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// change replaces what an owner has.
func (x *xtables) change(id string, next []xline) error {
	all, err := x.listAll()
	if err != nil {
		return err
	}
	tools := []string{ebtables, ip4tables, ip6tables}
	if len(next) == 0 { // the other way round: what denies is there to the last
		slices.Reverse(tools)
	}
	for _, tool := range tools {
		tables := tablesOf(tool)
		if len(next) == 0 {
			slices.Reverse(tables)
		}
		var script strings.Builder
		for _, table := range tables {
			script.WriteString(xscript(tool, table, all[tool][table], map[string]bool{xhash(id): true}, only(next, tool, table)))
		}
		if err := x.restore(tool, script.String()); err != nil {
			return err
		}
	}
	return nil
}

// only gives the lines of one table.
func only(lines []xline, tool, table string) []xline {
	return slices.DeleteFunc(slices.Clone(lines), func(l xline) bool { return l.tool != tool || l.table != table })
}

// xscript removes what owners have in a table, and adds lines.
func xscript(tool, table string, l listed, owners map[string]bool, next []xline) string {
	var s strings.Builder
	if len(next) > 0 {
		for _, c := range xlayout() {
			if c.tool == tool && c.table == table {
				c.make(&s, l)
			}
		}
	}
	var own []string
	for _, c := range l.chains {
		if owners[ownerOfChain(c)] {
			own = append(own, c)
			continue
		}
		for _, line := range l.lines[c] {
			if hash, _ := ownerOfLine(line); owners[hash] {
				fmt.Fprintf(&s, "-D %s %s\n", c, line)
			}
		}
	}
	xdelete(&s, own)
	made := map[string]bool{}
	for _, line := range next { // a line may lead to a chain of his own
		if ownerOfChain(line.chain) != "" && !made[line.chain] {
			made[line.chain] = true
			xnew(&s, tool, line.chain)
		}
	}
	for _, line := range next {
		verb := "-A"
		if line.first {
			verb = "-I"
		}
		fmt.Fprintf(&s, "%s %s %s\n", verb, line.chain, line.text)
	}
	if s.Len() == 0 {
		return ""
	}
	return "*" + table + "\n" + s.String() + "COMMIT\n"
}

// xnew makes a chain. Those of ebtables let a frame pass at their end if they are not told to go back.
func xnew(s *strings.Builder, tool, name string) {
	s.WriteString("-N " + name)
	if tool == ebtables {
		s.WriteString(" -P RETURN")
	}
	s.WriteString("\n")
}

// xdelete empties chains and then deletes them, since they lead to each other.
func xdelete(s *strings.Builder, chains []string) {
	for _, c := range chains {
		s.WriteString("-F " + c + "\n")
	}
	for _, c := range chains {
		s.WriteString("-X " + c + "\n")
	}
}

// make sees to it that a shared chain is there, and that it comes first.
func (c xchain) make(s *strings.Builder, l listed) {
	if !slices.Contains(l.chains, c.name) {
		xnew(s, c.tool, c.name)
		for _, text := range slices.Concat(c.head, c.tail) {
			fmt.Fprintf(s, "-A %s %s\n", c.name, text)
		}
	}
	if jump := "-j " + c.name; c.hook != "" {
		lines := l.lines[c.hook]
		if len(lines) > 0 && lines[0] == jump {
			return
		}
		for _, line := range lines {
			if line == jump {
				fmt.Fprintf(s, "-D %s %s\n", c.hook, jump)
			}
		}
		fmt.Fprintf(s, "-I %s %s\n", c.hook, jump)
	}
}

// intact reports whether an owner has as many lines as he should, and all ours come first.
func (x *xtables) intact(id string, want int) (bool, error) {
	all, err := x.listAll()
	if err != nil {
		return false, err
	}
	for _, c := range xlayout() {
		l := all[c.tool][c.table]
		if c.hook != "" && slices.Contains(l.chains, c.name) && (len(l.lines[c.hook]) == 0 || l.lines[c.hook][0] != "-j "+c.name) {
			return false, nil
		}
	}
	n := 0
	for _, tables := range all {
		for _, l := range tables {
			n += l.count(xhash(id))
		}
	}
	return n == want, nil
}

// count tells how many lines an owner has.
func (l listed) count(hash string) (n int) {
	for _, c := range l.chains {
		if ownerOfChain(c) == hash {
			n += len(l.lines[c])
			continue
		}
		for _, line := range l.lines[c] {
			if h, _ := ownerOfLine(line); h == hash {
				n++
			}
		}
	}
	return n
}

// sweep removes what owners have who are not among the living, and gives the ids that are known.
func (x *xtables) sweep(living []string) (dead []string, err error) {
	all, err := x.listAll()
	if err != nil {
		return nil, err
	}
	keep, gone := map[string]bool{}, map[string]string{}
	for _, id := range living {
		keep[xhash(id)] = true
	}
	for _, tool := range []string{ip6tables, ip4tables, ebtables} {
		var script strings.Builder
		for _, table := range slices.Backward(tablesOf(tool)) {
			hashes, ids := all[tool][table].owners()
			maps.DeleteFunc(hashes, func(h string, _ bool) bool { return keep[h] })
			for h := range hashes {
				if id := ids[h]; id != "" {
					gone[h] = id
				}
			}
			if len(hashes) > 0 {
				script.WriteString(xscript(tool, table, all[tool][table], hashes, nil))
			}
		}
		if err := x.restore(tool, script.String()); err != nil {
			return nil, err
		}
	}
	return slices.Collect(maps.Values(gone)), nil
}
