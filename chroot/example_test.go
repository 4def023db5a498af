package chroot_test

import (
	"fmt"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
)

// The host's own tree, read-only, with a /proc, a /dev and a /tmp of the sandbox's own.
func ExampleHost() {
	sb := caisson.New(chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"})
	fmt.Println(sb.Err())
	// Output: <nil>
}

// A directory becomes the root; what it lacks is bound from the host.
func ExamplePivot() {
	sb := caisson.New(
		chroot.Pivot{Dir: "/srv/debian", ReadOnly: true},
		chroot.Proc{},
		chroot.Bind{Source: "/etc/passwd", Target: "/etc/passwd", ReadOnly: true},
	)
	fmt.Println(sb.Err())
	// Output: <nil>
}

// Mounts without a root are refused: the host's tree would stay writable around them.
func ExampleBind() {
	sb := caisson.New(chroot.Bind{Source: "/usr", Target: "/mnt"})
	fmt.Println(sb.Err())
	// Output: caisson: chroot.Bind: mounts need a root: add Host or Pivot: invalid argument
}

// A file system in memory of at most 16 MiB.
func ExampleTmpfs() {
	sb := caisson.New(chroot.Host{}, chroot.Tmpfs{Path: "/tmp", Size: 16 << 20, Mode: 0o700})
	fmt.Println(sb.Err())
	// Output: <nil>
}

// /proc shows the processes of the sandbox's pid namespace.
func ExampleProc() {
	fmt.Println(caisson.New(chroot.Host{}, chroot.Proc{}).Err())
	// Output: <nil>
}

// A /dev with the nodes that programs expect, and no more.
func ExampleDev() {
	fmt.Println(caisson.New(chroot.Host{}, chroot.Dev{}).Err())
	// Output: <nil>
}
