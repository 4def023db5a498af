package netstack_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/plan"
)

// TestMain is the program inside the sandboxes, too.
func TestMain(m *testing.M) {
	switch os.Getenv("NETSTACK_TEST") {
	case "":
		runtime.LockOSThread() // no test runs on the first thread, which cannot be thrown away
		code := make(chan int)
		go func() { code <- m.Run() }()
		os.Exit(<-code)
	case "victim":
		victim()
	default:
		if err := inside(os.Getenv("NETSTACK_TEST"), os.Args[1:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
}

// view is what a program in a sandbox sees of its network.
type view struct {
	Devices   map[string]net.Interface
	Addresses map[string][]string // without those of loopback; with "tentative" where it cannot be used yet
	Routes    []string
	Neigh     []string
	Rules     int
}

// inside does one thing in a sandbox.
func inside(what string, args []string) error {
	switch what {
	case "look":
		v, err := look()
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(v)
	case "dial": // says what the server at the address says
		most := dialTime
		if len(args) > 1 { // where no answer is expected
			most, _ = time.ParseDuration(args[1])
		}
		c, err := net.DialTimeout("tcp", args[0], most)
		if err != nil {
			return err
		}
		return say(c)
	case "source":
		return source(args)
	case "flood":
		return flood(args)
	case "rtt":
		return rtt(args)
	case "drain":
		return drain(args)
	case "read": // says what is in files
		for _, name := range args {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			os.Stdout.Write(b)
		}
		return nil
	case "spoof":
		return spoof(args)
	case "named":
		return named(args)
	case "probed":
		return probed(args[0])
	case "serve": // answers with a text, and the address that it is asked from
		l, err := net.Listen("tcp", args[0])
		if err != nil {
			return err
		}
		fmt.Println("ready")
		return serve(l, args[1])
	case "wait":
		fmt.Println("ready")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
	return fmt.Errorf("do %q?", what)
}

const dialTime = 5 * time.Second

func say(c net.Conn) error {
	c.SetDeadline(time.Now().Add(dialTime))
	_, err := io.Copy(os.Stdout, c)
	return err
}

func serve(l net.Listener, text string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "%s %s", text, c.RemoteAddr())
		c.Close()
	}
}

func look() (v view, err error) {
	all, err := net.Interfaces()
	if err != nil {
		return v, err
	}
	v.Devices, v.Addresses = map[string]net.Interface{}, map[string][]string{}
	for _, i := range all {
		v.Devices[i.Name] = i
		link, err := netlink.LinkByIndex(i.Index)
		if err != nil {
			return v, err
		}
		list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return v, err
		}
		for _, a := range list {
			text := a.IPNet.String()
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				text += " tentative"
			}
			v.Addresses[i.Name] = append(v.Addresses[i.Name], text)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			return v, err
		}
		for _, r := range routes {
			v.Routes = append(v.Routes, fmt.Sprintf("%v via %v", r.Dst, r.Gw))
		}
	}
	neigh, err := netlink.NeighList(0, 0)
	for _, n := range neigh {
		if n.State&netlink.NUD_PERMANENT != 0 {
			v.Neigh = append(v.Neigh, n.IP.String()+" "+n.HardwareAddr.String())
		}
	}
	rules, e := netlink.RuleList(netlink.FAMILY_V4)
	v.Rules = len(rules)
	if err == nil {
		err = e
	}
	return v, err
}

// asRoot skips where the test process may not make network namespaces.
func asRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("needs root, this is user %d", os.Geteuid())
	}
}

// host calls f on a thread in a network namespace of its own, which stands for the host's; the thread ends with it.
func host(t testing.TB, f func(h *world)) {
	t.Helper()
	asRoot(t)
	done := make(chan bool)
	go func() {
		ok := false
		defer func() { done <- ok }()
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Error(err)
			return
		}
		w := &world{t: t, ns: ns, state: t.TempDir()}
		defer w.end()
		f(w)
		ok = true
	}()
	if !<-done && !t.Failed() && !t.Skipped() {
		t.Error("the test has ended early")
	}
	if t.Skipped() {
		t.SkipNow()
	}
	if t.Failed() {
		t.FailNow()
	}
}

// world is a network namespace that stands for a host, with its sandboxes.
type world struct {
	t       testing.TB
	ns      *os.File
	world   *os.File // what outside has made
	state   string
	running []*box
}

