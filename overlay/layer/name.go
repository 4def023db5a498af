//go:build linux

package layer

import (
	"path"
	"strings"
)

// place is a name of the archive: the directory, clean and without slashes at its ends, and the last word; both are "" for the root.
type place struct{ dir, base string }

// parseName checks a name of the archive. "./a//b/" is as good as "a/b"; what leads upwards is refused, also where it would stay inside.
func parseName(name string) (place, error) {
	switch {
	case name == "" || strings.IndexByte(name, 0) >= 0:
		return place{}, refuse(IsNoName, "")
	case name[0] == '/':
		return place{}, refuse(IsAbsolute, "")
	case dotDot(name):
		return place{}, refuse(IsDotDot, "")
	}
	name = path.Clean(name)
	if name == "." {
		return place{}, nil
	}
	i := strings.LastIndexByte(name, '/')
	p := place{base: name[i+1:]}
	if i > 0 {
		p.dir = name[:i]
	}
	// A directory that is called as a whiteout would be one on the next system.
	if strings.HasPrefix(p.dir, whiteout) || strings.Contains(p.dir, "/"+whiteout) {
		return place{}, refuse(IsBadWhiteout, "")
	}
	return p, nil
}

func dotDot(name string) bool {
	if !strings.Contains(name, "..") {
		return false
	}
	for word := range strings.SplitSeq(name, "/") {
		if word == ".." {
			return true
		}
	}
	return false
}
