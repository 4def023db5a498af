//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tool is what runs in the sandboxes.
func tool(what string, args []string) int {
	switch what {
	case "true":
	case "exit":
		code, _ := strconv.Atoi(args[0])
		return code
	case "kill":
		n, _ := strconv.Atoi(args[0])
		syscall.Kill(os.Getpid(), syscall.Signal(n))
		time.Sleep(10 * time.Second)
	case "pid":
		fmt.Println(os.Getpid())
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "args":
		fmt.Printf("%q\n", args)
	case "cwd":
		fmt.Println(os.Getwd())
	case "id":
		groups, _ := os.Getgroups()
		slices.Sort(groups)
		fmt.Println(os.Getuid(), os.Getgid(), groups)
	case "names":
		var u unix.Utsname
		unix.Uname(&u)
		fmt.Println(unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Domainname[:]))
	case "limit":
		n, _ := strconv.Atoi(args[0])
		var l unix.Rlimit
		unix.Getrlimit(n, &l)
		fmt.Println(l.Cur, l.Max)
	case "print":
		n, _ := strconv.Atoi(args[0])
		for i := range n {
			fmt.Println("line", i)
		}
	case "cat":
		return toolCat(args)
	case "write":
		return toolResult(os.WriteFile(args[0], []byte("written"), 0o644))
	case "stat":
		var fs unix.Statfs_t
		st, err := os.Stat(args[0])
		if unix.Statfs(args[0], &fs); err == nil {
			fmt.Println(st.Mode(), int64(fs.Blocks)*int64(fs.Bsize), fs.Type == unix.TMPFS_MAGIC)
		}
		return toolResult(err)
	case "serve":
		return toolServe(args[0])
	case "ask":
		return toolAsk(args[0])
	case "addresses":
		all, _ := net.InterfaceAddrs()
		fmt.Println(all)
	case "interfaces":
		toolInterfaces()
	case "processes":
		all, _ := filepath.Glob("/proc/[0-9]*")
		fmt.Println(len(all))
	case "namespace":
		link, _ := os.Readlink("/proc/self/ns/" + args[0])
		fmt.Println(link)
	case "session":
		sid, _ := unix.Getsid(0)
		fmt.Println(sid == os.Getpid())
	case "signals":
		return toolSignals()
	case "terminal":
		return toolTerminal()
	case "tty":
		return toolTTY()
	case "inject":
		toolInject()
	case "leave":
		c := exec.Command("/proc/self/exe")
		c.Args, c.Stdin, c.Stdout = []string{"tool", "nap3"}, os.Stdin, os.Stdout
		err := c.Start()
		fmt.Println("left")
		return toolResult(err)
	case "nap3":
		signal.Ignore(syscall.SIGHUP)
		time.Sleep(8 * time.Second)
	case "newuser":
		return toolNewUser(append(args, "true")[0])
	case "remount":
		return toolResult(unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	case "unmount":
		return toolResult(unix.Unmount(args[0], unix.MNT_DETACH))
	case "mknod":
		return toolResult(unix.Mknod("/dev/disk", unix.S_IFBLK|0o600, 0))
	case "node":
		return toolNode(args)
	case "list":
		return toolList(args[0])
	case "eat":
		n, _ := strconv.Atoi(args[0])
		memory := make([]byte, n<<20)
		for i := 0; i < len(memory); i += 4096 {
			memory[i] = 1
		}
	case "feed":
		c := exec.Command("/proc/self/exe", append([]string{"eat"}, args...)...)
		c.Args[0] = "tool"
		if c.Run() == nil {
			fmt.Println("it lives")
		}
	case "family":
		return toolFamily()
	case "parent":
		return toolParent()
	case "nap":
		time.Sleep(500 * time.Millisecond)
	case "sleep":
		fmt.Println("ready")
		time.Sleep(5 * time.Minute)
	}
	return 0
}

// toolNewUser does something as root of a user namespace and mount namespace of its own.
func toolNewUser(what string) int {
	c := exec.Command("/proc/self/exe", what, "/run")
	c.Args[0], c.Stdout = "tool", os.Stdout
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	if err := c.Run(); err != nil && c.ProcessState == nil {
		return toolResult(err)
	}
	return c.ProcessState.ExitCode()
}

// toolNode makes a device node, and opens it.
func toolNode(args []string) int {
	major, _ := strconv.Atoi(args[1])
	minor, _ := strconv.Atoi(args[2])
	kind := map[string]uint32{"b": unix.S_IFBLK, "c": unix.S_IFCHR}[args[0]]
	if err := unix.Mknod("/dev/node", kind|0o600, int(unix.Mkdev(uint32(major), uint32(minor)))); err != nil {
		return toolResult(err)
	}
	_, err := os.Open("/dev/node")
	return toolResult(err)
}

