//go:build linux

package learn

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson/seccomp"
)

// ReadAudit reads a profile from the audit log, in the form of /var/log/audit/audit.log or of the kernel's log: its records of type SECCOMP (1326). They come from calls that a
// filter answers with seccomp.Log. Records of processes with another pid are left out, unless pid is 0. Other lines are passed over; a SECCOMP
// record that cannot be read is an error with EINVAL and the number of the line, as is one of an architecture that package seccomp does not know.
//
// The kernel drops records when there are many. Their arguments are not logged, so that the profile has names alone.
func ReadAudit(log io.Reader, pid int) (Profile, error) {
	var rec Recorder
	in := bufio.NewScanner(log)
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		if !strings.Contains(line, "type=SECCOMP ") && !strings.Contains(line, "type=1326 ") {
			continue
		}
		if err := rec.noteLine(line, pid); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return rec.Profile(), in.Err()
}

func (r *Recorder) noteLine(line string, pid int) error {
	fields := map[string]string{}
	for _, f := range strings.Fields(line) {
		name, value, _ := strings.Cut(f, "=")
		fields[name] = value
	}
	if pid != 0 && fields["pid"] != strconv.Itoa(pid) {
		return nil
	}
	token, e1 := strconv.ParseUint(fields["arch"], 16, 32)
	nr, e2 := strconv.ParseInt(fields["syscall"], 10, 32)
	if e1 != nil || e2 != nil || nr < 0 {
		return fmt.Errorf("a record without arch and syscall: %w", syscall.EINVAL)
	}
	arch, ok := seccomp.ArchOf(uint32(token), int(nr))
	if !ok {
		return fmt.Errorf("architecture %#x is not known: %w", token, syscall.EINVAL)
	}
	return r.Note(arch, int(nr), [6]uint64{})
}
