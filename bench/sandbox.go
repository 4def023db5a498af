package main

import (
	"fmt"
	"io"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
)

// sandboxA is mount, pid, ipc, uts and cgroup namespaces, the host's tree read-only, and /proc, /dev and /tmp of its own.
func sandboxA() caisson.Sandbox {
	return caisson.New(
		namespaces.PID|namespaces.Mount|namespaces.IPC|namespaces.UTS|namespaces.Cgroup,
		chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"})
}

// sandboxB is A with network and user namespaces too: root inside is the caller outside.
func sandboxB() caisson.Sandbox { return sandboxA().With(namespaces.User | namespaces.Net) }

func printPlans(out io.Writer, user bool) error {
	if !user {
		fmt.Fprintf(out, "A\n%s\n", sandboxA().Command("/bin/true").Plan())
	}
	_, err := fmt.Fprintf(out, "B\n%s", sandboxB().Command("/bin/true").Plan())
	return err
}
