//go:build linux

package firewall

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// removeAll removes the shared chains. forbid is called before, for each interface over which 127.0.0.1 was allowed by us.
func (x *xtables) removeAll(forbid func(name string) error) error {
	all, err := x.listAll()
	if err != nil {
		return err
	}
	for _, name := range xlocalnets(all[ip4tables]["raw"])[sharedOff] {
		if err := forbid(name); err != nil {
			return err
		}
	}
	for tool, tables := range all {
		var s strings.Builder
		for table, l := range tables {
			if len(l.chains) == 0 {
				continue
			}
			s.WriteString("*" + table + "\n")
			for _, c := range xlayout() {
				if c.tool == tool && c.table == table && slices.Contains(l.lines[c.hook], "-j "+c.name) {
					fmt.Fprintf(&s, "-D %s -j %s\n", c.hook, c.name)
				}
			}
			xdelete(&s, l.chains)
			s.WriteString("COMMIT\n")
		}
		if err := x.restore(tool, s.String()); err != nil {
			return err
		}
	}
	return nil
}

// allowLocalnet adds the lines that keep others away from 127.0.0.0/8 where it is allowed for us. They belong to no single owner.
func (x *xtables) allowLocalnet(names []string, was func(name string) string) error {
	if len(names) == 0 {
		return nil
	}
	tables, err := x.list(ip4tables)
	if err != nil {
		return err
	}
	there := slices.Concat(slices.Collect(maps.Values(xlocalnets(tables["raw"])))...)
	var lines []xline
	for _, n := range names {
		if slices.Contains(there, n) {
			continue
		}
		for _, side := range []string{"-s", "-d"} {
			lines = append(lines, xline{ip4tables, "raw", xprefix + "raw", true, fmt.Sprintf("-i %s %s 127.0.0.0/8 -m comment --comment %s -j DROP", n, side, was(n))})
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return x.restore(ip4tables, xscript(ip4tables, "raw", tables["raw"], nil, lines))
}

// xlocalnets finds the interfaces over which 127.0.0.1 is translated, by what was there before.
func xlocalnets(raw listed) map[string][]string {
	found := map[string][]string{}
	for _, line := range raw.lines[xprefix+"raw"] {
		words := strings.Fields(line)
		name, comment := slices.Index(words, "-i")+1, slices.Index(words, "--comment")+1
		if name == 0 || comment == 0 || name >= len(words) || comment >= len(words) {
			continue
		}
		if was := strings.Trim(words[comment], `"`); was == sharedOff || was == sharedOn {
			found[was] = append(found[was], words[name])
		}
	}
	return found
}

// blockers names the built-in chain that drops what is forwarded and that nobody has accepted.
func (x *xtables) blockers() (names []string, err error) {
	for _, tool := range []string{ip4tables, ip6tables} {
		if x.no6 && tool == ip6tables {
			continue
		}
		text, err := x.run(tool, "save", "")
		if err != nil {
			return nil, err
		}
		for table := range strings.SplitSeq(text, "\n*") {
			name, _, _ := strings.Cut(strings.TrimPrefix(table, "*"), "\n")
			if strings.Contains(table, "\n:FORWARD DROP ") {
				names = append(names, map[string]string{ip4tables: "ip ", ip6tables: "ip6 "}[tool]+name+" FORWARD")
			}
		}
	}
	return names, nil
}
