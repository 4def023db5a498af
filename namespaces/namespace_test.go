package namespaces

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestOf(t *testing.T) {
	here, err := Of(0, UTS|User|Net)
	require.NoError(t, err)
	defer here.Close()
	require.Equal(t, UTS|User|Net, here.Kinds())
	require.Nil(t, here.Find(PID))
	for _, n := range here {
		require.Equal(t, link(t, 0, n.Kind()), n.String())
		require.Equal(t, n, here.Find(n.Kind()))
		same, err := OfFile(n.File())
		require.NoError(t, err)
		require.Equal(t, n.ID(), same.ID())
		require.NoError(t, same.Close())
		_, err = n.File().Stat() // still open
		require.NoError(t, err)
	}
	require.NotEqual(t, here[0].ID(), here[1].ID())
}

func TestOfNothing(t *testing.T) {
	_, err := Of(1<<30, UTS)
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = Of(0, 1)
	require.ErrorIs(t, err, unix.EINVAL)
	_, err = Open("/dev/null")
	require.ErrorIs(t, err, unix.EINVAL)
	_, err = OfFile(nil)
	require.ErrorIs(t, err, unix.EBADF)
	f := open(t, "/etc/passwd")
	_, err = OfFile(f)
	require.ErrorIs(t, err, unix.EINVAL)
	f.Close()
	_, err = OfFile(f)
	require.ErrorIs(t, err, unix.EBADF)
}

func TestRelatives(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	pid, _ := sleeper(t, User|PID|Net)
	here, err := Of(0, User)
	require.NoError(t, err)
	defer here.Close()
	all, err := Of(pid, User|PID|Net)
	require.NoError(t, err)
	defer all.Close()
	user := all.Find(User)
	for _, n := range all {
		owner, err := n.Owner()
		require.NoError(t, err)
		if n.Kind() == User {
			require.Equal(t, here[0].ID(), owner.ID())
		} else {
			require.Equal(t, user.ID(), owner.ID())
		}
		require.NoError(t, owner.Close())
		uid, err := n.OwnerUID()
		require.NoError(t, err)
		require.Equal(t, uint32(os.Geteuid()), uid)
	}
	parent, err := user.Parent()
	require.NoError(t, err)
	require.Equal(t, here[0].ID(), parent.ID())
	require.Equal(t, User, parent.Kind())
	_, err = parent.Parent() // beyond what we may see
	require.ErrorIs(t, err, unix.EPERM)
	require.NoError(t, parent.Close())
	_, err = all.Find(Net).Parent()
	require.ErrorIs(t, err, unix.EINVAL)
	_, err = Of(1, Net)
	require.ErrorIs(t, err, fs.ErrPermission)
}

func TestProcesses(t *testing.T) {
	asRoot(t)
	pid, _ := sleeper(t, Net)
	all, err := Of(pid, Net|UTS)
	require.NoError(t, err)
	defer all.Close()
	pids, err := all.Find(Net).Processes()
	require.NoError(t, err)
	require.Equal(t, []int{pid}, pids)
	pids, err = all.Find(UTS).Processes()
	require.NoError(t, err)
	require.Contains(t, pids, pid)
	require.Contains(t, pids, os.Getpid())
	require.True(t, slices.IsSorted(pids))
}

func TestList(t *testing.T) {
	asRoot(t)
	pid, _ := sleeper(t, UTS|IPC)
	// os/exec goes on before the kernel has put the arguments in place.
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err == nil && len(b) > 0
	}, 10*time.Second, time.Millisecond)
	list, err := List()
	require.NoError(t, err)
	for _, k := range []Set{UTS, IPC} {
		i := slices.IndexFunc(list, func(i Info) bool { return i.Kind == k && i.PID == pid })
		require.GreaterOrEqual(t, i, 0)
		require.Equal(t, Info{Kind: k, Inode: list[i].Inode, Processes: 1, PID: pid, Command: "sleep 1000"}, list[i])
		require.Equal(t, link(t, pid, k), fmt.Sprintf("%s:[%d]", k.kind().file, list[i].Inode))
	}
	require.True(t, slices.IsSortedFunc(list, func(a, b Info) int { return cmp.Compare(a.Inode, b.Inode) }))
}

