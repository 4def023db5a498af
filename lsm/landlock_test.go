package lsm_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

// needABI skips on kernels whose Landlock is older than the test's rules.
func needABI(t *testing.T, abi int) {
	t.Helper()
	if have := lsm.LandlockABI(); have < abi {
		t.Skipf("needs Landlock ABI %d, the kernel has %d", abi, have)
	}
}

// programs allows to execute what the machine has.
func programs() []lsm.Rule {
	return []lsm.Rule{lsm.Execute("/usr"), lsm.Execute("/bin", "/lib", "/lib64").Optional(), lsm.ReadOnly("/etc/ld.so.cache").Optional(),
		lsm.ReadWrite("/dev/null")}
}

// filesABI is the version whose access to files the kernel knows.
func filesABI() lsm.Rule { return lsm.ABI(min(lsm.LandlockABI(), lsm.NewestABI)) }

// rules are programs and more, of the version that the kernel has.
func rules(more ...lsm.Rule) lsm.Landlock {
	return append(append(lsm.Landlock{filesABI()}, programs()...), more...)
}

func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	for _, d := range []string{"ro", "rw", "no", "rw/sub"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o777))
		require.NoError(t, os.WriteFile(filepath.Join(dir, d, "f"), []byte("data\n"), 0o666))
	}
	return dir
}

func TestFiles(t *testing.T) {
	needABI(t, 1)
	dir := tree(t)
	l := rules(lsm.ReadOnly(dir+"/ro"), lsm.ReadWrite(dir+"/rw"))
	for _, c := range []struct {
		script string
		allow  bool
		abi    int
	}{
		{"cat ro/f", true, 1},
		{"ls ro", true, 1},
		{"echo x > ro/f", false, 1},
		{"echo x > ro/new", false, 1},
		{"rm ro/f", false, 1},
		{"mkdir ro/d", false, 1},
		{"ln -s x ro/l", false, 1},
		{"truncate -s 0 ro/f", false, 3},
		{"cat rw/f", true, 1},
		{"echo x > rw/f", true, 1},
		{"echo x > rw/new && rm rw/new", true, 1},
		{"mkdir rw/d && rmdir rw/d", true, 1},
		{"mkfifo rw/p && rm rw/p", true, 1},
		{"ln -s x rw/l && rm rw/l", true, 1},
		{"mv rw/f rw/g && mv rw/g rw/f", true, 1},
		{"mv rw/f rw/sub/g && mv rw/sub/g rw/f", true, 2},
		{"mv -n ro/f rw/stolen", false, 1},
		{"ln ro/f rw/link", false, 1},
		{"mknod rw/null c 1 3", false, 1},
		{"truncate -s 0 rw/sub/f", true, 1},
		{"cat no/f", false, 1},
		{"ls no", false, 1},
		{"echo x > no/f", false, 1},
		{"cat rw/../no/f", false, 1},
		{"cat /proc/self/root" + dir + "/no/f", false, 1},
	} {
		t.Run(c.script, func(t *testing.T) {
			needABI(t, c.abi)
			out := run(t, "cd "+dir+"; { "+c.script+"; } 2>&1 && echo allowed || echo refused", l)
			require.Contains(t, out, map[bool]string{true: "allowed", false: "refused"}[c.allow]+"\n")
			if !c.allow {
				require.Regexp(t, "Permission denied|cross-device|Operation not permitted", out)
			}
		})
	}
	for _, d := range []string{"ro", "no"} {
		b, err := os.ReadFile(filepath.Join(dir, d, "f"))
		require.NoError(t, err)
		require.Equal(t, "data\n", string(b), d)
	}
}

// TestList: directories are listed and no file is read, by rules that the command resolves and by prepared ones.
func TestList(t *testing.T) {
	needABI(t, 1)
	dir := tree(t)
	l := rules(lsm.List(dir+"/rw"), lsm.List(dir+"/none").Optional())
	set, err := l.Prepare()
	require.NoError(t, err)
	defer set.Close()
	script := "cd " + dir + "; ls rw rw/sub 2>&1; for try in 'cat rw/f' 'cat rw/sub/f' 'ls ro' 'touch rw/new'; do $try 2>/dev/null || echo refused; done"
	for _, part := range []plan.Primitive{l, set} {
		require.Equal(t, "rw:\nf\nsub\n\nrw/sub:\nf\nrefused\nrefused\nrefused\nrefused\n", run(t, script, part))
	}
	_, err = start(t, "true", rules(lsm.List(dir+"/rw/f")))
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "is no directory")
	_, err = lsm.Landlock{filesABI(), lsm.List(dir + "/rw/f")}.Prepare()
	require.ErrorIs(t, err, syscall.ENOTDIR)
	var e *lsm.RuleError
	require.ErrorAs(t, err, &e)
}

