package chroot_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
)

// The host's own tree, read-only, with a /proc, a /dev and a /tmp of the sandbox's own.
func ExampleHost() {
	sb := caisson.New(namespaces.PID, chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"})
	fmt.Println(sb.Err())
	// Output: <nil>
}

// A directory becomes the root; what it lacks is bound from the host.
func ExamplePivot() {
	sb := caisson.New(
		namespaces.PID,
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

// /proc shows the processes of the sandbox's pid namespace. One that shows the host's would be a way out.
func ExampleProc() {
	fmt.Println(caisson.New(namespaces.PID, chroot.Host{}, chroot.Proc{}).Err())
	fmt.Println(errors.Is(caisson.New(chroot.Host{}, chroot.Proc{}).Err(), syscall.EINVAL))
	// Output:
	// <nil>
	// true
}

// A /dev with the nodes that programs expect, and no more.
func ExampleDev() {
	fmt.Println(caisson.New(chroot.Host{}, chroot.Dev{}).Err())
	// Output: <nil>
}

// Many sandboxes with a user namespace get clones of one read-only /dev.
func ExampleDev_Prepare() {
	dev, err := chroot.Dev{}.Prepare()
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	for range 3 {
		sb := caisson.New(namespaces.User|namespaces.PID, chroot.Host{}, chroot.Proc{}, dev, chroot.Tmpfs{Path: "/tmp"})
		fmt.Println(sb.Err())
	}
	// Output:
	// <nil>
	// <nil>
	// <nil>
}

// The historic call: what it makes is no sandbox. TestChrootIsNoIsolation runs the program that leaves it, and shows that the same program does not
// get out of a Pivot.
func ExampleChroot() {
	for line := range strings.Lines(caisson.New(chroot.Chroot{Dir: "/srv/rescue"}).Plan().String()) {
		if _, call, ok := strings.Cut(line, "child   chroot"); ok {
			fmt.Println("chroot" + strings.Fields(call)[0])
		}
	}
	// Output: chroot("/srv/rescue")
}

// Docker's default view of the file system.
func ExampleDockerMasks() {
	sb := caisson.New(namespaces.PID|namespaces.Net|namespaces.IPC|namespaces.Cgroup, chroot.Host{}, chroot.Proc{}, chroot.Dev{Mqueue: true},
		chroot.Sysfs{}, chroot.Cgroupfs{}, chroot.DockerMasks(), chroot.DockerReadOnly())
	fmt.Println(sb.Err(), len(chroot.DockerMasks()), len(chroot.DockerReadOnly()))
	// Output: <nil> 12 5
}

// A path that Docker masks is shown after all.
func ExampleMask() {
	masks := slices.DeleteFunc(chroot.DockerMasks(), func(name string) bool { return name == "/proc/interrupts" })
	fmt.Println(len(masks))
	// Output: 11
}

func ExampleReadOnly() {
	fmt.Println(caisson.New(chroot.Host{}, chroot.ReadOnly{"/proc/sys"}).Err())
	// Output: <nil>
}

// Bound if it is there when the sandbox is made.
func ExampleOptional() {
	sb := caisson.New(chroot.Host{}, chroot.Optional{Source: "/no/such", Target: "/mnt"})
	fmt.Println(sb.Err())
	// Output: <nil>
}

func ExampleDevice() {
	fmt.Println(caisson.New(chroot.Host{}, chroot.Dev{}, chroot.Device{Path: "/dev/null", Target: "/dev/nothing"}).Err())
	// Output: <nil>
}

// Files of the sandbox's own cover those of the root.
func ExampleFile() {
	sb := caisson.New(chroot.Pivot{Dir: "/srv/debian"},
		chroot.File{Path: "/etc/hostname", Data: []byte("web\n")},
		chroot.Dir{Path: "/var/cache/app", Mode: 0o700},
		chroot.Symlink{Path: "/etc/mtab", Target: "/proc/mounts"})
	fmt.Println(sb.Err())
	// Output: <nil>
}

// The control groups need a cgroup namespace.
func ExampleCgroupfs() {
	fmt.Println(caisson.New(namespaces.Cgroup, chroot.Host{}, chroot.Cgroupfs{}).Err())
	// Output: <nil>
}

func ExampleSysfs() {
	fmt.Println(caisson.New(namespaces.Net, chroot.Host{}, chroot.Sysfs{}).Err())
	// Output: <nil>
}

func ExampleMqueue() {
	fmt.Println(caisson.New(namespaces.IPC, chroot.Pivot{Dir: "/srv/debian"}, chroot.Devpts{}, chroot.Mqueue{}).Err())
	// Output: <nil>
}

// What a sandbox has left behind is taken out without trusting it.
func ExampleRoot_CopyOut() {
	dir, err := os.MkdirTemp("", "out")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Symlink("/etc/passwd", filepath.Join(dir, "result")) // the sandbox did this
	root, err := chroot.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()
	_, err = root.CopyOut("result", os.Stdout, 1<<20)
	fmt.Println(err)
	// Output: chroot: copy out result: refused: a symbolic link
}

// An absolute link stays inside.
func ExampleRoot_Resolve() {
	dir, err := os.MkdirTemp("", "root")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	root, err := chroot.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()
	root.MkdirAll("usr/bin", 0o755)
	root.Symlink("/usr/bin", "bin")
	fmt.Println(root.Resolve("bin/../../../bin"))
	// Output: /usr/bin <nil>
}