func toolList(dir string) int {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	fmt.Println(names)
	return toolResult(err)
}

func toolResult(err error) int {
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func toolCat(args []string) int {
	in := os.Stdin
	if len(args) > 0 {
		f, err := os.Open(args[0])
		if err != nil {
			return toolResult(err)
		}
		in = f
	}
	_, err := io.Copy(os.Stdout, in)
	return toolResult(err)
}

// toolServe answers who connects, for ever.
func toolServe(addr string) int {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return toolResult(err)
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return toolResult(err)
		}
		fmt.Fprintln(c, "hello", c.RemoteAddr().(*net.TCPAddr).IP)
		c.Close()
	}
}

// toolAsk prints what a server says.
func toolAsk(addr string) int {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return toolResult(err)
	}
	io.Copy(os.Stdout, c)
	return 0
}

func toolInterfaces() {
	b, _ := os.ReadFile("/proc/self/net/dev")
	var names []string
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	slices.Sort(names)
	fmt.Println(names)
}

// toolSignals prints each signal that comes. SIGINT ends it.
func toolSignals() int {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, append(forwarded(), syscall.SIGWINCH)...)
	fmt.Println("ready")
	for s := range signals {
		fmt.Println("got", int(s.(syscall.Signal)))
		if s == syscall.SIGINT {
			return 5
		}
	}
	return 0
}

// toolTerminal prints what the terminal is like, and its size whenever that changes.
func toolTerminal() int {
	signals := make(chan os.Signal, 10)
	signal.Notify(signals, syscall.SIGWINCH, syscall.SIGINT, syscall.SIGTERM)
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	_, e2 := os.OpenFile("/dev/stdout", os.O_WRONLY, 0)
	fmt.Println("terminals", isTerminal(os.Stdin), isTerminal(os.Stdout), isTerminal(os.Stderr), "errors", err, e2)
	size := func() {
		if w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
			fmt.Println("size", w.Row, w.Col)
		}
	}
	size()
	fmt.Println("ready")
	if tty == nil {
		return 0
	}
	for s := range signals {
		if s != syscall.SIGWINCH {
			fmt.Println("got", int(s.(syscall.Signal)))
			return 7
		}
		size()
	}
	return 0
}

// toolTTY prints the name of the terminal, whose it is, and whether it is the console.
func toolTTY() int {
	name, err := os.Readlink("/proc/self/fd/0")
	if err != nil {
		return toolResult(err)
	}
	var own, tty, console unix.Stat_t
	if err := errors.Join(unix.Fstat(0, &own), unix.Stat(name, &tty), unix.Stat("/dev/console", &console)); err != nil {
		return toolResult(err)
	}
	fmt.Println(name, "mine", tty.Ino == own.Ino && tty.Dev == own.Dev && int(own.Uid) == os.Getuid(), "console",
		console.Ino == own.Ino && console.Dev == own.Dev && console.Rdev == own.Rdev)
	return 0
}

// toolInject types into all that it has: on 64 bits also with an ioctl number whose upper half is not zero (CVE-2019-10063).
func toolInject() {
	for _, name := range []string{"/dev/tty", "/dev/console", "/dev/pts/0"} {
		os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	}
	text := []byte("x\n")
	paste := []byte{3} // TIOCL_PASTESEL
	for fd := uintptr(0); fd < 32; fd++ {
		for _, upper := range []uint64{0, 1 << 32} {
			for i := range text {
				unix.Syscall(unix.SYS_IOCTL, fd, uintptr(unix.TIOCSTI|upper), uintptr(unsafe.Pointer(&text[i])))
			}
			const linux = 0x541c // TIOCLINUX
			unix.Syscall(unix.SYS_IOCTL, fd, uintptr(linux|upper), uintptr(unsafe.Pointer(&paste[0])))
		}
	}
	fmt.Println("injected")
}

// toolFamily starts a parent that ends and leaves a child behind, and watches what becomes of the child.
func toolFamily() int {
	c := exec.Command("/proc/self/exe", "parent")
	c.Args[0] = "tool"
	out, err := c.Output()
	if err != nil {
		return toolResult(err)
	}
	status := "/proc/" + strings.TrimSpace(string(out)) + "/status"
	b, _ := os.ReadFile(status)
	_, rest, _ := strings.Cut(string(b), "PPid:")
	parent, _, _ := strings.Cut(rest, "\n")
	fmt.Println("parent", strings.TrimSpace(parent))
	for range 1000 {
		if _, err := os.Stat(status); err != nil {
			fmt.Println("reaped")
			return 0
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("not reaped")
	return 1
}

func toolParent() int {
	c := exec.Command("/proc/self/exe")
	c.Args = []string{"tool", "nap"}
	err := c.Start()
	fmt.Println(c.Process.Pid)
	return toolResult(err)
}