// TestErrno: denied access gives the errno of landlock(7).
func TestErrno(t *testing.T) {
	needABI(t, 4)
	dir := tree(t)
	self, err := os.Executable()
	require.NoError(t, err)
	l := rules(lsm.Execute(filepath.Dir(self)), lsm.ReadWrite(dir+"/rw", dir+"/rw/sub"), lsm.Connect(), lsm.Bind())
	out, err := startCommand(t, helper(self, "errno", dir), l)
	require.NoError(t, err)
	require.Equal(t, "read EACCES, list EACCES, link EACCES, bind EACCES, connect EACCES\n", out)
}

// helper is this test binary in another role.
func helper(self string, args ...string) *plan.Command {
	return &plan.Command{Candidates: []string{self}, Args: append([]string{self, "-test.run=^TestHelper$", "-test.v=false", "--"}, args...)}
}

func TestHelper(t *testing.T) {
	args := os.Args
	for len(args) > 0 && args[0] != "--" {
		args = args[1:]
	}
	if len(args) < 2 {
		return // it is the other side of other tests
	}
	roles[args[1]](args[2:])
	syscall.Exit(0) // and not of package os, which may have something to write about coverage
}

var roles = map[string]func(args []string){
	"errno":   errnos,
	"self":    restrictedSelf,
	"prepare": prepared,
	"rules":   tryRules,
	"inside":  inside,
	"tsync":   atOnce,
	"ports":   ports,
	"multipath": func([]string) {
		fmt.Printf("tcp %s, mptcp %s\n", name(listen("127.0.0.1:0", false)), name(listen("127.0.0.1:0", true)))
	},
	"signal":  func(a []string) { pid, _ := strconv.Atoi(a[0]); fmt.Println(name(unix.Kill(pid, unix.SIGWINCH))) },
	"connect": func(a []string) { fmt.Println(name(dial("unix", a[0]))) },
	"keyring": keyring,
	"load":    func([]string) { fmt.Println(name(lsm.LoadProfile([]byte("x")))) },
	"apparmor": func(a []string) {
		_, change := changeTo([]string{"exec", a[0]})
		label, stack := changeTo([]string{"stack", a[0]})
		fmt.Printf("change %s, stack %s %s", name(change), name(stack), label)
	},
	"label": func(a []string) { b, _ := os.ReadFile("/proc/self/attr/" + a[0]); fmt.Print(string(b)) },
}

func name(err error) string {
	var e syscall.Errno
	if err == nil {
		return "ok"
	}
	if errors.As(err, &e) {
		return unix.ErrnoName(e)
	}
	return err.Error()
}

func errnos(args []string) {
	dir := args[0]
	_, read := os.ReadFile(dir + "/no/f")
	_, list := os.ReadDir(dir + "/no")
	link := os.Link(dir+"/rw/f", dir+"/no/l")
	bind := listen("127.0.0.1:0", false)
	fmt.Printf("read %s, list %s, link %s, bind %s, connect %s\n", name(read), name(list), name(link), name(bind), name(dial("tcp4", "127.0.0.1:1")))
}

// listen binds a socket; package net takes MPTCP unless it is told otherwise.
func listen(address string, multipath bool) error {
	var c net.ListenConfig
	c.SetMultipathTCP(multipath)
	l, err := c.Listen(context.Background(), "tcp4", address)
	if err == nil {
		l.Close()
	}
	return err
}

func dial(network, address string) error {
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err
}

func ports(args []string) {
	for _, p := range args {
		fmt.Printf("bind %s connect %s\n", name(listen("127.0.0.1:"+p, false)), name(dial("tcp4", "127.0.0.1:"+p)))
	}
}

func TestPorts(t *testing.T) {
	needABI(t, 4)
	free := func() string {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		return port
	}
	one, two := free(), free()
	n, err := strconv.ParseUint(one, 10, 16)
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	out, err := startCommand(t, helper(self, "ports", one, two), lsm.Landlock{lsm.Bind(uint16(n)), lsm.Connect(uint16(n))})
	require.NoError(t, err)
	require.Equal(t, "bind ok connect ECONNREFUSED\nbind EACCES connect EACCES\n", out)
	out, err = startCommand(t, helper(self, "ports", one), lsm.Landlock{lsm.Bind()})
	require.NoError(t, err)
	require.Equal(t, "bind EACCES connect ECONNREFUSED\n", out, "connect is left alone")
}