func (w *world) end() {
	for _, b := range w.running {
		b.stop()
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer unix.Close(s)
	if cookie, err := unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil { // what package firewall keeps for this namespace, which ends
		os.RemoveAll(fmt.Sprintf("/run/caisson/firewall/net-%d", cookie))
	}
}

// devices are the names of all devices of the host but loopback.
func (w *world) devices() (names []string) {
	all, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) {
		all, err = netlink.LinkList()
	}
	require.NoError(w.t, err)
	for _, l := range all {
		if l.Attrs().Name != "lo" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// box is a running sandbox.
type box struct {
	w     *world
	p     *launch.Process
	q     *plan.Plan
	out   *bufio.Reader
	in    io.Closer
	files []*os.File
	ended bool
}

func command(what string, args []string, files ...*os.File) *plan.Command {
	return &plan.Command{Candidates: []string{self()}, Args: append([]string{"inside"}, args...), Env: append(os.Environ(), "NETSTACK_TEST="+what), Files: files}
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// try starts a sandbox in which one thing is done.
func (w *world) try(what string, args []string, parts ...plan.Primitive) (*box, error) {
	return w.tryPlan(plan.Build(parts...), launch.Options{}, what, args)
}

func (w *world) tryPlan(q *plan.Plan, opt launch.Options, what string, args []string) (*box, error) {
	w.t.Helper()
	r, out, err := os.Pipe()
	require.NoError(w.t, err)
	in, feed, err := os.Pipe()
	require.NoError(w.t, err)
	p, err := launch.Start(context.Background(), q, command(what, args, in, out, out), opt)
	in.Close()
	out.Close()
	if err != nil {
		r.Close()
		feed.Close()
		return nil, err
	}
	b := &box{w: w, p: p, q: q, out: bufio.NewReader(r), in: feed, files: []*os.File{r, feed}}
	w.running = append(w.running, b)
	return b, nil
}

// start starts one that says when it is ready.
func (w *world) start(what string, args []string, parts ...plan.Primitive) *box {
	w.t.Helper()
	b, err := w.try(what, args, parts...)
	require.NoError(w.t, err)
	line, err := b.out.ReadString('\n')
	require.NoError(w.t, err, line)
	require.Equal(w.t, "ready\n", line)
	return b
}

// run gives what one prints until it ends.
func (w *world) run(what string, args []string, parts ...plan.Primitive) string {
	w.t.Helper()
	b, err := w.try(what, args, parts...)
	require.NoError(w.t, err)
	text, err := io.ReadAll(b.out)
	require.NoError(w.t, err)
	b.stop()
	return string(text)
}

// look gives what a program in a sandbox of the parts sees.
func (w *world) look(parts ...plan.Primitive) (v view) {
	w.t.Helper()
	text := w.run("look", nil, parts...)
	require.NoError(w.t, json.Unmarshal([]byte(text), &v), text)
	return v
}

func (b *box) stop() {
	if b.ended {
		return
	}
	b.ended = true
	unix.Kill(b.p.PID, unix.SIGKILL)
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(b.p.PID, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	if err := b.p.Release(); err != nil {
		b.w.t.Error(err)
	}
	for _, f := range b.files {
		f.Close()
	}
}

// asOrdinary reports whether the test is to go on, as an ordinary user. As root it runs the test again as one, and fails if that did not pass.
func asOrdinary(t *testing.T) bool {
	t.Helper()
	return ordinary(t, false)
}

// ordinary does so, with a /dev/net/tun that everybody may open, as most systems have it.
func ordinary(t *testing.T, openTun bool) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	dir, err := os.MkdirTemp("", "netstack")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chmod(dir, 0o755))
	b, err := os.ReadFile(self())
	require.NoError(t, err)
	copied := filepath.Join(dir, "test")
	require.NoError(t, os.WriteFile(copied, b, 0o755))
	c := exec.Command(copied, "-test.v", "-test.run=^"+t.Name()+"$")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	if openTun {
		require.NoError(t, unix.Mknod(dir+"/tun", unix.S_IFCHR, int(unix.Mkdev(10, 200))))
		require.NoError(t, os.Chmod(dir+"/tun", 0o666))
		c = exec.Command("/bin/sh", "-c", `mount --bind "$0/tun" /dev/net/tun && exec setpriv --reuid 12345 --regid 12345 --clear-groups -- "$@"`, dir, copied, "-test.v", "-test.run=^"+t.Name()+"$")
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS} // where all mounts are private
	}
	c.Dir, c.Env = "/", append(os.Environ(), "TMPDIR=/tmp")
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))
	if i := strings.Index(string(out), "--- SKIP: "+t.Name()); i >= 0 {
		t.Skip("as an ordinary user: " + string(out)[i:])
	}
	require.Contains(t, string(out), "--- PASS: "+t.Name(), string(out))
	return false
}

// victim starts sandboxes one after the other, until it is killed; every other one lives on.
func victim() {
	runtime.LockOSThread() // the first thread, which is in the namespace of who has started us; so are all others
	b := netstack.Bridge{State: os.Args[1]}
	for i := 0; ; i++ {
		q := plan.Build(b, netstack.Veth{State: os.Args[1]})
		p, err := launch.Start(context.Background(), q, &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "3"}, Files: []*os.File{nil, nil, nil}}, launch.Options{})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		if i == 0 {
			fmt.Println("ready")
		}
		if i%2 == 0 {
			unix.Kill(p.PID, unix.SIGKILL)
			if err := finish(p); err != nil {
				fmt.Println("error:", err)
			}
		}
	}
}

func mustIPNet(t testing.TB, text string) *net.IPNet {
	ip, n, err := net.ParseCIDR(text)
	require.NoError(t, err)
	n.IP = ip
	return n
}

// startTrue starts a program that does nothing.
func startTrue(q *plan.Plan) (*launch.Process, error) {
	return launch.Start(context.Background(), q, &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}, launch.Options{})
}

func finish(p *launch.Process) error {
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(p.PID, &ws, 0, nil); err != unix.EINTR {
			return p.Release()
		}
	}
}

func lockThread() { runtime.LockOSThread() }

func itoa(n int) string { return strconv.Itoa(n) }
