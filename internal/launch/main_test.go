package launch

import (
	"bytes"
	"context"
	flagpkg "flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// helperName is the variable that makes the test program do something else: what cannot be undone, or what kills it, is
// tested in a process of its own.
const helperName = "CAISSON_LAUNCH_HELPER"

// helpers are what the test program can be besides.
func helpers() map[string]func() error {
	return map[string]func() error{
		"without descriptors": withoutDescriptors,
		"signals":             signals,
		"signal state":        signalState,
		"4 KiB":               littleMemory,
		"die":                 startAndDie,
		"die in a loop":       startForever,
		"filtered":            filtered,
		"hidden":              hidden,
		"spy":                 spy,
		"soft limit":          softLimit,
		"many descriptors":    manyDescriptors,
		"no close_range":      noCloseRange,
	}
}

func TestMain(m *testing.M) {
	if f, ok := helpers()[os.Getenv(helperName)]; ok {
		os.Unsetenv(helperName)
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper is the test program as that helper, in its own process.
func helper(t testing.TB, name string, env ...string) *exec.Cmd {
	t.Helper()
	require.Contains(t, helpers(), name)
	c := exec.Command("/proc/self/exe", "-test.timeout=5m")
	c.Env = append(append(os.Environ(), helperName+"="+name), env...)
	return c
}

// help runs a helper to its end, which must be a good one.
func help(t testing.TB, name string, env ...string) {
	t.Helper()
	out, err := helper(t, name, env...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// loops shortens what is repeated where the machine is slow.
func loops(n int) int {
	if flagpkg.Parsed() && testing.Short() || os.Getenv("CAISSON_SLOW") != "" {
		return max(n/20, 3)
	}
	return n
}

// part makes a primitive of what a test wants done.
func part(f func(p *plan.Plan)) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		f(p)
		return nil
	})
}

func does(ph plan.Phase, ops ...plan.Op) plan.Primitive {
	return part(func(p *plan.Plan) { p.Child(ph, ops...) })
}

func clone(flags uint64) plan.Primitive { return part(func(p *plan.Plan) { p.Clone(flags) }) }

// served makes the child wait for an action of the parent.
func served(f func(*plan.Run) error) plan.Primitive {
	return part(func(p *plan.Plan) { p.While(plan.Action{Name: "test", Do: f}) })
}

// sleep is a call of the child that takes time.
func sleep(d time.Duration) plan.Op {
	b := make([]byte, 16)
	ts := unix.NsecToTimespec(int64(d))
	if strconv.IntSize == 32 {
		put32(b, uint32(ts.Sec))
		put32(b[4:], uint32(ts.Nsec))
	} else {
		put32(b, uint32(ts.Sec))
		put32(b[8:], uint32(ts.Nsec))
	}
	return plan.Call("nanosleep", unix.SYS_NANOSLEEP, plan.Bytes(d.String(), b), plan.Null())
}

func put32(b []byte, n uint32) {
	for i := range 4 {
		b[i] = byte(n >> (8 * i))
	}
}

// gate holds the child until it is opened: the child reads from a pipe.
type gate struct {
	part    plan.Primitive
	r, w    *os.File
	reached func() int // the pid of the child that has come to the gate, within a few seconds; 0 for none
}

func newGate(t testing.TB, ph plan.Phase) *gate {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	g := &gate{r: r, w: w}
	mark, err := os.CreateTemp(t.TempDir(), "gate")
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close(); mark.Close() })
	g.part = part(func(p *plan.Plan) {
		in := p.Open("gate as gate", func(*plan.Run) (*os.File, error) { return dup(r) })
		tell := p.Open("mark as mark", func(*plan.Run) (*os.File, error) { return dup(mark) })
		p.Child(ph, plan.Call("write", unix.SYS_WRITE, plan.FD(tell), plan.Str("."), plan.Int(1)),
			plan.Call("read", unix.SYS_READ, plan.FD(in), plan.Buffer(1), plan.Int(1)))
	})
	g.reached = func() int {
		for range 5000 {
			if st, err := mark.Stat(); err == nil && st.Size() > 0 {
				return int(st.Size())
			}
			time.Sleep(time.Millisecond)
		}
		return 0
	}
	return g
}

func (g *gate) open() { g.w.Write([]byte(".")) }

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	return os.NewFile(uintptr(fd), f.Name()), err
}

// joinOwn joins the namespaces that the test is in already: nothing changes, but the child goes the way of joining.
func joinOwn(kinds ...string) plan.Primitive {
	return part(func(p *plan.Plan) {
		for _, k := range kinds {
			f := p.Open(k+" as "+k, func(*plan.Run) (*os.File, error) { return os.Open("/proc/self/ns/" + k) })
			p.Join(nsFlags[k], plan.Call("setns", unix.SYS_SETNS, plan.FD(f), plan.Int(int(nsFlags[k]))))
		}
	})
}

var nsFlags = map[string]uint64{"pid": unix.CLONE_NEWPID, "uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC, "net": unix.CLONE_NEWNET,
	"mnt": unix.CLONE_NEWNS, "cgroup": unix.CLONE_NEWCGROUP, "user": unix.CLONE_NEWUSER, "time": unix.CLONE_NEWTIME}

// command is a shell command with the test's own descriptors 0 and 2, and out as descriptor 1.
func command(out *os.File, script string) *plan.Command {
	return &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Env: os.Environ(),
		Files: []*os.File{nil, out, os.Stderr}}
}

func trueCommand() *plan.Command {
	return &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, os.Stderr}}
}

// finish waits for the child and lets go of it.
func finish(p *Process) (ws unix.WaitStatus, err error) {
	_, err = ignoringEINTR(func() (int, error) { return unix.Wait4(p.PID, &ws, 0, nil) })
	if e := p.Release(); err == nil {
		err = e
	}
	return ws, err
}

// run starts /bin/true and waits for it.
func run(opt Options, parts ...plan.Primitive) error {
	p, err := Start(context.Background(), plan.Build(parts...), trueCommand(), opt)
	if err != nil {
		return err
	}
	ws, err := finish(p)
	if err == nil && ws != 0 {
		err = fmt.Errorf("wait status %#x", ws)
	}
	return err
}

// world is what a start may not change: descriptors with what they are, children, the dumpable flag.
func world() string {
	var b bytes.Buffer
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "/proc/") &&
			target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" { // the runtime's own
			fmt.Fprintln(&b, "fd", e.Name(), target)
		}
	}
	for _, pid := range children() {
		fmt.Fprintln(&b, "child", pid)
	}
	n, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	fmt.Fprintln(&b, "dumpable", n)
	return b.String()
}

// children are the processes whose parent this one is, ended or not.
func children() (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
		if _, rest, ok := strings.Cut(string(stat), ") "); ok && strings.Fields(rest)[1] == strconv.Itoa(os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// unchanged reports at the end of the test what it has left behind.
func unchanged(t testing.TB) {
	t.Helper()
	before, goroutines := world(), runtime.NumGoroutine()
	t.Cleanup(func() {
		for range 200 {
			if world() == before && runtime.NumGoroutine() <= goroutines {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		require.Equal(t, before, world())
		require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	})
}

// within fails where f takes longer.
func within(t testing.TB, d time.Duration, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(d):
		buf := make([]byte, 1<<16)
		t.Fatalf("not over after %v\n%s", d, buf[:runtime.Stack(buf, true)])
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the test runs as uid " + strconv.Itoa(os.Geteuid()))
	}
}