// TestMultipath: the documentation says that MPTCP is not restricted where erratum 1 is fixed. If this changes, so must the words.
func TestMultipath(t *testing.T) {
	needABI(t, 7)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		t.Skipf("the kernel has no MPTCP: %v", err)
	}
	unix.Close(fd)
	self, err := os.Executable()
	require.NoError(t, err)
	out, err := startCommand(t, helper(self, "multipath"), lsm.Landlock{lsm.Bind()})
	require.NoError(t, err)
	require.Equal(t, "tcp EACCES, mptcp ok\n", out)
}

func TestScopes(t *testing.T) {
	needABI(t, 6)
	self, err := os.Executable()
	require.NoError(t, err)
	address := "@caisson-lsm-test-" + strconv.Itoa(os.Getpid())
	l, err := net.Listen("unix", address)
	require.NoError(t, err)
	defer l.Close()
	pid := strconv.Itoa(os.Getpid())
	for _, c := range []struct{ role, arg, want string }{{"signal", pid, "EPERM\n"}, {"connect", address, "EPERM\n"}} {
		out, err := startCommand(t, helper(self, c.role, c.arg), lsm.Landlock{lsm.ScopeSignals(), lsm.ScopeAbstractSockets()})
		require.NoError(t, err)
		require.Equal(t, c.want, out, c.role)
		out, err = startCommand(t, helper(self, c.role, c.arg), lsm.Landlock{lsm.Connect()})
		require.NoError(t, err)
		require.Equal(t, "ok\n", out, c.role)
	}
}

// TestConnectUnix: on a kernel that has it, sockets by their paths; on any other the error that names the rule.
func TestConnectUnix(t *testing.T) {
	needABI(t, 1)
	dir := tree(t)
	rule := lsm.ConnectUnix(dir + "/ro")
	if have := lsm.LandlockABI(); have < 9 {
		_, err := start(t, "true", lsm.Landlock{rule})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		var e *lsm.RuleError
		require.ErrorAs(t, err, &e)
		require.Equal(t, []int{9, have}, []int{e.ABI, e.Have})
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	for d, want := range map[string]string{"ro": "ok\n", "no": "EACCES\n"} {
		l, err := net.Listen("unix", dir+"/"+d+"/s")
		require.NoError(t, err)
		defer l.Close()
		out, err := startCommand(t, helper(self, "connect", dir+"/"+d+"/s"), lsm.Landlock{rule})
		require.NoError(t, err)
		require.Equal(t, want, out)
	}
}

func TestLog(t *testing.T) {
	needABI(t, 7)
	require.Equal(t, "ok\n", run(t, "echo ok", rules(lsm.Log(lsm.NewExec|lsm.NotSubdomains))))
}

// TestExecute: without the right the command itself is refused, and no program is started without its loader.
func TestExecute(t *testing.T) {
	needABI(t, 1)
	_, err := start(t, "true", lsm.Landlock{filesABI(), lsm.ReadOnly("/")})
	var e *plan.Error
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.Contains(t, e.Call, "execve")
	sh, err := filepath.EvalSymlinks("/bin/sh")
	require.NoError(t, err)
	_, err = start(t, "true", lsm.Landlock{filesABI(), lsm.ReadOnly("/"), lsm.Execute(sh)})
	require.ErrorIs(t, err, fs.ErrPermission, "the loader is executed, too")
	require.Equal(t, "ok\n", run(t, "echo ok", rules()))
}

func TestMissing(t *testing.T) {
	needABI(t, 1)
	_, err := start(t, "true", rules(lsm.ReadOnly("/no/such")))
	var e *plan.Error
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Contains(t, e.Call, `"/no/such"`)
	require.Contains(t, e.Hint, `rule "read-only /no/such"`)
	require.Equal(t, "lsm.Landlock", e.Primitive)
	_, err = rules(lsm.ReadOnly("/no/such")).Prepare()
	var r *lsm.RuleError
	require.ErrorAs(t, err, &r)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Equal(t, "/no/such", r.Path)
	require.Equal(t, "ok\n", run(t, "echo ok", rules(lsm.ReadOnly("/no/such").Optional())))
	set, err := rules(lsm.ReadOnly("/no/such").Optional()).Prepare()
	require.NoError(t, err)
	require.NoError(t, set.Close())
}

// TestReadOnlyMount: rights to write where nothing can be written are an error that names the rule, unless it is optional: then it does not make writable what is not.
// What is mounted below a read-only mount is another matter.
func TestReadOnlyMount(t *testing.T) {
	needABI(t, 1)
	dir := tree(t)
	at := dir + "/at"
	require.NoError(t, os.Mkdir(at, 0o755))
	parts := []plan.Primitive{plan.Func(isolated), chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: at},
		chroot.Bind{Source: dir + "/ro", Target: at + "/ro", ReadOnly: true}, chroot.Bind{Source: dir + "/rw", Target: at + "/rw"}}
	with := func(r lsm.Rule) []plan.Primitive { return append(parts[:len(parts):len(parts)], rules(r)) }
	_, err := start(t, "true", with(lsm.ReadWrite(at, at+"/ro"))...)
	var e *plan.Error
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, syscall.EROFS)
	require.Equal(t, at+`/ro, of the rule "read-write `+at+" "+at+`/ro", is mounted read-only; Optional passes over it`, e.Hint)
	require.Contains(t, run(t, "cat "+at+"/ro/f; echo x > "+at+"/ro/f", with(lsm.ReadWrite(at+"/ro").Optional())...), "Read-only file system")
	require.Equal(t, "new\n", run(t, "echo new > "+at+"/rw/f && cat "+at+"/rw/f", with(lsm.ReadWrite(at))...))
	require.Contains(t, run(t, "echo x > "+at+"/ro/f", with(lsm.ReadWrite(at))...), "Read-only file system")

	self, err := os.Executable()
	require.NoError(t, err)
	for _, c := range [][2]string{{at + "/ro", "EROFS, optional ok\n"}, {at + "/rw", "ok, optional ok\n"}} {
		out, err := startCommand(t, helper(self, "prepare", c[0]), parts...)
		require.NoError(t, err)
		require.Equal(t, c[1], out)
	}
}

