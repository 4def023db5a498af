package overlay_test

import (
	"fmt"
	"log"
	"strings"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/overlay"
)

// A sandbox from two layers. What it writes is kept in at most 64 MiB of memory, and gone with it.
func ExampleRoot() {
	sb := caisson.New(
		namespaces.PID|namespaces.IPC|namespaces.Net,
		overlay.Root{Lower: []string{"/layers/python", "/layers/debian"}, Size: 64 << 20},
		chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"},
	)
	fmt.Println(sb.Err())
	// Output: <nil>
}

// What is written stays in a directory.
func ExampleRoot_upper() {
	sb := caisson.New(overlay.Root{Lower: []string{"/layers/debian"}, Upper: "/srv/job/upper", Work: "/srv/job/work"})
	fmt.Println(sb.Err())
	// Output: <nil>
}

// Plugins of several directories are seen as one, in a sandbox that shows the host's own tree.
func ExampleMount() {
	sb := caisson.New(
		namespaces.PID, chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"},
		overlay.Mount{Path: "/tmp/plugins", Stack: overlay.Stack{Lower: []string{"/opt/plugins", "/usr/lib/plugins"}, ReadOnly: true}},
	)
	fmt.Println(sb.Err())
	// Output: <nil>
}

// A stack on the host, for as long as the program needs it.
func ExampleStack_Mount() {
	tree, err := overlay.Stack{Lower: []string{"/layers/model", "/layers/python", "/layers/debian"}}.Mount("/mnt")
	if err != nil {
		log.Print(err)
		return
	}
	defer tree.Close()
}

// Without a path: by the descriptor the files can be reached, and by nobody else.
func ExampleStack_Open() {
	tree, err := overlay.Stack{Lower: []string{"/layers/debian"}, ReadOnly: true}.Open()
	if err != nil {
		log.Print(err)
		return
	}
	defer tree.Close()
	fmt.Println(tree.File().Name())
}

// An option by its name, and what is no value of it.
func ExampleSetting() {
	fmt.Println(caisson.New(overlay.Root{Lower: []string{"/layers/debian"}, MetaCopy: overlay.On}).Err())
	fmt.Println(caisson.New(overlay.Root{Lower: []string{"/layers/debian"}, MetaCopy: overlay.Auto}).Err())
	// Output:
	// <nil>
	// caisson: overlay.Root: metacopy "auto": invalid argument
}

// Directories that lie in each other are refused before anything is done.
func ExampleError() {
	err := caisson.New(overlay.Root{Lower: []string{"/srv/job/upper/cache", "/layers/debian"}, Upper: "/srv/job/upper", Work: "/srv/job/work"}).Err()
	fmt.Println(strings.TrimPrefix(err.Error(), "caisson: "))
	// Output: overlay.Root: overlay: stack "/srv/job/upper/cache": too many levels of symbolic links (it overlaps with "/srv/job/upper")
}

// A sandbox has prepared an environment and ended; many start from it.
func ExampleTake() {
	if err := overlay.Take("/srv/job/upper", "/srv/job/work", "/layers/prepared"); err != nil {
		log.Print(err)
		return
	}
	_ = overlay.Root{Lower: []string{"/layers/prepared", "/layers/debian"}}
}

// A snapshot of a sandbox that goes on running; cmd.Pause before and cmd.Resume after it make it one of a moment.
func ExampleFreeze() {
	if err := overlay.Freeze("/srv/job/upper", "/layers/snapshot"); err != nil {
		log.Print(err)
	}
}

// What a sandbox has written into memory is made a layer, with which others start. It may still run.
func ExampleScratch() {
	var kept overlay.Scratch
	defer kept.Close()
	sb := caisson.New(overlay.Root{Lower: []string{"/layers/debian"}, Keep: &kept})
	if err := sb.Command("apt-get", "install", "-y", "python3").Run(); err != nil {
		log.Print(err)
		return
	}
	if err := kept.Freeze("/layers/python"); err != nil {
		log.Print(err)
	}
}
