package caps_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
)

// needRoot skips where the test process lacks what root has.
func needRoot(t *testing.T, needed caps.Set) caps.State {
	t.Helper()
	s, err := caps.Current()
	require.NoError(t, err)
	if lacked := needed &^ s.Effective; os.Geteuid() != 0 || lacked != 0 {
		t.Skipf("needs root with %v, this is user %d with %v", needed, os.Geteuid(), s)
	}
	return s
}

// state is what cat finds itself to have.
func state(t *testing.T, c *caisson.Cmd) caps.State {
	t.Helper()
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	require.NoError(t, c.Run(), errs.String())
	return parse(t, out.String())
}

func parse(t *testing.T, status string) (s caps.State) {
	t.Helper()
	for name, set := range map[string]*caps.Set{"CapInh": &s.Inheritable, "CapPrm": &s.Permitted, "CapEff": &s.Effective, "CapBnd": &s.Bounding, "CapAmb": &s.Ambient} {
		_, rest, ok := strings.Cut(status, name+":\t")
		require.True(t, ok, status)
		n, err := strconv.ParseUint(rest[:16], 16, 64)
		require.NoError(t, err)
		*set = caps.Set(n)
	}
	s.NoNewPrivs = strings.Contains(status, "NoNewPrivs:\t1")
	return s
}

// inheriting calls f on a thread that has capabilities in its inheritable and ambient set, as Docker's before
// CVE-2022-24769, and that is thrown away. What f starts is started by it.
func inheriting(t *testing.T, s caps.Set, f func()) {
	t.Helper()
	var err error
	onThread(func() {
		if err = inherit(s); err == nil {
			f()
		}
	})
	require.NoError(t, err)
}

// The lesson CVE-2022-29162 and CVE-2022-24769: the inheritable set is empty and the ambient set as asked, for what is started and for
// what is executed in the running sandbox, however full the caller's are.
func TestCVE_2022_29162(t *testing.T) {
	needRoot(t, caps.Setpcap|caps.SysAdmin|caps.Setuid|caps.Setgid|caps.NetRaw|caps.Kill)
	amb := caps.NetRaw
	for name, c := range map[string]struct {
		parts []plan.Primitive
		want  caps.State
	}{
		"nothing":        {[]plan.Primitive{caps.Drop(caps.All)}, caps.State{}},
		"root":           {[]plan.Primitive{caps.Drop(caps.All).Add(caps.Kill)}, caps.State{Permitted: caps.Kill, Effective: caps.Kill, Bounding: caps.Kill}},
		"user":           {[]plan.Primitive{caps.Keep(caps.Kill), caisson.User{UID: 65534, GID: 65534}}, caps.State{Bounding: caps.Kill}},
		"user, ambient":  {[]plan.Primitive{caps.Drop(caps.All).Raise(amb), caisson.User{UID: 65534, GID: 65534}}, caps.State{amb, amb, amb, amb, amb, false, 0}},
		"user namespace": {[]plan.Primitive{caps.Drop(caps.All).Add(caps.Kill), namespaces.User | namespaces.PID}, caps.State{Permitted: caps.Kill, Effective: caps.Kill, Bounding: caps.Kill}},
		"no_new_privs":   {[]plan.Primitive{caps.Keep(caps.Kill), caps.NoNewPrivs{}, namespaces.PID}, caps.State{Permitted: caps.Kill, Effective: caps.Kill, Bounding: caps.Kill, NoNewPrivs: true}},
	} {
		t.Run(name, func(t *testing.T) {
			inheriting(t, caps.NetRaw|caps.Kill, func() {
				s := caisson.New(c.parts...)
				require.Equal(t, c.want, state(t, s.Command("cat", "/proc/self/status")))
				running := s.Command("sleep", "1000")
				require.NoError(t, running.Start())
				defer func() { running.Process.Kill(); running.Wait() }()
				require.Equal(t, c.want, state(t, running.Process.Exec("cat", "/proc/self/status")), "exec-into")
			})
		})
	}
	inheriting(t, caps.NetRaw, func() { // the test tests something: without the part they are there
		require.Equal(t, caps.NetRaw, state(t, caisson.New().Command("cat", "/proc/self/status")).Inheritable)
	})
}