// prepared prepares a rule, and the same as an optional one.
func prepared(args []string) {
	_, exact := rules(lsm.ReadWrite(args[0])).Prepare()
	var e *lsm.RuleError
	if exact != nil && (!errors.As(exact, &e) || e.Path != args[0]) {
		fmt.Println("no RuleError:", exact)
	}
	_, optional := rules(lsm.ReadWrite(args[0]).Optional()).Prepare()
	fmt.Printf("%s, optional %s\n", name(exact), name(optional))
}

// TestOwnRoot: paths mean the sandbox's own root, what is mounted in it included, also where the host has something else there.
func TestOwnRoot(t *testing.T) {
	needABI(t, 1)
	dir := tree(t)
	parts := []plan.Primitive{plan.Func(isolated), chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}, chroot.Bind{Source: dir, Target: "/tmp/x"}}
	out := run(t, "cat /tmp/x/ro/f; cat /tmp/x/no/f; echo new > /tmp/y && cat /tmp/y; cat /etc/passwd",
		append(parts, rules(lsm.ReadOnly("/tmp/x/ro"), lsm.ReadWrite("/tmp/y").Optional()))...)
	require.Equal(t, 3, strings.Count(out, "Permission denied"), out)
	require.Contains(t, out, "data\n")
	out = run(t, "echo new > /tmp/y && cat /tmp/y /tmp/x/no/f", append(parts, rules(lsm.ReadWrite("/tmp")))...)
	require.Equal(t, "new\ndata\n", out)
}

// TestMagicLink: a link of a hostile root to a descriptor of the host is not followed.
func TestMagicLink(t *testing.T) {
	needABI(t, 1)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Symlink("/proc/self/fd/0", dir+"/link"))
	_, err := start(t, "true", rules(lsm.ReadOnly(dir+"/link")))
	require.ErrorIs(t, err, syscall.ELOOP)
	_, err = rules(lsm.ReadOnly(dir + "/link")).Prepare()
	require.ErrorIs(t, err, syscall.ELOOP)
}

// TestScript: in a root of its own a script is executed by way of our program, which is a memfd; Landlock does not forbid that.
func TestScript(t *testing.T) {
	needABI(t, 1)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.WriteFile(dir+"/script", []byte("#!/bin/sh\necho script\n"), 0o755))
	for _, parts := range [][]plan.Primitive{{plan.Func(isolated), chroot.Host{}}, nil} {
		out, err := startCommand(t, &plan.Command{Candidates: []string{dir + "/script"}, Args: []string{"script"}}, append(parts, rules(lsm.Execute(dir)))...)
		require.NoError(t, err)
		require.Equal(t, "script\n", out)
		_, err = startCommand(t, &plan.Command{Candidates: []string{dir + "/script"}, Args: []string{"script"}}, append(parts, rules(lsm.ReadOnly(dir)))...)
		require.ErrorIs(t, err, fs.ErrPermission)
	}
}

