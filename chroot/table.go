//go:build linux

package chroot

import (
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/caisson-dev/caisson/internal/mnt"
)

// Mounts gives the mount table of a process, as the process sees it, in the order of mounting (proc_pid_mountinfo(5)). pid is
// a number of the caller's pid namespace, as Cmd.Process has it. A process that has ended is an [*Error] with ENOENT, ESRCH or EINVAL; a process
// of another user may be EACCES.
func Mounts(pid int) ([]mountinfo.Info, error) {
	all, err := mnt.TableOf(pid)
	if err != nil {
		return nil, &Error{Op: "read the mount table", Err: err}
	}
	return all, nil
}

// isShared reports whether what is mounted below m appears elsewhere.
func isShared(m mountinfo.Info) bool {
	for word := range strings.FieldsSeq(m.Optional) {
		if strings.HasPrefix(word, "shared:") {
			return true
		}
	}
	return false
}
