package caisson_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

// golden gives the lines of the plan that belong to the parts of this package, without numbers.
func golden(s caisson.Sandbox) (lines []string) {
	if s.Err() != nil {
		return []string{s.Err().Error()}
	}
	for line := range strings.Lines(s.Plan().String()) {
		text, owner, ok := strings.Cut(line, "  # ")
		if ok && strings.HasPrefix(owner, "caisson.") || strings.Contains(text, "PDEATHSIG") {
			lines = append(lines, strings.Join(strings.Fields(text)[1:], " "))
		}
	}
	return lines
}

// attributes are the parts with what they do, printed.
func attributes() []struct {
	part plan.Primitive
	with []plan.Primitive
	plan []string
} {
	pid, user := clone(unix.CLONE_NEWPID), clone(unix.CLONE_NEWUSER)
	type row = struct {
		part plan.Primitive
		with []plan.Primitive
		plan []string
	}
	return []row{
		{part: caisson.User{}, plan: []string{"child setgroups(0, NULL)", "child setresgid(0, 0, 0)", "child setresuid(0, 0, 0)"}},
		{part: caisson.User{UID: 1, GID: 4294967294, Groups: []uint32{5, 4294967294}}, plan: []string{"child setgroups(2, [5, 4294967294])",
			"child setresgid(4294967294, 4294967294, 4294967294)", "child setresuid(1, 1, 1)"}},
		{part: caisson.User{UID: 1, NoSetGroups: true}, plan: []string{"child setresgid(0, 0, 0)", "child setresuid(1, 1, 1)"}},
		{part: caisson.User{UID: 4294967295}, plan: []string{"caisson: caisson.User: 4294967295 is not an id: invalid argument"}},
		{part: caisson.User{GID: 4294967295}, plan: []string{"caisson: caisson.User: 4294967295 is not an id: invalid argument"}},
		{part: caisson.User{Groups: []uint32{1, 4294967295}}, plan: []string{"caisson: caisson.User: 4294967295 is not an id: invalid argument"}},
		{part: caisson.User{Groups: []uint32{1}, NoSetGroups: true},
			plan: []string{"caisson: caisson.User: groups together with NoSetGroups: invalid argument"}},
		{part: caisson.Umask(0), plan: []string{"child umask(00)"}},
		{part: caisson.Umask(0o777), plan: []string{"child umask(0777)"}},
		{part: caisson.Umask(0o1000), plan: []string{"caisson: caisson.Umask: umask 01000: invalid argument"}},
		{part: caisson.Rlimit{Resource: caisson.RlimitCore, Soft: 1, Hard: 2},
			plan: []string{"child prlimit64(0, RLIMIT_CORE, {1, 2}, NULL)"}},
		{part: caisson.Rlimit{Resource: caisson.RlimitCPU, Soft: 1, Hard: caisson.Unlimited},
			plan: []string{"child prlimit64(0, RLIMIT_CPU, {1, RLIM_INFINITY}, NULL)"}},
		{part: caisson.Rlimit{Resource: 16}, plan: []string{"caisson: caisson.Rlimit: resource 16: invalid argument"}},
		{part: caisson.Rlimit{Resource: -1}, plan: []string{"caisson: caisson.Rlimit: resource -1: invalid argument"}},
		{part: caisson.Rlimit{Resource: caisson.RlimitAS, Soft: caisson.Unlimited, Hard: 5}, plan: []string{"caisson: caisson.Rlimit: " +
			"limit as: the soft limit RLIM_INFINITY is above the hard limit 5: invalid argument"}},
		{part: caisson.Nice(-20), plan: []string{"waited setpriority(PRIO_PROCESS, <child>, -20)"}},
		{part: caisson.Nice(20), plan: []string{"caisson: caisson.Nice: priority 20: invalid argument"}},
		{part: caisson.Nice(-21), plan: []string{"caisson: caisson.Nice: priority -21: invalid argument"}},
		{part: caisson.Affinity{0, 3}, plan: []string{"child sched_setaffinity(0, 128, [0, 3])"}},
		{part: caisson.Affinity{}, plan: []string{"caisson: caisson.Affinity: Affinity needs a CPU: invalid argument"}},
		{part: caisson.Affinity{-1}, plan: []string{"caisson: caisson.Affinity: CPU -1: invalid argument"}},
		{part: caisson.Affinity{1024}, plan: []string{"caisson: caisson.Affinity: CPU 1024: invalid argument"}},
		{part: caisson.Session{}, plan: []string{"child setsid()"}},
		{part: caisson.Session{Terminal: true, Descriptor: 3}, plan: []string{"child setsid()", "child ioctl(3, TIOCSCTTY, 0)"}},
		{part: caisson.Session{Descriptor: -1}, plan: []string{"caisson: caisson.Session: descriptor -1: invalid argument"}},
		{part: caisson.DieWithParent{}, plan: []string{"child prctl(PR_SET_PDEATHSIG, SIGKILL)", "child prctl(PR_SET_PDEATHSIG, SIGKILL)"}},
		{part: caisson.Init{}, plan: []string{"caisson: caisson.Init: Init needs a new pid namespace: invalid argument"}},
		{part: caisson.Init{}, with: []plan.Primitive{pid}},
		{part: caisson.Nice(3), with: []plan.Primitive{user}, plan: []string{"waited setpriority(PRIO_PROCESS, <child>, 3)"}},
	}
}