// TestFurtherCommand: what is executed later in the sandbox is restricted as the first command is, by rules of its own root.
func TestFurtherCommand(t *testing.T) {
	needABI(t, 1)
	if os.Geteuid() != 0 {
		t.Skip("as an ordinary user the sandbox is entered by the root package, which has the way for it; its tests do")
	}
	dir := tree(t)
	out, err := tryJoined(t, "cat "+dir+"/ro/f; cat "+dir+"/no/f", rules(lsm.ReadOnly(dir+"/ro")))
	require.NoError(t, err)
	require.Contains(t, out, "data\n")
	require.Contains(t, out, "Permission denied")
}

// TestInit: process 1 is our program, which executes the command under the rules.
func TestInit(t *testing.T) {
	needABI(t, 1)
	cmd := shell("echo $$; cat /etc/passwd")
	cmd.Init = true
	out, err := startCommand(t, cmd, plan.Func(isolated), chroot.Host{}, rules())
	require.NoError(t, err)
	require.Contains(t, out, "2\n")
	require.Contains(t, out, "Permission denied")
}

// TestPrepared: one rule set for many starts, at the same time; the same file is meant by another path.
func TestPrepared(t *testing.T) {
	needABI(t, 1)
	dir := tree(t)
	set, err := rules(lsm.ReadOnly(dir + "/ro")).Prepare()
	require.NoError(t, err)
	defer set.Close()
	require.Empty(t, set.LeftOut())
	t.Run("starts", func(t *testing.T) { startPrepared(t, set, dir) })
}

func startPrepared(t *testing.T, set *lsm.Ruleset, dir string) {
	for range 4 {
		t.Run("start", func(t *testing.T) {
			t.Parallel()
			out := run(t, "cat "+dir+"/ro/f; cat "+dir+"/no/f", set)
			require.Contains(t, out, "data\n")
			require.Equal(t, 1, strings.Count(out, "Permission denied"))
			out = run(t, "cat /tmp/x/ro/f; cat /tmp/x/no/f", plan.Func(isolated), chroot.Host{}, chroot.Tmpfs{Path: "/tmp"},
				chroot.Bind{Source: dir, Target: "/tmp/x"}, set)
			require.Contains(t, out, "data\n")
			require.Equal(t, 1, strings.Count(out, "Permission denied"))
		})
	}
}

func TestClosedRuleset(t *testing.T) {
	needABI(t, 1)
	set, err := rules().Prepare()
	require.NoError(t, err)
	require.NoError(t, set.Close())
	_, err = start(t, "true", set)
	require.ErrorIs(t, err, os.ErrClosed)
}

// TestUnprivileged: no privilege is needed, and none can be gained afterwards.
func TestUnprivileged(t *testing.T) {
	needABI(t, 1)
	require.Equal(t, "1\n", run(t, "while read k v; do if test $k = NoNewPrivs:; then echo $v; fi; done < /proc/self/status",
		rules(lsm.ReadOnly("/proc"))))
}

// TestTooMany: the kernel nests 16 rule sets.
func TestTooMany(t *testing.T) {
	needABI(t, 1)
	var parts []plan.Primitive
	for range 16 {
		parts = append(parts, rules())
	}
	require.Equal(t, "ok\n", run(t, "echo ok", parts...))
	_, err := start(t, "true", append(parts, rules())...)
	require.ErrorIs(t, err, syscall.E2BIG)
}

// TestRestrictSelf: the calling process, in a process of its own.
func TestRestrictSelf(t *testing.T) {
	needABI(t, 1)
	dir := tree(t)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := helper(self, "self", dir)
	out, err := exec.Command(cmd.Candidates[0], cmd.Args[1:]...).CombinedOutput()
	require.NoError(t, err, string(out))
	if withCgo && lsm.LandlockABI() < 8 { // there may be threads that the Go runtime does not know
		require.Regexp(t, "^true prctl.*cgo", string(out))
		return
	}
	require.Equal(t, strings.Repeat("read ok, no EACCES, write EACCES\n", 20), string(out))
}

