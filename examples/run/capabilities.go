//go:build linux

package main

import (
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// capabilities cuts the bounding set (capabilities(7)) down to what docker run leaves to root, less CAP_MKNOD, which would
// give it the host's disks. It comes before the change of the user, after which CAP_SETPCAP is gone.
//
// Without it nothing would be read-only: who has CAP_SYS_ADMIN in the user namespace that owns the mounts, be it one of
// the sandbox's own, can mount them writable again.
func capabilities() plan.Primitive {
	kept := []int{unix.CAP_AUDIT_WRITE, unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL,
		unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SETFCAP, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_SETUID,
		unix.CAP_SYS_CHROOT}
	return plan.Func(func(p *plan.Plan) error {
		const most = 64
		for c := range most {
			if !slices.Contains(kept, c) {
				p.Child(plan.Bounds, plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"),
					plan.Number(uint64(c), strconv.Itoa(c))).Tolerate(syscall.EINVAL)) // the kernel has no such capability
			}
		}
		return nil
	})
}