func TestAttributePlans(t *testing.T) {
	for _, a := range attributes() {
		t.Run(fmt.Sprintf("%T %v", a.part, a.part), func(t *testing.T) {
			plantest.Check(t, a.part, a.with...)
			s := caisson.New(a.with...).With(a.part)
			require.Equal(t, a.plan, golden(s))
			if s.Err() != nil {
				require.ErrorIs(t, s.Err(), syscall.EINVAL)
				return
			}
			if _, again := a.part.(caisson.DieWithParent); !again { // one cannot die twice
				require.Error(t, s.With(a.part).Err(), "the same part twice")
			}
		})
	}
}

// status gives fields of the /proc/self/status of a command.
func status(t *testing.T, c *caisson.Cmd) func(field string) string {
	t.Helper()
	out, err := c.Output()
	require.NoError(t, err)
	return func(field string) string {
		for line := range strings.Lines(string(out)) {
			if v, ok := strings.CutPrefix(line, field+":"); ok {
				return strings.Join(strings.Fields(v), " ")
			}
		}
		t.Fatalf("no field %s", field)
		return ""
	}
}

func cat(s caisson.Sandbox) *caisson.Cmd { return s.Command("/bin/cat", "/proc/self/status") }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root; the refusals are tested instead")
	}
}

func TestUser(t *testing.T) {
	needRoot(t)
	// The numbers above 65535 would be cut short by the calls for 16 bits.
	get := status(t, cat(caisson.New(caisson.User{UID: 70000, GID: 70001, Groups: []uint32{5, 70002, 70003}})))
	require.Equal(t, "70000 70000 70000 70000", get("Uid"))
	require.Equal(t, "70001 70001 70001 70001", get("Gid"))
	require.Equal(t, "5 70002 70003", get("Groups"))
	require.Equal(t, "0000000000000000", get("CapEff"))
	require.Equal(t, "0000000000000000", get("CapPrm"))

	get = status(t, cat(caisson.New(caisson.User{UID: 70000, GID: 70001})))
	require.Empty(t, get("Groups"))

	before, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	get = status(t, cat(caisson.New(caisson.User{UID: 70000, GID: 70001, NoSetGroups: true})))
	require.Contains(t, string(before), "\nGroups:\t"+get("Groups"))
	require.Equal(t, "70000 70000 70000 70000", get("Uid"))
}

// TestUserLeavesTheHostAlone: the child shares our memory, but not our credentials.
func TestUserLeavesTheHostAlone(t *testing.T) {
	needRoot(t)
	require.NoError(t, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)) // os/exec may have cleared it for another test
	require.NoError(t, caisson.New(caisson.User{UID: 70000, GID: 70001}).Command("/bin/true").Run())
	require.Zero(t, os.Getuid()+os.Geteuid()+os.Getgid())
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	require.NoError(t, err)
	require.Equal(t, 1, dumpable)
}