// restrictedSelf has threads before and after, all of which are restricted.
func restrictedSelf(args []string) {
	dir := args[0]
	if err := rules(lsm.ReadOnly(dir+"/ro", "/proc")).RestrictSelf(); err != nil {
		fmt.Println(errors.Is(err, errors.ErrUnsupported), err)
		return
	}
	done := make(chan string)
	for range 20 {
		go func() {
			_, ok := os.ReadFile(dir + "/ro/f")
			_, no := os.ReadFile(dir + "/no/f")
			write := os.WriteFile(dir+"/ro/f", nil, 0o600)
			done <- fmt.Sprintf("read %s, no %s, write %s", name(ok), name(no), name(write))
		}()
	}
	for range 20 {
		fmt.Println(<-done)
	}
}

// TestAllThreadsAtOnce: the way of Linux 7.0. A kernel that is older refuses it, and then no thread is restricted, nor has lost the right to gain privileges.
func TestAllThreadsAtOnce(t *testing.T) {
	needABI(t, 1)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := helper(self, "tsync", tree(t))
	out, err := exec.Command(cmd.Candidates[0], cmd.Args[1:]...).CombinedOutput()
	require.NoError(t, err, string(out))
	want := "EINVAL: no ok, no_new_privs on 0 of all\n"
	if lsm.LandlockABI() >= 8 {
		want = "ok: no EACCES, no_new_privs on all of all\n"
	}
	require.Equal(t, want, string(out))
}

// atOnce has some threads, and looks at each.
func atOnce(args []string) {
	var ready, all sync.WaitGroup
	begin, no := make(chan struct{}), make(chan error, 8)
	for range cap(no) {
		ready.Add(1)
		all.Go(func() {
			runtime.LockOSThread()
			ready.Done()
			<-begin
			_, err := os.ReadFile(args[0] + "/no/f")
			no <- err
		})
	}
	ready.Wait()
	err := lsm.AllThreads(rules(lsm.ReadOnly(args[0]+"/ro", "/proc")), 8)
	close(begin)
	seen := map[string]bool{}
	for range cap(no) {
		seen[name(<-no)] = true
	}
	all.Wait()
	fmt.Printf("%s: no %s, no_new_privs on %s of all\n", name(err), strings.Join(slices.Collect(maps.Keys(seen)), " and "), withoutNew())
}

// withoutNew counts the threads with no_new_privs, after a thread that is to end has had time for it. The first thread is left out: the Go runtime does not end it, but
// lets it sleep for ever.
func withoutNew() string {
	n, of := 0, 0
	for try := 0; try < 100 && (try == 0 || n > 0 && n < of); try++ {
		time.Sleep(time.Duration(try) * time.Millisecond)
		n, of = 0, 0
		tasks, _ := os.ReadDir("/proc/self/task")
		for _, task := range tasks {
			b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
			if err != nil || task.Name() == strconv.Itoa(os.Getpid()) {
				continue
			}
			of++
			n += strings.Count(string(b), "NoNewPrivs:\t1")
		}
	}
	if n == of {
		return "all"
	}
	return strconv.Itoa(n)
}

// TestBestEffortHere: what is left out on this kernel is what is newer than it.
func TestBestEffortHere(t *testing.T) {
	needABI(t, 1)
	dir := tree(t)
	b := lsm.BestEffort(append(programs(), lsm.ReadOnly(dir+"/ro"), lsm.Connect(), lsm.ScopeSignals(), lsm.Log(lsm.NewExec)))
	set, err := b.Prepare()
	require.NoError(t, err)
	defer set.Close()
	require.Equal(t, lsm.LandlockABI() >= 7, len(set.LeftOut()) == 0, "%v", set.LeftOut())
	out := run(t, "cat "+dir+"/ro/f; cat "+dir+"/no/f", b)
	require.Contains(t, out, "data\n")
	require.Contains(t, out, "Permission denied")
	if len(set.LeftOut()) > 0 {
		err := plan.Build(lsm.Landlock(b)).Err()
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}

func TestContract(t *testing.T) {
	needABI(t, 1)
	plantest.Check(t, rules(lsm.ReadOnly("/usr")))
	plantest.Check(t, lsm.Landlock{})
	plantest.Check(t, lsm.BestEffort(rules(lsm.ReadWrite("/tmp").Optional(), lsm.Connect(443))))
	set, err := rules().Prepare()
	require.NoError(t, err)
	defer set.Close()
	plantest.Check(t, set)
}