// program makes a copy of cat that has capabilities of its own.
func program(t *testing.T, c caps.File) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caps")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	cat, err := exec.LookPath("cat")
	require.NoError(t, err)
	b, err := os.ReadFile(cat)
	require.NoError(t, err)
	name := filepath.Join(dir, "cat")
	require.NoError(t, os.WriteFile(name, b, 0o755))
	err = c.Write(name)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("the file system of %s has no capabilities: %v", name, err)
	}
	require.NoError(t, err)
	return name
}

// A file with cap_net_raw+i gains nothing for a user without privilege; one with +ep only what is in the bounding set, and
// nothing under no_new_privs.
func TestFilesGainNothing(t *testing.T) {
	needRoot(t, caps.Setpcap|caps.Setuid|caps.Setgid|caps.NetRaw|caps.Kill|caps.Setfcap)
	user := caisson.User{UID: 65534, GID: 65534}
	inherits := program(t, caps.File{Inheritable: caps.NetRaw, Effective: true})
	gives := program(t, caps.File{Permitted: caps.Kill, Effective: true})
	run := func(name string, parts ...plan.Primitive) caps.State {
		return state(t, caisson.New(parts...).Command(name, "/proc/self/status"))
	}
	inheriting(t, caps.NetRaw, func() {
		require.Equal(t, caps.NetRaw, run(inherits, user).Effective, "the flaw: without the part the file gives what is inheritable")
		require.Zero(t, run(inherits, user, caps.Keep(caps.DockerDefault)).Permitted)
		require.Zero(t, run(inherits, user, caps.Keep(caps.All)).Permitted)
		require.Equal(t, caps.NetRaw, run(inherits, user, caps.Bound{Keep: caps.All, Inheritable: caps.NetRaw}).Effective, "asked for")
	})
	require.Equal(t, caps.Kill, run(gives, user, caps.Keep(caps.Kill)).Effective)
	require.Zero(t, run(gives, user, caps.Keep(caps.Kill), caps.NoNewPrivs{}).Permitted)
	_, err := caisson.New(user, caps.Drop(caps.All)).Command(gives, "/proc/self/status").Output()
	require.ErrorIs(t, err, syscall.EPERM, "effective capabilities that the bounding set lacks are not executed at all")
}