func refuse(t *testing.T, part plan.Primitive, is error, step, hint string) {
	t.Helper()
	err := caisson.New(part).Command("/bin/true").Run()
	require.ErrorIs(t, err, is)
	var e *caisson.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Call, step)
	require.Contains(t, e.Hint+e.Err.Error(), hint)
	require.NotZero(t, e.Step)
}

func TestUserRefused(t *testing.T) {
	if !asNobody(t) {
		return
	}
	refuse(t, caisson.User{UID: 1}, fs.ErrPermission, "setgroups(0, NULL)", "User.NoSetGroups leaves the groups alone")
	refuse(t, caisson.User{UID: 1, GID: uint32(os.Getgid()), NoSetGroups: true}, fs.ErrPermission, "setresuid(1, 1, 1)", "")
	refuse(t, caisson.User{GID: 1, NoSetGroups: true}, fs.ErrPermission, "setresgid(1, 1, 1)", "")
	same := caisson.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), NoSetGroups: true}
	require.NoError(t, caisson.New(same).Command("/bin/true").Run(), "to be oneself needs no privilege")
}

func TestUserOutsideTheMap(t *testing.T) {
	if !asNobody(t) {
		return
	}
	needUserNamespace(t)
	err := caisson.New(userNamespace(), caisson.User{UID: 5, GID: uint32(os.Getgid()), NoSetGroups: true}).Command("/bin/true").Run()
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "the id has no place in the user namespace's id map")
	err = caisson.New(userNamespace(), caisson.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}).Command("/bin/true").Run()
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "denies setgroups")
}

func TestUmask(t *testing.T) {
	old := unix.Umask(0o22)
	defer unix.Umask(old)
	for _, s := range []caisson.Sandbox{caisson.New(caisson.Umask(0o137)), box(t, caisson.Umask(0o137))} {
		out, err := s.Command("sh", "-c", "umask").Output()
		require.NoError(t, err)
		require.Equal(t, "0137\n", string(out))
	}
	now := unix.Umask(0o22)
	require.Equal(t, 0o22, now, "of the caller")
}

func TestNice(t *testing.T) {
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // 20 - nice
	require.NoError(t, err)
	nice := min(20-now+3, 19)
	out, err := caisson.New(caisson.Nice(nice)).Command("nice").Output()
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(nice), strings.TrimSpace(string(out)))
	after, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	require.NoError(t, err)
	require.Equal(t, now, after)
}

func TestNiceRefused(t *testing.T) {
	if !asNobody(t) {
		return
	}
	refuse(t, caisson.Nice(-5), fs.ErrPermission, "setpriority(PRIO_PROCESS, <child>, -5)", "")
}

func TestAffinity(t *testing.T) {
	var now unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &now))
	last := 0
	for cpu := range 1024 {
		if now.IsSet(cpu) {
			last = cpu
		}
	}
	get := status(t, cat(caisson.New(caisson.Affinity{last})))
	require.Equal(t, strconv.Itoa(last), get("Cpus_allowed_list"))
}

func TestAffinityRefused(t *testing.T) {
	if !asNobody(t) {
		return
	}
	refuse(t, caisson.Affinity{1023}, syscall.EINVAL, "sched_setaffinity", "none of the CPUs is online")
}

// pty opens a pseudoterminal.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// session starts helpSession with the file as its standard input.
func session(t *testing.T, s caisson.Sandbox, stdin *os.File) (string, error) {
	t.Helper()
	r, out, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	c := s.Command(self())
	c.Env, c.Stdin, c.ExtraFiles = helperEnviron("session"), stdin, []*os.File{out}
	err = c.Start()
	out.Close()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(text), c.Wait()
}

func TestSession(t *testing.T) {
	_, slave := pty(t)
	text, err := session(t, caisson.New(), slave)
	require.NoError(t, err)
	require.Contains(t, text, "leader false\n")

	text, err = session(t, caisson.New(caisson.Session{}), slave)
	require.NoError(t, err)
	require.Equal(t, "leader true\nterminal inappropriate ioctl for device\n", text)

	text, err = session(t, caisson.New(caisson.Session{Terminal: true}), slave)
	require.NoError(t, err)
	require.Equal(t, "leader true\nterminal controls us true\n/dev/tty opens true\n", text)
}

