package namespaces

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launchtest"
	"github.com/caisson-dev/caisson/plan"
)

func TestWrongJoins(t *testing.T) {
	for name, c := range map[string]struct {
		j    Join
		want string
	}{
		"nothing":   {Join{}, "exactly one of"},
		"kind only": {Join{Kinds: Net}, "exactly one of"},
		"two":       {Join{PID: 1, Path: "/x"}, "exactly one of"},
		"negative":  {Join{PID: -1}, "-1 is no process"},
		"two kinds": {Join{Path: "/x", Kinds: Net | IPC}, "one file cannot be net|ipc"},
		"unknown":   {Join{PID: 1, Kinds: 1 << 20}, "no kind of namespace"},
		"not one":   {Join{Path: "/etc/passwd"}, "not a namespace"},
		"device":    {Join{Path: "/dev/zero"}, "not a namespace"},
		"directory": {Join{Path: "/"}, "not a namespace"},
		"other":     {Join{File: open(t, "/proc/self/ns/uts"), Kinds: Net}, "this is a uts namespace, not a net namespace"},
		"file":      {Join{File: open(t, "/etc/passwd")}, "not a namespace"},
		"no pidfd":  {Join{PIDFD: open(t, "/etc/passwd")}, "not a pidfd"},
	} {
		t.Run(name, func(t *testing.T) {
			err := plan.Build(c.j).Err()
			require.ErrorIs(t, err, unix.EINVAL)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, Do(c.j, func() error { panic("not called") }), c.want)
		})
	}
	require.ErrorIs(t, plan.Build(Join{Path: "/nonexistent"}).Err(), fs.ErrNotExist)
	require.ErrorIs(t, plan.Build(Join{PID: 1 << 30}).Err(), fs.ErrNotExist)
}

// A fifo is not opened: that would wait for a writer.
func TestJoinFifo(t *testing.T) {
	fifo := t.TempDir() + "/fifo"
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	require.ErrorIs(t, plan.Build(Join{Path: fifo}).Err(), unix.EINVAL)
	require.ErrorIs(t, refused(t, Join{Path: fifo, Kinds: Net}), unix.EINVAL)
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestJoinTwice(t *testing.T) {
	j := Join{Path: "/run/netns/a", Kinds: Net}
	var e *plan.ConflictError
	require.ErrorAs(t, plan.Build(j, Join{Path: "/run/netns/b", Kinds: Net}).Err(), &e)
	require.Equal(t, "net namespace", e.What)
	require.ErrorContains(t, plan.Build(j, Net).Err(), "made anew and joined")
	require.ErrorContains(t, plan.Build(Net, j).Err(), "made anew and joined")
	// Also where there is nothing to do.
	own := Join{PID: os.Getpid(), Kinds: Net}
	require.ErrorContains(t, plan.Build(own, Net).Err(), "made anew and joined")
	require.NoError(t, plan.Build(own).Err())
	require.Zero(t, plan.Build(own).Joined())
}

func TestGoldenJoin(t *testing.T) {
	golden(t, "join-path", Join{Path: "/run/netns/blue", Kinds: Net}, UTS)
	// The user namespace comes first, wherever it stands.
	golden(t, "join-user", Join{Path: "/run/ns/net", Kinds: Net}, Join{Path: "/run/ns/user", Kinds: User}, Join{Path: "/run/ns/ipc", Kinds: IPC})
	golden(t, "join-keep", Join{Path: "/run/ns/user", Kinds: User, KeepIDs: true})
	golden(t, "join-file-own", Join{File: open(t, "/proc/self/ns/net")})
}

var others = UTS | IPC | Net | PID | Mount | Cgroup

func TestJoinProcess(t *testing.T) {
	asRoot(t)
	pid, pidfd := sleeper(t, others)
	for name, j := range map[string]Join{
		"pid":           {PID: pid, Kinds: others},
		"pidfd":         {PIDFD: pidfd, Kinds: others},
		"all that is":   {PIDFD: pidfd},
		"all that is 2": {PID: pid},
	} {
		t.Run(name, func(t *testing.T) {
			for way, opt := range bothWays {
				p := plan.Build(j)
				require.Equal(t, uint64(others), p.Joined())
				out, err := startWith(t, opt, p, showLinks(others))
				require.NoError(t, err, way)
				require.Equal(t, links(t, pid, others), out)
			}
		})
	}
}

// links are what /proc/PID/ns shows, in the order of showLinks.
func links(t *testing.T, pid int, s Set) string {
	t.Helper()
	var all []string
	for k := range s.Each() {
		all = append(all, link(t, pid, k))
	}
	return strings.Join(all, "\n")
}

// showLinks is a command that prints links of its own. In a joined pid namespace it needs a /proc of that: it mounts none,
// and looks at itself through the host's.
func showLinks(s Set) string {
	var files []string
	for k := range s.Each() {
		files = append(files, "/proc/self/ns/"+k.kind().file)
	}
	return "readlink " + strings.Join(files, " ")
}

// One file at a time, as before Linux 5.8.
func TestJoinFileByFile(t *testing.T) {
	asRoot(t)
	pid, pidfd := sleeper(t, UTS|Net|User)
	for _, j := range []Join{{PID: pid}, {PIDFD: pidfd}} {
		part := plan.Func(func(p *plan.Plan) error {
			var ops []plan.Op
			for k := range (User | Net | UTS).Each() {
				ops = append(ops, setns(p.Open(k.claim(), j.openOne(k)), k))
			}
			p.Join(uint64(User|Net|UTS), ops...)
			return nil
		})
		require.Equal(t, links(t, pid, User|Net|UTS), says(t, showLinks(User|Net|UTS), part))
	}
}

func TestSetnsProbe(t *testing.T) {
	before := link(t, 0, UTS)
	require.Equal(t, launchtest.KernelAtLeast(t, 5, 8), setnsTakesPIDFD())
	require.Equal(t, before, link(t, 0, UTS))
}

func TestJoinFiles(t *testing.T) {
	asRoot(t)
	pid, _ := sleeper(t, UTS|Net)
	all, err := Of(pid, UTS|Net)
	require.NoError(t, err)
	defer all.Close()
	want := links(t, pid, Net|UTS)
	for name, parts := range map[string][]plan.Primitive{
		"path":       {Join{Path: fmt.Sprintf("/proc/%d/ns/net", pid)}, Join{Path: fmt.Sprintf("/proc/%d/ns/uts", pid), Kinds: UTS}},
		"file":       {Join{File: all[0].File()}, Join{File: all[1].File(), Kinds: all[1].Kind()}},
		"namespace":  {all[0], all[1]},
		"namespaces": {all},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, want, says(t, showLinks(Net|UTS), parts...))
		})
	}
	err = refused(t, Join{Path: fmt.Sprintf("/proc/%d/ns/net", pid), Kinds: UTS})
	require.ErrorIs(t, err, unix.EINVAL)
	require.ErrorContains(t, err, "this is a net namespace, not a uts namespace")
}