// lsns(8) finds the same, while other processes come and go.
func TestListAsLsns(t *testing.T) {
	asRoot(t)
	hasCommand(t, "lsns", "util-linux")
	pid, _ := sleeper(t, All&^User)
	stop := make(chan bool)
	defer close(stop)
	go comeAndGo(stop)
	want := lsns(t)
	list, err := List()
	require.NoError(t, err)
	found := 0
	for _, w := range want {
		i := slices.IndexFunc(list, func(i Info) bool { return i.Inode == w.NS && i.Kind.kind().file == w.Type })
		if w.PID != pid {
			continue
		}
		require.GreaterOrEqual(t, i, 0, w)
		require.Equal(t, w.NProcs, list[i].Processes)
		require.Equal(t, w.PID, list[i].PID)
		require.Equal(t, w.Command, list[i].Command)
		found++
	}
	require.Equal(t, 7, found)
	// Of what others do at the same time, the long-lived: process 1 is in both.
	for k := range All.Each() {
		of := func(i Info) bool { return i.Kind == k && i.PID == 1 }
		w := slices.IndexFunc(want, func(w lsnsLine) bool { return w.PID == 1 && w.Type == k.kind().file })
		require.Equal(t, w >= 0, slices.ContainsFunc(list, of), k)
	}
}

type lsnsLine struct {
	NS      uint64
	Type    string
	PID     int
	NProcs  int
	Command string
}

func lsns(t *testing.T) (lines []lsnsLine) {
	t.Helper()
	out, err := exec.Command("lsns", "--json", "--output", "NS,TYPE,PID,NPROCS,COMMAND").Output()
	require.NoError(t, err)
	var all struct{ Namespaces []lsnsLine }
	require.NoError(t, json.Unmarshal(out, &all))
	return all.Namespaces
}

func comeAndGo(stop chan bool) {
	for {
		select {
		case <-stop:
			return
		default:
			exec.Command("/bin/true").Run()
		}
	}
}

// Processes that end while they are looked at are no error.
func TestListRaces(t *testing.T) {
	stop := make(chan bool)
	defer close(stop)
	go comeAndGo(stop)
	for range loops(30) {
		list, err := List()
		require.NoError(t, err)
		require.NotEmpty(t, list)
	}
}

func TestListOfOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	list, err := List()
	require.NoError(t, err)
	i := slices.IndexFunc(list, func(i Info) bool { return i.Kind == Net })
	require.GreaterOrEqual(t, i, 0)
	require.NotEqual(t, 1, list[i].PID) // root's process is not ours to see
	require.Equal(t, uint32(os.Geteuid()), list[i].UID)
}

func TestParseLink(t *testing.T) {
	n, err := parseLink("net:[4026531840]")
	require.NoError(t, err)
	require.Equal(t, uint64(4026531840), n)
	for _, text := range []string{"", "net:", "net:[]", "net:[1", "net:[x]", "net:[-1]", "/run/netns"} {
		_, err := parseLink(text)
		require.Error(t, err, text)
	}
}

// hasProgram skips where there is no program to hold a user namespace for a moment.
func hasProgram(t *testing.T) {
	t.Helper()
	if runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" {
		return
	}
	_, err := New(User)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	t.Skip("no program for this architecture: " + err.Error())
}

func TestNew(t *testing.T) {
	asRoot(t)
	for _, s := range []Set{Net, Net | UTS | IPC | Mount | Cgroup, Time, User | Net | UTS, User} {
		t.Run(s.String(), func(t *testing.T) {
			for k := range s.Each() {
				hasNamespace(t, k)
			}
			if s.Has(User) {
				hasProgram(t)
			}
			made, err := New(s)
			require.NoError(t, err)
			defer made.Close()
			require.Equal(t, s, made.Kinds())
			for _, n := range made {
				require.NotEqual(t, link(t, 0, n.Kind()), n.String())
				pids, err := n.Processes()
				require.NoError(t, err)
				require.Empty(t, pids)
			}
			var want []string
			for k := range s.Each() {
				want = append(want, made.Find(k).String())
			}
			require.Equal(t, strings.Join(want, "\n"), says(t, showLinks(s), made))
		})
	}
}

func TestNewWithMap(t *testing.T) {
	asRoot(t)
	hasProgram(t)
	made, err := IDs{UIDs: []Range{{0, 100000, 10}}, GIDs: []Range{{0, 200000, 10}}}.New(UTS)
	require.NoError(t, err)
	defer made.Close()
	require.Equal(t, "0\n0\n0 100000 10\n0 200000 10", says(t, `id -u; id -g; echo $(cat /proc/self/uid_map); echo $(cat /proc/self/gid_map)`, made))
	owner, err := made.Find(UTS).Owner()
	require.NoError(t, err)
	require.Equal(t, made.Find(User).ID(), owner.ID())
	require.NoError(t, owner.Close())
}

func TestNewOfOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	hasProgram(t)
	made, err := New(User | Net)
	require.NoError(t, err)
	defer made.Close()
	require.Equal(t, "0", says(t, "id -u", made))
	_, err = New(Net)
	require.ErrorIs(t, err, unix.EPERM)
}

