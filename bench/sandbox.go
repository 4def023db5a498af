package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// sandboxA is mount, pid, ipc, uts and cgroup namespaces, the host's tree read-only, and /proc, /dev and /tmp of its own.
func sandboxA() caisson.Sandbox {
	return caisson.New(
		plan.Func(func(p *plan.Plan) error {
			p.Clone(unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP)
			return nil
		}),
		chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"})
}

// sandboxB is A with network and user namespaces too: root inside is the caller outside.
func sandboxB() caisson.Sandbox {
	return sandboxA().With(plan.Func(func(p *plan.Plan) error {
		p.Clone(unix.CLONE_NEWUSER | unix.CLONE_NEWNET)
		p.While(plan.Action{Name: "maps", Do: func(r *plan.Run) error {
			d := fmt.Sprintf("/proc/%d/", r.PID)
			for _, f := range [][2]string{{"setgroups", "deny"}, {"uid_map", fmt.Sprintf("0 %d 1\n", os.Getuid())}, {"gid_map", fmt.Sprintf("0 %d 1\n", os.Getgid())}} {
				fd, err := unix.Open(d+f[0], unix.O_WRONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				if _, err := unix.Write(fd, []byte(f[1])); err != nil {
					return err
				}
				unix.Close(fd)
			}
			return nil
		}})
		return nil
	}))
}

func printPlans(out io.Writer, user bool) error {
	if !user {
		fmt.Fprintf(out, "A\n%s\n", sandboxA().Command("/bin/true").Plan())
	}
	_, err := fmt.Fprintf(out, "B\n%s", sandboxB().Command("/bin/true").Plan())
	return err
}