// A plan is started more than once; the file stays the caller's.
func TestJoinAgain(t *testing.T) {
	asRoot(t)
	_, pidfd := sleeper(t, Hostname("again"))
	p := plan.Build(Join{PIDFD: pidfd, Kinds: UTS})
	for range 3 {
		out, err := start(t, p, "uname -n")
		require.NoError(t, err)
		require.Equal(t, "again", out)
	}
}

func TestJoinTime(t *testing.T) {
	asRoot(t)
	hasNamespace(t, Time)
	pid, pidfd := sleeper(t, TimeOffsets{Boottime: 1e18})
	out := says(t, "readlink /proc/self/ns/time; cat /proc/uptime", Join{PIDFD: pidfd})
	require.True(t, strings.HasPrefix(out, link(t, pid, Time)), out)
}

func TestJoinUser(t *testing.T) {
	asRoot(t)
	m := IDs{UIDs: []Range{{0, 100000, 10}}, GIDs: []Range{{0, 100000, 10}}}
	pid, pidfd := sleeper(t, m, UTS|Mount)
	who := "readlink /proc/self/ns/user; id -u; id -g; cat /proc/self/status"
	full := field(says(t, "cat /proc/self/status", m), "CapEff")
	out := says(t, who, Join{PIDFD: pidfd})
	require.True(t, strings.HasPrefix(out, link(t, pid, User)+"\n0\n0\n"), out)
	require.Equal(t, full, field(out, "CapEff"))
	require.Empty(t, statusLine(out, "Groups"))
	require.Contains(t, says(t, who, Join{PIDFD: pidfd, KeepIDs: true}), "\n65534\n65534\n")
	// Where 0 is not mapped, the command stays who it is.
	_, noRoot := sleeper(t, IDs{UIDs: one(5, 0), GIDs: one(6, 0)})
	require.Contains(t, says(t, who, Join{PIDFD: noRoot}), "\n5\n6\n")
	// New namespaces are made inside the joined user namespace.
	require.Equal(t, "new", says(t, "uname -n", Join{PIDFD: pidfd, Kinds: User}, Net, Hostname("new")))
}

func TestJoinByOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	pid, pidfd := sleeper(t, User|UTS|Net|PID)
	out := says(t, showLinks(User|UTS|Net)+"; id -u", Join{PIDFD: pidfd})
	require.Equal(t, links(t, pid, User|UTS|Net)+"\n0", out)

	// Without the user namespace the others are out of reach.
	err := refused(t, Join{PIDFD: pidfd, Kinds: Net})
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "CAP_SYS_ADMIN")
	// Process 1 is root's.
	require.ErrorIs(t, refused(t, Join{PID: 1, Kinds: Net}), fs.ErrPermission)
}

func TestJoinEnded(t *testing.T) {
	asRoot(t)
	var pidfd *os.File
	t.Run("", func(t *testing.T) {
		_, f := sleeper(t, UTS)
		var err error
		pidfd, err = duplicate(f)
		require.NoError(t, err)
	})
	defer pidfd.Close()
	err := plan.Build(Join{PIDFD: pidfd, Kinds: UTS}).Err()
	require.ErrorIs(t, err, unix.ESRCH)
	require.ErrorIs(t, Do(Join{PIDFD: pidfd}, func() error { return nil }), unix.ESRCH)
}

func TestDescriptorsAreClosed(t *testing.T) {
	asRoot(t)
	pid, pidfd := sleeper(t, UTS|Net)
	parts := []plan.Primitive{Join{PIDFD: pidfd, Kinds: UTS | Net}, Join{Path: fmt.Sprintf("/proc/%d/ns/ipc", pid), Kinds: IPC}, Sysctl{"net.ipv4.ip_forward", "1"}}
	before := descriptors(t)
	for range 5 {
		says(t, "true", parts...)
		refused(t, Join{Path: fmt.Sprintf("/proc/%d/ns/net", pid), Kinds: UTS})
		require.NoError(t, Do(Join{PIDFD: pidfd}, func() error { return nil }))
		require.Error(t, errors.Join(plan.Build(Join{Path: "/etc/passwd"}).Err()))
		made, err := New(UTS)
		require.NoError(t, err)
		require.NoError(t, made.Close())
		_, err = List()
		require.NoError(t, err)
	}
	require.Equal(t, before, descriptors(t))
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(all)
}
