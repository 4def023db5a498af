//go:build linux

package learn

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/caisson-dev/caisson/lsm"
)

// Profile is what a program has done with files: one entry for each path, in their order. It is what [Recorder.Profile] and [Merge] give.
type Profile []Entry

// Entry is what was done with one file.
type Entry struct {
	Path   string
	Access Access
}

func profile(seen map[string]Access) Profile {
	p := make(Profile, 0, len(seen))
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if seen[name] != 0 {
			p = append(p, Entry{name, seen[name]})
		}
	}
	return p
}

func (p Profile) byPath() map[string]Access {
	all := make(map[string]Access, len(p))
	for _, e := range p {
		all[path.Clean(e.Path)] |= e.Access
	}
	return all
}

// Merge is what any of the profiles has.
func Merge(profiles ...Profile) Profile { return profile(slices.Concat(profiles...).byPath()) }

// Fold makes the profile wider and shorter: of a directory in which more than most files and directories were read, listed or executed, all may be, and
// what is below it. It begins at the innermost ones. What was written or made stays as it is, and / is never allowed as a whole.
func (p Profile) Fold(most int) Profile {
	all := p.byPath()
	for d := p.deepest() - 1; d > 0; d-- {
		inside := map[string][]string{} // of the directories on this level
		for name := range all {
			if depth(name) == d+1 {
				inside[path.Dir(name)] = append(inside[path.Dir(name)], name)
			}
		}
		for dir, names := range inside {
			if len(names) > most {
				for _, name := range names {
					all[dir] |= all[name] & (List | Read | Execute)
				}
			}
		}
	}
	return profile(all)
}

func (p Profile) deepest() (most int) {
	for _, e := range p {
		most = max(most, depth(path.Clean(e.Path)))
	}
	return most
}

// depth is 0 for / and 1 for /etc.
func depth(name string) int { return strings.Count(strings.TrimSuffix(name, "/"), "/") }

// needed leaves out what a rule for a directory above allows already.
func (p Profile) needed() Profile {
	all := p.byPath()
	var rest Profile
	for _, e := range profile(all) {
		var given Access
		for dir := e.Path; dir != "/"; {
			dir = path.Dir(dir)
			given |= all[dir].grants()
		}
		if a := e.Access &^ given; a != 0 {
			rest = append(rest, Entry{e.Path, a})
		}
	}
	return rest
}

// group is the paths of one rule.
type group struct {
	name  string // of the function of package lsm
	rule  func(...string) lsm.Rule
	paths []string
}

// groups gives the rules: each path is in those that its access needs.
func (p Profile) groups() []group {
	all := []group{{"Execute", lsm.Execute, nil}, {"ReadWrite", lsm.ReadWrite, nil}, {"ReadOnly", lsm.ReadOnly, nil}, {"List", lsm.List, nil}}
	add := func(i int, name string) { all[i].paths = append(all[i].paths, name) }
	for _, e := range p.needed() {
		a := e.Access
		if a&Execute != 0 {
			add(0, e.Path)
		}
		if a&(Write|Make) != 0 {
			add(1, e.Path)
		}
		switch {
		case a&(Execute|Write|Make) != 0: // these read
		case a&Read != 0:
			add(2, e.Path)
		default:
			add(3, e.Path)
		}
	}
	return slices.DeleteFunc(all, func(g group) bool { return len(g.paths) == 0 })
}

// Rules are the rules under which the program can do what it has done, and nothing else to files; what Landlock does not restrict is left alone. They mean the newest version
// of Landlock that package lsm knows: append an [lsm.ABI] for an older kernel. A profile with nothing in it allows no file at all.
func (p Profile) Rules() lsm.Landlock {
	var l lsm.Landlock
	for _, g := range p.groups() {
		l = append(l, g.rule(g.paths...))
	}
	if l == nil {
		l = lsm.Landlock{lsm.ReadOnly()}
	}
	return l
}
