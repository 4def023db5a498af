//go:build linux

package firewall

import (
	"bytes"
	"errors"
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
	no6      bool   // the kernel has no IPv6
	shown    string // the parameter that is there where br_netfilter is
	step     func(string)

	// hold is the locked directory. The programs have it, too: when this process is killed, whoever comes next waits until the last one has ended.
	hold *os.File
}

// newXtables looks for the programs. iptables-legacy comes first: plain iptables speaks to nf_tables on hosts of today.
func newXtables(variants map[string][]string) (*xtables, error) {
	x := &xtables{variants: variants, paths: map[string]string{}, step: func(string) {}, shown: "sys/net/bridge/bridge-nf-call-ip6tables"}
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
		e.Err, e.Hint = &reason{said, errors.Join(errors.ErrUnsupported, err)}, "the kernel lacks a part of ip_tables, ip6_tables or ebtables; for IPv6 on a bridge also xt_physdev, xt_u32 and xt_mark"
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
