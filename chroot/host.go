//go:build linux

package chroot

import (
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// Host makes the host's own / the root of the sandbox, read-only, with all mounts below it, without set-user-ID programs and file
// capabilities (nosuid) and without device nodes (nodev). It works on any machine and copies nothing. The zero value is ready for use.
//
// Read-only holds against who has no CAP_SYS_ADMIN in the sandbox's mount namespace: root inside, with all its capabilities, can mount it writable
// again; so drop it (package caps), or run the command as another user. Read-only means files: whoever listens on a socket of the
// host's that the sandbox may open can still be reached through it. Mount points cannot be made, only used: below a [Tmpfs] they
// can.
//
// The file systems of the kernel (/sys, /dev) are the host's until [Sysfs] and [Dev] cover them. The host's /proc is not shown in a sandbox without a
// user namespace: /proc/PID/root of a process outside, of the same user and with no more capabilities, leads to the host's tree without the read-only
// mount between. There is [Proc], or what the caller puts there by name, or an empty directory, which also covers each further procfs that the host has
// mounted somewhere.
type Host struct {
	Propagation Propagation // Private or Shared; see [Pivot]. Slave is an error: what the host mounts later would be writable
}

// Apply implements plan.Primitive.
func (h Host) Apply(p *plan.Plan) error {
	if err := h.Propagation.later(h.Propagation == Slave); err != nil {
		return err
	}
	return pivot(p, "/", h.Propagation, mnt.Tree{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Early: true})
}
