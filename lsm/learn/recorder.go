//go:build linux

package learn

import (
	"fmt"
	"path"
	"strings"
	"sync"
	"syscall"
)

// Recorder notes what is done with which files. The zero value is ready for use, by any number of watchers at a time. It must not be copied.
type Recorder struct {
	mu   sync.Mutex
	seen map[string]Access
}

// Note notes an access. The path is absolute, in the root directory of the program, with symbolic links resolved; a relative one is EINVAL.
func (r *Recorder) Note(name string, a Access) error {
	if !path.IsAbs(name) || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("note %q: no absolute path: %w", name, syscall.EINVAL)
	}
	if a == 0 {
		return nil
	}
	name = lasting(path.Clean(name))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[string]Access{}
	}
	r.seen[name] |= a
	return nil
}

// lasting is what the next run has in the place of what belongs to this one.
func lasting(name string) string {
	process, found := strings.CutPrefix(name, "/proc/")
	process, _, _ = strings.Cut(process, "/")
	switch {
	case found && (number(process) || process == "self" || process == "thread-self"):
		return "/proc"
	case strings.HasPrefix(name, "/dev/pts/"):
		return "/dev/pts"
	}
	return name
}

func number(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// Profile gives what was noted so far.
func (r *Recorder) Profile() Profile {
	r.mu.Lock()
	defer r.mu.Unlock()
	return profile(r.seen)
}
