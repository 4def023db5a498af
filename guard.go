//go:build linux

package caisson

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// traceable refuses to enter a sandbox whose root could trace the child that enters. Until it executes the command, the child shares the
// caller's memory. It is hidden from all who have no CAP_SYS_PTRACE in the caller's user namespace; without a user namespace of
// its own, root of the sandbox may have kept just that. Who has kept CAP_SYS_ADMIN there as well owns the host anyway, and nothing is gained
// by refusing.
func (p *Process) traceable() plan.Action {
	return plan.Action{Name: "look whether the sandbox could trace us", Do: func(*plan.Run) error {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/status")
		if err != nil {
			return nil // it has ended: setns says so
		}
		if bounds := bounding(string(b)); bounds&(1<<unix.CAP_SYS_PTRACE) == 0 || bounds&(1<<unix.CAP_SYS_ADMIN) != 0 {
			return nil
		}
		return fmt.Errorf("root of the sandbox has CAP_SYS_PTRACE and no user namespace: it could read the memory of the caller: %w", syscall.EPERM)
	}}
}

// bounding finds the capability bounding set in /proc/PID/status (proc(5)). What cannot be read counts as CAP_SYS_PTRACE.
func bounding(status string) uint64 {
	_, rest, _ := strings.Cut(status, "\nCapBnd:")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return 1 << unix.CAP_SYS_PTRACE
	}
	return n
}
