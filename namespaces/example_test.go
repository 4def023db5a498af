package namespaces_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
)

// print shows what the parts put into a plan. With the caisson package it is caisson.New(parts...).Plan().
func print(parts ...plan.Primitive) {
	for line := range strings.Lines(plan.Build(parts...).String()) {
		if strings.Contains(line, "namespaces.") || strings.Contains(line, "CLONE_NEW") {
			fmt.Println(strings.Join(strings.Fields(line)[1:], " "))
		}
	}
}

func ExampleSet() {
	base := namespaces.PID | namespaces.IPC
	fmt.Println(base | namespaces.Net)
	print(base)
	// Output:
	// pid|net|ipc
	// parent clone3(CLONE_NEWPID|CLONE_NEWIPC|CLONE_CLEAR_SIGHAND|CLONE_PIDFD|CLONE_VFORK|CLONE_VM)
}

func ExampleSet_Each() {
	for kind := range (namespaces.UTS | namespaces.Mount).Each() {
		fmt.Println(kind)
	}
	// Output:
	// mount
	// uts
}

func ExampleParseSet() {
	set, err := namespaces.ParseSet("pid,net,mnt")
	fmt.Println(set, err)
	_, err = namespaces.ParseSet("pid,process")
	fmt.Println(err)
	// Output:
	// pid|mount|net <nil>
	// "process" is no kind of namespace
}

func ExampleSetError() {
	err := plan.Build(namespaces.Set(1)).Err()
	var e *namespaces.SetError
	fmt.Println(errors.As(err, &e), e.Text, errors.Is(err, syscall.EINVAL))
	// Output: true 0x1 true
}

func ExampleIDs() {
	ids := namespaces.IDs{
		UIDs:      []namespaces.Range{{Inside: 0, Outside: 100000, Size: 65536}},
		GIDs:      []namespaces.Range{{Inside: 0, Outside: 100000, Size: 65536}},
		Setgroups: namespaces.DenySetgroups,
	}
	sandbox := plan.Build(ids, namespaces.PID)
	fmt.Print(sandbox)
}

func ExampleSetgroups() {
	ids := namespaces.MapRoot()
	ids.Setgroups = namespaces.DenySetgroups
	fmt.Println(ids.Setgroups)
	// Output: deny
}

func ExampleSubordinateIDs() {
	ids, err := namespaces.SubordinateIDs("") // the caller's
	if errors.Is(err, fs.ErrNotExist) {
		ids = namespaces.MapRoot() // nothing is granted
	} else if err != nil {
		log.Fatal(err)
	}
	fmt.Print(plan.Build(ids))
}

func ExampleSubordinateError() {
	_, err := namespaces.SubordinateIDs("nobody-at-all")
	var e *namespaces.SubordinateError
	if errors.As(err, &e) {
		fmt.Println(e.Line)
	}
	// Output: 0
}

func ExampleRange() {
	r, err := namespaces.ParseRange("1:100000:65535")
	fmt.Println(r.Inside, r.Outside, r.Size, err)
	// Output: 1 100000 65535 <nil>
}

func ExampleRangeError() {
	one := []namespaces.Range{{Inside: 0, Outside: 1000, Size: 1}}
	two := append(one, namespaces.Range{Inside: 0, Outside: 5000, Size: 10})
	err := plan.Build(namespaces.IDs{UIDs: two, GIDs: one}).Err()
	var e *namespaces.RangeError
	if errors.As(err, &e) {
		fmt.Println(e.Range)
		fmt.Println(e)
	}
	// Output:
	// 0:5000:10
	// uid map: range 0:5000:10: its inside ids are also those of 0:1000:1
}

func ExampleHostname() {
	print(namespaces.Hostname("web"))
	// Output:
	// parent clone3(CLONE_NEWUTS|CLONE_CLEAR_SIGHAND|CLONE_PIDFD|CLONE_VFORK|CLONE_VM)
	// child sethostname("web", 3) # namespaces.Hostname
}

func ExampleDomainname() {
	print(namespaces.Domainname("example"))
	// Output:
	// parent clone3(CLONE_NEWUTS|CLONE_CLEAR_SIGHAND|CLONE_PIDFD|CLONE_VFORK|CLONE_VM)
	// child setdomainname("example", 7) # namespaces.Domainname
}

func ExampleTimeOffsets() {
	print(namespaces.TimeOffsets{Monotonic: -time.Second / 2, Boottime: 24 * time.Hour})
	// Output:
	// parent open "/proc" as proc # namespaces.TimeOffsets
	// parent open "/proc" as proc # namespaces.TimeOffsets
	// child unshare(CLONE_NEWTIME)
	// child $0 = openat(<proc>, "self/timens_offsets", O_WRONLY|O_CLOEXEC, 0) # namespaces.TimeOffsets
	// child write($0, "monotonic -1 500000000\nboottime 86400 0\n", 40) # namespaces.TimeOffsets
	// child $1 = openat(<proc>, "self/ns/time_for_children", O_RDONLY|O_CLOEXEC, 0) # namespaces.TimeOffsets
	// child setns($1, CLONE_NEWTIME) or EUSERS # namespaces.TimeOffsets
}

func ExampleJoin() {
	print(namespaces.Join{Path: "/run/netns/blue", Kinds: namespaces.Net}, namespaces.UTS)
	// Output:
	// parent open "/run/netns/blue" as net namespace # namespaces.Join
	// child setns(<net namespace>, CLONE_NEWNET) # namespaces.Join
	// child clone3(CLONE_NEWUTS|CLONE_PARENT|CLONE_VFORK|CLONE_VM)
}

