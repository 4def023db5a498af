//go:build linux

package lsm

import (
	"slices"
	"strings"
)

// transitions are the ways to execute.
var transitions = []string{"ix", "px", "cx", "ux", "Px", "Cx", "Ux", "pix", "Pix", "cix", "Cix"}

func (w *writer) file(r FileRule) {
	kind := "file"
	if r.Owner {
		kind = "owner file"
	}
	if r.Path == "" && r.Perms == "" && r.To == "" {
		w.rule(r.Deny, kind)
		return
	}
	if r.Path == "" || r.Path[0] != '/' && !strings.HasPrefix(r.Path, "@{") {
		w.bad("path", r.Path)
	}
	w.perms(r)
	rest := []string{w.quoted("path", r.Path), r.Perms}
	if r.To != "" {
		rest = append(rest, "->", w.quoted("profile", r.To))
	}
	w.rule(r.Deny, kind, rest...)
}

// perms refuses what is no permission, twice there, or would allow to execute in two ways.
func (w *writer) perms(r FileRule) {
	letters, way := r.Perms, ""
	if r.Deny {
		letters = strings.TrimSuffix(letters, "x")
	} else if i := strings.IndexFunc(letters, func(c rune) bool { return strings.ContainsRune("ipcuPCUx", c) }); i >= 0 {
		letters, way = letters[:i], letters[i:]
	}
	seen := map[rune]bool{}
	for _, c := range letters {
		if !strings.ContainsRune("rwamkl", c) || seen[c] {
			w.bad("permissions", r.Perms)
		}
		seen[c] = true
	}
	switch {
	case r.Perms == "", seen['w'] && seen['a'], way != "" && !slices.Contains(transitions, way):
		w.bad("permissions", r.Perms)
	case r.To != "" && !strings.ContainsAny(way, "pPcC"):
		w.bad("a profile without a change to it:", r.Perms)
	}
}

func (w *writer) mount(r MountRule) {
	kind := r.Op
	if kind == "" {
		kind = "mount"
	}
	if !slices.Contains([]string{"mount", "remount", "umount", "pivot_root"}, kind) {
		w.bad("mount operation", kind)
	}
	var rest []string
	if r.FSType != "" {
		rest = append(rest, "fstype="+w.words("file system", []string{r.FSType})[0])
	}
	if len(r.Options) > 0 {
		rest = append(rest, "options=("+strings.Join(w.words("option", r.Options), ", ")+")")
	}
	w.rule(r.Deny, kind, append(rest, w.places(kind, r)...)...)
}

// places gives source and target as the operation has them.
func (w *writer) places(kind string, r MountRule) (rest []string) {
	if kind != "mount" && r.Source != "" || kind == "pivot_root" && (r.FSType != "" || len(r.Options) > 0) {
		w.bad(kind+" has no such part:", r.Source+r.FSType+strings.Join(r.Options, ","))
	}
	if r.Source != "" {
		rest = append(rest, w.quoted("source", r.Source))
	}
	if r.Target == "" {
		return rest
	}
	if kind == "mount" {
		rest = append(rest, "->")
	}
	return append(rest, w.quoted("target", r.Target))
}