func TestNewUnsupported(t *testing.T) {
	for _, s := range []Set{PID, PID | Net, User | PID, User | Time} {
		_, err := New(s)
		require.ErrorIs(t, err, errors.ErrUnsupported, s)
	}
	_, err := New(1)
	require.ErrorIs(t, err, unix.EINVAL)
	_, err = IDs{}.New(Net)
	require.ErrorIs(t, err, unix.EINVAL)
}

// privateDir is a directory that is a private mount of its own.
func privateDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	require.NoError(t, unix.Mount("", dir, "", unix.MS_PRIVATE, ""))
	return dir
}

func TestPin(t *testing.T) {
	asRoot(t)
	dir := privateDir(t)
	for _, s := range []Set{Net, UTS, Mount, User} {
		t.Run(s.String(), func(t *testing.T) {
			if s == User {
				hasProgram(t)
			}
			made, err := New(s)
			require.NoError(t, err)
			path := filepath.Join(dir, s.String())
			require.NoError(t, Pin(made[0], path))
			name := made[0].String()
			require.NoError(t, made.Close())

			n, err := Open(path)
			require.NoError(t, err)
			require.Equal(t, name, n.String())
			require.NoError(t, n.Close())
			require.Equal(t, name, says(t, showLinks(s), Join{Path: path, Kinds: s}))

			require.NoError(t, Unpin(path))
			require.NoFileExists(t, path)
		})
	}
	require.Empty(t, entries(t, dir))
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// ip-netns(8) and we find each other's.
func TestPinAsIP(t *testing.T) {
	asRoot(t)
	hasCommand(t, "ip", "iproute2")
	require.NoError(t, os.MkdirAll("/run/netns", 0o755))
	name := "caisson-test-" + strconv.Itoa(os.Getpid())
	path := "/run/netns/" + name
	made, err := New(Net)
	require.NoError(t, err)
	defer made.Close()
	require.NoError(t, Pin(made[0], path))
	out, err := exec.Command("ip", "netns", "exec", name, "readlink", "/proc/self/ns/net").CombinedOutput()
	if err != nil {
		Unpin(path)
	}
	require.NoError(t, err, string(out))
	require.Equal(t, made[0].String(), strings.TrimSpace(string(out)))
	require.NoError(t, Unpin(path))
	require.NoFileExists(t, path)
}

func TestPinFails(t *testing.T) {
	asRoot(t)
	dir := privateDir(t)
	made, err := New(Mount | Net)
	require.NoError(t, err)
	defer made.Close()
	net := made.Find(Net)

	require.NoError(t, os.WriteFile(dir+"/there", []byte("x"), 0o600))
	require.ErrorIs(t, Pin(net, dir+"/there"), fs.ErrExist)
	require.NoError(t, os.Symlink(dir+"/target", dir+"/link"))
	require.ErrorIs(t, Pin(net, dir+"/link"), fs.ErrExist)
	require.ErrorIs(t, Pin(net, dir+"/no/such"), fs.ErrNotExist)
	for _, path := range []string{"", ".", "/", "..", dir + "/", dir + "/.."} {
		require.ErrorIs(t, Pin(net, path), unix.EINVAL, path)
	}
	closed, err := OfFile(net.File())
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	require.Error(t, Pin(closed, dir+"/closed"))

	// A mount namespace cannot be pinned where it would reach itself.
	require.NoError(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
	here, err := Of(0, Mount)
	require.NoError(t, err)
	defer here.Close()
	require.ErrorIs(t, Pin(here[0], dir+"/self"), unix.EINVAL)
	require.Equal(t, []string{"link", "there"}, entries(t, dir))
}

func TestUnpinRefuses(t *testing.T) {
	asRoot(t)
	dir := privateDir(t)
	made, err := New(Net)
	require.NoError(t, err)
	defer made.Close()
	require.NoError(t, Pin(made[0], dir+"/net"))
	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o600))
	require.NoError(t, os.Symlink("net", dir+"/link"))
	require.NoError(t, os.Mkdir(dir+"/mount", 0o755))
	require.NoError(t, unix.Mount("tmpfs", dir+"/mount", "tmpfs", 0, ""))
	for _, name := range []string{"/file", "/link", "/mount", "/.", ""} {
		require.ErrorIs(t, Unpin(dir+name), unix.EINVAL, name)
	}
	require.ErrorIs(t, Unpin("/proc/self/ns/net"), unix.EINVAL)
	require.ErrorIs(t, Unpin(dir+"/none"), fs.ErrNotExist)
	require.Equal(t, []string{"file", "link", "mount", "net"}, entries(t, dir))
	require.NoError(t, Unpin(dir+"/net"))
}

func TestPinByOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	here, err := Of(0, Net)
	require.NoError(t, err)
	defer here.Close()
	dir := t.TempDir()
	require.ErrorIs(t, Pin(here[0], dir+"/net"), unix.EPERM)
	require.Empty(t, entries(t, dir))
}