func ExampleJoin_process() {
	// All namespaces of a container's process in which we are not yet, as nsenter --all does.
	sandbox := plan.Build(namespaces.Join{PID: 4242})
	if errors.Is(sandbox.Err(), fs.ErrNotExist) {
		fmt.Println("there is no such process")
	}
}

func ExampleNamespace() {
	here, err := namespaces.Open("/proc/self/ns/net")
	if err != nil {
		log.Fatal(err)
	}
	defer here.Close()
	fmt.Println(here.Kind())
	fmt.Println(strings.HasPrefix(here.String(), "net:["))
	// Output:
	// net
	// true
}

func ExampleNamespaces() {
	here, err := namespaces.Of(os.Getpid(), namespaces.UTS|namespaces.Net)
	if err != nil {
		log.Fatal(err)
	}
	defer here.Close()
	fmt.Println(here.Kinds(), here.Find(namespaces.UTS).Kind())
	// Output: net|uts uts
}

func ExampleID() {
	first, err := namespaces.Open("/proc/self/ns/uts")
	if err != nil {
		log.Fatal(err)
	}
	defer first.Close()
	second, err := namespaces.OfFile(first.File())
	if err != nil {
		log.Fatal(err)
	}
	defer second.Close()
	fmt.Println(first.ID() == second.ID())
	// Output: true
}

func ExampleNew() {
	made, err := namespaces.New(namespaces.Net)
	if errors.Is(err, fs.ErrPermission) {
		made, err = namespaces.New(namespaces.User | namespaces.Net)
	}
	if err != nil {
		log.Fatal(err)
	}
	defer made.Close()
	fmt.Print(plan.Build(made)) // a sandbox that joins them
}

func ExamplePin() {
	made, err := namespaces.New(namespaces.Net)
	if err != nil {
		log.Fatal(err)
	}
	defer made.Close()
	if err := namespaces.Pin(made.Find(namespaces.Net), "/run/netns/blue"); err != nil {
		log.Fatal(err)
	}
	defer namespaces.Unpin("/run/netns/blue")
}

func ExampleDo() {
	err := namespaces.Do(namespaces.UTS, func() error {
		if err := syscall.Sethostname([]byte("inside")); err != nil {
			return err
		}
		out, err := exec.Command("uname", "-n").Output()
		fmt.Printf("%s", out)
		return err
	})
	var e *namespaces.Error
	if errors.As(err, &e) {
		fmt.Println(e.Op, e.Hint)
	}
}

func ExampleTarget() {
	targets := []namespaces.Target{
		namespaces.Mount | namespaces.Net,
		namespaces.Join{Path: "/run/netns/blue", Kinds: namespaces.Net},
	}
	for _, where := range targets {
		if err := namespaces.Do(where, func() error { return nil }); err != nil {
			fmt.Println(err)
		}
	}
}

func ExampleError() {
	err := namespaces.Do(namespaces.User, func() error { return nil })
	var e *namespaces.Error
	fmt.Println(errors.As(err, &e), errors.Is(err, errors.ErrUnsupported))
	// Output: true true
}

func ExampleList() {
	all, err := namespaces.List()
	if err != nil {
		log.Fatal(err)
	}
	for _, n := range all {
		fmt.Println(n.Inode, n.Kind, n.Processes, n.PID, n.UID, n.Command)
	}
}

func ExampleInfo() {
	all, err := namespaces.List()
	if err != nil {
		log.Fatal(err)
	}
	var sandboxes []namespaces.Info
	for _, n := range all {
		if n.Kind == namespaces.PID && n.PID != 1 {
			sandboxes = append(sandboxes, n)
		}
	}
	fmt.Println(len(sandboxes))
}

func ExampleSysctl() {
	print(namespaces.IPC, namespaces.Sysctl{Name: "kernel.shmmax", Value: "67108864"})
	// Output:
	// parent open "/proc" as proc # namespaces.Sysctl
	// parent clone3(CLONE_NEWIPC|CLONE_CLEAR_SIGHAND|CLONE_PIDFD|CLONE_VFORK|CLONE_VM)
	// child $0 = openat2(<proc>, "sys/kernel/shmmax", {O_WRONLY|O_CLOEXEC, RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS|RESOLVE_NO_XDEV}, 24) # namespaces.Sysctl
	// child $1 = write($0, "67108864", 8) # namespaces.Sysctl
	// child futex([8], FUTEX_WAIT_PRIVATE, $1, {0, 0}) or ETIMEDOUT # namespaces.Sysctl
}

func ExampleSysctlError() {
	err := plan.Build(namespaces.Sysctl{Name: "net.ipv4.ip_forward", Value: "1"}).Err()
	var e *namespaces.SysctlError
	if errors.As(err, &e) {
		fmt.Println(e)
	}
	// Output: sysctl "net.ipv4.ip_forward": the sandbox has no net namespace of its own, in which it could be set
}

func ExampleMaxUserNamespaces() {
	// Nothing inside can make a further user namespace, and with it reach parts of the kernel that are for root.
	sandbox := plan.Build(namespaces.User|namespaces.PID, namespaces.MaxUserNamespaces(0))
	fmt.Println(sandbox.Err())
	// Output: <nil>
}