// The host's root is mounted read-only, and stays so for a root that has no CAP_SYS_ADMIN.
func TestReadOnlyHostStays(t *testing.T) {
	mount, err := exec.LookPath("mount")
	if err != nil {
		t.Skipf("%v: it is in Debian's package mount", err)
	}
	isolated := namespaces.PID | namespaces.Mount
	if os.Geteuid() != 0 {
		isolated |= namespaces.User
	}
	base := caisson.New(isolated, chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"})
	if out, err := base.Command("true").CombinedOutput(); err != nil {
		t.Skipf("no sandbox of this kind here: %v %s", err, out)
	}
	const script = `mount -o remount,rw,bind / 2>&1; mount -t tmpfs none /mnt 2>&1; touch /etc/caisson-was-here 2>&1; umount /tmp 2>&1; unshare -m true 2>&1`
	_ = mount
	for name, b := range map[string]caps.Bound{"none": caps.Drop(caps.All), "docker": caps.Docker(0, 0), "all but one": caps.Drop(caps.SysAdmin)} {
		out, err := base.With(b).Command("sh", "-c", script+"; exit 0").Output()
		require.NoError(t, err, name)
		require.Contains(t, string(out), "caisson-was-here", name) // touch complains
		require.NoFileExists(t, "/etc/caisson-was-here", name)
		require.Equal(t, 5, strings.Count(string(out), "\n")-strings.Count(string(out), "dmesg(1)"), "%s: %s", name, out)
	}
	// With it the first one works: the test tests something. Nothing is written.
	out, err := base.With(caps.Keep(caps.All)).Command("sh", "-c", "mount -o remount,rw,bind / 2>&1 && grep ' / / rw' /proc/self/mountinfo").CombinedOutput()
	if os.Geteuid() == 0 {
		require.NoError(t, err, string(out))
		require.Contains(t, string(out), "rw")
	}
}

// A filter without no_new_privs needs CAP_SYS_ADMIN; it is there in phase Seccomp and gone in the command.
func TestNeedsAdmin(t *testing.T) {
	needRoot(t, caps.Setpcap|caps.SysAdmin|caps.Setuid|caps.Setgid|caps.Kill)
	filter := plan.Func(func(p *plan.Plan) error {
		p.NeedAdmin()
		p.Child(plan.Seccomp, allowAll())
		return nil
	})
	user := caisson.User{UID: 65534, GID: 65534}
	kill := caps.State{Permitted: caps.Kill, Effective: caps.Kill, Bounding: caps.Kill}
	require.Equal(t, kill, state(t, caisson.New(filter, caps.Drop(caps.All).Add(caps.Kill)).Command("cat", "/proc/self/status")))
	require.Equal(t, caps.State{Bounding: caps.Kill}, state(t, caisson.New(caps.Keep(caps.Kill), user, filter).Command("cat", "/proc/self/status")))
	s := caisson.New(caps.Drop(caps.All).Raise(caps.Kill), user, filter)
	amb := caps.State{caps.Kill, caps.Kill, caps.Kill, caps.Kill, caps.Kill, false, 0}
	require.Equal(t, amb, state(t, s.Command("cat", "/proc/self/status")))
	running := s.Command("sleep", "1000")
	require.NoError(t, running.Start())
	defer func() { running.Process.Kill(); running.Wait() }()
	require.Equal(t, amb, state(t, running.Process.Exec("cat", "/proc/self/status")))
	withoutNeed := plan.Func(func(p *plan.Plan) error { p.Child(plan.Seccomp, allowAll()); return nil })
	_, err := caisson.New(caps.Drop(caps.All), withoutNeed).Command("true").Output()
	require.ErrorIs(t, err, syscall.EACCES, "the test tests something: the filter is refused without it")
}

// Every call of the plans is made to fail in turn: a typed error, and nothing is left.
func TestFaults(t *testing.T) {
	needRoot(t, caps.Setpcap|caps.SysAdmin|caps.Setuid|caps.Setgid|caps.Kill)
	user := caisson.User{UID: 65534, GID: 65534}
	needs := plan.Func(func(p *plan.Plan) error { p.NeedAdmin(); return nil })
	for _, parts := range [][]plan.Primitive{
		{caps.Docker(0, caps.All)},
		{caps.Bound{Keep: caps.NetRaw, Ambient: caps.Kill, Inheritable: caps.Chown, Securebits: caps.NoRoot.Locked()}, user, needs},
		{caps.State{Bounding: caps.Kill, Permitted: caps.Kill}, caps.NoNewPrivs{}},
		{caps.Keep(caps.All)},
	} {
		p := plan.Build(parts...)
		require.NoError(t, p.Err())
		for i, s := range p.Steps(nil) {
			if !strings.HasPrefix(s.Primitive, "caps.") {
				continue
			}
			before := descriptors(t)
			err := startAndWait(p, launch.Options{Fault: i + 1})
			var e *plan.Error
			require.ErrorAs(t, err, &e, s.String())
			require.Equal(t, i+1, e.Step)
			require.Equal(t, s.Primitive, e.Primitive)
			require.ErrorIs(t, err, syscall.EBADF)
			require.Equal(t, before, descriptors(t))
			require.Equal(t, 1, dumpable(t), s.String())
		}
		require.NoError(t, startAndWait(p, launch.Options{}))
		require.NoError(t, startAndWait(p, launch.Options{NoClone3: true}))
		require.NoError(t, startAndWait(p, launch.Options{NoVfork: true}))
	}
	_, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
	require.ErrorIs(t, err, syscall.ECHILD, "a child is left")
}

func startAndWait(p *plan.Plan, opt launch.Options) error {
	cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}
	proc, err := launch.Start(context.Background(), p, cmd, opt)
	if err != nil {
		return err
	}
	for {
		if _, err = unix.Wait4(proc.PID, nil, 0, nil); err != unix.EINTR {
			return errors.Join(err, proc.Release())
		}
	}
}