// TestSessionTerminalWrites: what goes to /dev/tty comes out at the other end.
func TestSessionTerminalWrites(t *testing.T) {
	master, slave := pty(t)
	_, err := session(t, caisson.New(caisson.Session{Terminal: true}), slave)
	require.NoError(t, err)
	require.Equal(t, "written to /dev/tty\r", firstLine(t, master))
}

func TestSessionRefused(t *testing.T) {
	if !asNobody(t) {
		return
	}
	refuse(t, caisson.Session{Terminal: true}, syscall.ENOTTY, "TIOCSCTTY", "the descriptor is not a terminal")
	refuse(t, caisson.Session{Terminal: true, Descriptor: 40}, syscall.EBADF, "ioctl(40, TIOCSCTTY, 0)", "")
	_, slave := pty(t)
	s := caisson.New(caisson.Session{Terminal: true})
	c := s.Command("cat", "/proc/self/fd/3") // waits for the end of descriptor 3
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	c.Stdin, c.ExtraFiles = slave, []*os.File{r}
	require.NoError(t, c.Start())
	_, err = session(t, s, slave)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "the terminal controls another session already")
	require.NoError(t, w.Close())
	require.NoError(t, c.Wait())
}

// TestDieWithParent: a process holds a pipe, its parent is killed, and the pipe tells whether it has ended.
func TestDieWithParent(t *testing.T) {
	for mode, dies := range map[string]bool{"die": true, "stay": false} {
		t.Run(mode, func(t *testing.T) {
			r, held, err := os.Pipe()
			require.NoError(t, err)
			defer r.Close()
			c := caisson.New().Command(self(), mode)
			c.Env, c.ExtraFiles, c.Stderr = helperEnviron("die"), []*os.File{held}, os.Stderr
			keep, err := c.StdinPipe()
			require.NoError(t, err)
			defer keep.Close()
			out, err := c.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, c.Start())
			held.Close()
			pid, err := strconv.Atoi(firstLine(t, out))
			require.NoError(t, err)
			child, err := unix.PidfdOpen(pid, 0)
			require.NoError(t, err)
			defer unix.Close(child)
			require.NoError(t, c.Process.Kill())
			require.Error(t, c.Wait())
			if !dies {
				require.NoError(t, unix.PidfdSendSignal(child, syscall.SIGKILL, nil, 0), "it is still there")
			}
			require.NoError(t, r.SetReadDeadline(time.Now().Add(patience)))
			_, err = io.ReadAll(r)
			require.NoError(t, err)
		})
	}
}

// TestDieWithParentStays: the thread that the kernel watches stays, although the goroutine that called Start is gone with its
// own.
func TestDieWithParentStays(t *testing.T) {
	c := caisson.New(caisson.DieWithParent{}).Command("cat")
	in, err := c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, startOnThread(c.Start))
	_, err = io.WriteString(in, "still there\n")
	require.NoError(t, err)
	require.Equal(t, "still there", firstLine(t, out))
	require.NoError(t, in.Close())
	require.NoError(t, c.Wait())
}

func TestInit(t *testing.T) {
	s := box(t, caisson.Init{})
	out, err := s.Command("sh", "-c", "read name < /proc/1/comm; echo $$ $name; ls -l /proc/1/exe").Output()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		require.ErrorIs(t, err, errors.ErrUnsupported)
		return
	}
	require.NoError(t, err)
	pid, _, _ := strings.Cut(string(out), " ")
	require.NotEqual(t, "1", pid)
	require.Contains(t, string(out), "caisson-init")
}

// TestInitReaps: processes that have lost their parent do not stay as zombies.
func TestInitReaps(t *testing.T) {
	s := box(t, caisson.Init{})
	c := s.Command("sh", "-c", `(sh -c 'echo $$' &) | { read pid; while [ -e /proc/$pid ]; do :; done; echo gone; }`)
	out, err := c.Output()
	if errors.Is(err, errors.ErrUnsupported) {
		require.NotContains(t, []string{"amd64", "arm64"}, runtime.GOARCH)
		return
	}
	require.NoError(t, err)
	require.Equal(t, "gone\n", string(out))
}
