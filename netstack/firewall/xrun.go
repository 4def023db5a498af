//go:build linux

package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// xtables runs the programs of xtables.
type xtables struct {
	variants map[string][]string // what follows the names of programs, in the order in which they are looked for
	paths    map[string]string
	no6      bool // the kernel has no IPv6
	step     func(string)

	// hold is the locked directory. The programs have it, too: when this process is killed, whoever comes next waits until the last one has ended.
	hold *os.File
}

// newXtables looks for the programs. iptables-legacy comes first: plain iptables speaks to nf_tables on hosts of today.
func newXtables(variants map[string][]string) (*xtables, error) {
	x := &xtables{variants: variants, paths: map[string]string{}, step: func(string) {}}
	_, err := os.Stat("/proc/thread-self/net/if_inet6")
	x.no6 = errors.Is(err, os.ErrNotExist)
	if _, err := x.program(ip4tables, "restore"); err != nil {
		return nil, err
	}
	_, err = x.list(ip4tables)
	return x, err
}

// program finds one: "iptables" and "save" may be iptables-legacy-save.
func (x *xtables) program(tool, what string) (string, error) {
	if path := x.paths[tool+what]; path != "" {
		return path, nil
	}
	variants := x.variants[tool]
	if variants == nil {
		variants = []string{"legacy-", ""}
	}
	for _, v := range variants {
		name := strings.TrimSuffix(tool+"-"+v+what, "-")
		for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil && filepath.IsAbs(path) {
				x.paths[tool+what] = path
				return path, nil
			}
		}
	}
	why := &reason{"there is no such program", errors.Join(errors.ErrUnsupported, exec.ErrNotFound)}
	return "", &Error{Op: "find " + strings.TrimSuffix(tool+"-"+what, "-"), Err: why, Hint: "the packages iptables and ebtables have it"}
}

// run runs a program in the network namespace of the calling thread, which must be locked to the goroutine.
func (x *xtables) run(tool, what, input string, args ...string) (string, error) {
	path, err := x.program(tool, what)
	if err != nil {
		return "", err
	}
	var out, diag bytes.Buffer
	cmd := exec.Cmd{Path: path, Args: append([]string{path}, args...), Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"},
		Stdin: strings.NewReader(input), Stdout: &out, Stderr: &diag}
	if x.hold != nil {
		cmd.ExtraFiles = []*os.File{x.hold}
	}
	if err := cmd.Run(); err != nil {
		return "", xfailed(filepath.Base(path), diag.String(), err)
	}
	return out.String(), nil
}

// xfailed finds out from what a program says why it could not do something: its status says nothing.
func xfailed(name, said string, err error) error {
	said = strings.Join(strings.Fields(said), " ")
	e := &Error{Op: "run " + name, Err: &reason{said, err}}
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(said, t) })
	}
	switch {
	case said == "":
		e.Err = err
	case has("ermission denied", "Operation not permitted", "must be root"):
		e.Err, e.Hint = &reason{said, errors.Join(unix.EPERM, err)}, "needs CAP_NET_ADMIN in the user namespace that owns the network namespace"
	case has("Table does not exist", "doesn't support", "does not support", "can't initialize", "No chain/target/match by that name", "not supported", "Couldn't load", "Could not initialize nftables layer"):
		e.Err, e.Hint = &reason{said, errors.Join(errors.ErrUnsupported, err)}, "the kernel lacks a part of ip_tables, ip6_tables or ebtables"
	}
	return e
}

// tablesOf lists the tables of a program that are used: those that deny are changed first.
func tablesOf(tool string) []string {
	if tool == ebtables {
		return []string{"nat", "filter"}
	}
	return []string{"raw", "filter", "nat"}
}

// list shows the tables of a program.
func (x *xtables) list(tool string) (map[string]listed, error) {
	if tool != ebtables {
		text, err := x.run(tool, "save", "")
		return parseSave(text), err
	}
	tables := map[string]listed{}
	for _, table := range tablesOf(tool) {
		text, err := x.run(tool, "", "", "-t", table, "-L")
		if err != nil {
			return nil, err
		}
		tables[table] = parseList(text)
	}
	return tables, nil
}

// listAll shows the tables of all programs that are there. Where ebtables is missing nothing of ours can be in it.
func (x *xtables) listAll() (map[string]map[string]listed, error) {
	all := map[string]map[string]listed{}
	for _, tool := range []string{ebtables, ip4tables, ip6tables} {
		if x.no6 && tool == ip6tables {
			continue
		}
		l, err := x.list(tool)
		if err != nil && tool != ip4tables && errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[tool] = l
	}
	return all, nil
}

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

// restore changes the tables that a script names. The lines of others stay.
func (x *xtables) restore(tool, script string) error {
	if script == "" {
		return nil
	}
	args := []string{"--noflush", "-w", "30"}
	if tool == ebtables {
		args, script = args[:1], strings.ReplaceAll(script, "COMMIT\n", "")
	}
	x.step("change " + tool)
	_, err := x.run(tool, "restore", script, args...)
	return err
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