func descriptors(t *testing.T) int {
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(fds)
}

func dumpable(t *testing.T) int {
	n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	require.NoError(t, err)
	return n
}

// Until it executes the command the child shares the caller's memory. With its capabilities it loses what kept its equals, root of another
// sandbox, from tracing it.
func TestChildIsHidden(t *testing.T) {
	needRoot(t, caps.Setpcap|caps.SysAdmin)
	for name, c := range map[string]struct {
		part   plan.Primitive
		hidden bool
	}{"capset": {caps.Drop(caps.All), true}, "the test tests something": {bareCapset(), false},
		"user namespace": {both(namespaces.User, caps.Drop(caps.All)), true}, "that, too": {both(namespaces.User, bareCapset()), true}} {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		held := plan.Func(func(p *plan.Plan) error { // the child reads, and so waits, when its capabilities are gone
			f := p.Open(`"pipe" as pipe`, func(*plan.Run) (*os.File, error) {
				fd, err := unix.Dup(int(r.Fd()))
				return os.NewFile(uintptr(fd), "pipe"), err
			})
			p.Child(plan.Directory, plan.Call("read", unix.SYS_READ, plan.FD(f), plan.Buffer(1), plan.Int(1)))
			return nil
		})
		// Started before, since a start hides all who share the memory.
		other := caisson.New(caps.Drop(caps.All)).Command("sh", "-c", "read pid; head -c 1 /proc/$pid/environ 2>&1")
		ask, err := other.StdinPipe()
		require.NoError(t, err)
		answer, err := other.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, other.Start())
		started := make(chan error, 1)
		go func() { started <- startAndWait(plan.Build(c.part, held), launch.Options{}) }()
		pid := childOf(t, other.Process.Pid)
		_, err = fmt.Fprintln(ask, pid)
		require.NoError(t, err)
		out, err := io.ReadAll(answer)
		require.NoError(t, err)
		other.Wait()
		_, err = w.Write([]byte{1})
		require.NoError(t, err)
		require.NoError(t, <-started)
		require.Equal(t, c.hidden, strings.Contains(string(out), "denied"), "%s: %s", name, out)
		require.Equal(t, 1, dumpable(t))
		r.Close()
		w.Close()
	}
}

func both(a, b plan.Primitive) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error { p.Include(a); p.Include(b); return nil })
}

// childOf waits for a child of ours, but not that one, that has given up its capabilities.
func childOf(t *testing.T, not int) int {
	t.Helper()
	parent := os.Getpid()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		tasks, _ := os.ReadDir("/proc/" + strconv.Itoa(parent) + "/task")
		for _, task := range tasks {
			f, err := os.Open("/proc/" + strconv.Itoa(parent) + "/task/" + task.Name() + "/children")
			if err != nil {
				continue
			}
			b, _ := io.ReadAll(f)
			f.Close()
			for _, child := range strings.Fields(string(b)) {
				pid, _ := strconv.Atoi(child)
				if s, err := caps.Of(pid); err == nil && pid != not && s.Effective == 0 && s.Permitted == 0 {
					return pid
				}
			}
		}
	}
	t.Fatal("no child")
	return 0
}
