//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// account is who the command is.
type account struct {
	uid, gid uint32
	groups   []uint32 // those in which the sandbox's /etc/group has the user
	added    []uint32 // those of --group-add
	home     string
}

// account finds the user of --user in the files of the sandbox's root directory, which read reads. A number need not be
// in them. The default is root, and with --userns=keep-id the caller.
func (f *flags) account(read func(name string) (string, error)) (a account, err error) {
	passwd, err := read("etc/passwd")
	if err != nil {
		return a, err
	}
	group, err := read("etc/group")
	if err != nil {
		return a, err
	}
	user, ofGroup, _ := strings.Cut(f.who(), ":")
	if a, err = findUser(passwd, group, user); err != nil {
		return a, err
	}
	if ofGroup != "" {
		a.groups = nil // as docker run
		if a.gid, err = findGroup(group, ofGroup); err != nil {
			return a, err
		}
	}
	for _, g := range f.groups {
		id, err := findGroup(group, g)
		if err != nil {
			return a, err
		}
		a.added = append(a.added, id)
	}
	return a, nil
}

func (f *flags) who() string {
	switch {
	case f.user == "" && f.userns == "keep-id":
		return fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid())
	case f.user == "" || f.user[0] == ':':
		return "0" + f.user
	}
	return f.user
}

// readInRoot reads a file of the sandbox's root directory; one that is missing is empty. Symbolic links do not lead out
// of a directory of --rootfs.
func (f *flags) readInRoot(name string) (string, error) {
	switch {
	case f.layered():
		return f.readInLayers(name)
	case f.rootfs == "":
		return contents(os.ReadFile("/" + name))
	}
	root, err := os.OpenRoot(f.rootfs)
	if err != nil {
		return "", err
	}
	defer root.Close()
	return contents(root.ReadFile(name))
}

func contents(b []byte, err error) (string, error) {
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return string(b), err
}

// findUser looks a name or number up (passwd(5), group(5)).
func findUser(passwd, group, user string) (a account, err error) {
	a.home = "/"
	e := entry(passwd, 7, user, 2)
	if e == nil {
		a.uid, err = parseID("user", user)
		return a, err
	}
	if a.uid, err = parseID("user", e[2]); err != nil {
		return a, err
	}
	if a.gid, err = parseID("group", e[3]); err != nil {
		return a, err
	}
	if e[5] != "" {
		a.home = e[5]
	}
	a.groups = groupsOf(group, e[0])
	return a, nil
}

func findGroup(group, name string) (uint32, error) {
	if e := entry(group, 3, name, 2); e != nil {
		name = e[2]
	}
	return parseID("group", name)
}

// entry gives the fields of the first line whose name, or else whose number, is this. Lines with too few fields are none.
func entry(file string, fields int, name string, number int) []string {
	var found []string
	for line := range strings.Lines(file) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < fields {
			continue
		}
		if f[0] == name {
			return f
		}
		if f[number] == name && found == nil {
			found = f
		}
	}
	return found
}

// groupsOf gives the groups that have the user as a member.
func groupsOf(group, user string) (ids []uint32) {
	for line := range strings.Lines(group) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), user) {
			continue
		}
		if id, err := parseID("group", f[2]); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func parseID(what, s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("there is no %s %q in the sandbox", what, s)
	}
	return uint32(n), nil
}
