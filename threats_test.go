package caisson_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/internal/initprog"
	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// Each test is named after what has gone wrong elsewhere.

// threat makes the test binary play another part, as a process of its own.
func threat(binary, part string, args ...string) *exec.Cmd {
	c := exec.Command(binary, append([]string{part}, args...)...)
	c.Env = append(os.Environ(), helperEnv+"=threat")
	return c
}

func helpThreat(args []string) error {
	parts := map[string]func(args []string) error{"host5736": host5736, "grab": grab, "spy": spy, "inherit": inherit, "secure": secure}
	f, ok := parts[args[0]]
	if !ok {
		return fmt.Errorf("no part %q", args[0])
	}
	return f(args[1:])
}

// times is how often something is tried.
func times(n int) int {
	if os.Getenv("CAISSON_SLOW") != "" {
		return max(n/20, 3)
	}
	return n
}

// inUserNamespace makes id 0 inside the given one outside.
func inUserNamespace(id int) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		p.Clone(unix.CLONE_NEWUSER)
		p.While(plan.Action{Name: "write the id maps", Do: func(r *plan.Run) error {
			dir := "/proc/" + strconv.Itoa(r.PID)
			if os.Geteuid() != 0 {
				if err := os.WriteFile(dir+"/setgroups", []byte("deny"), 0); err != nil {
					return err
				}
			}
			text := fmt.Appendf(nil, "0 %d 1", id)
			return errors.Join(os.WriteFile(dir+"/uid_map", text, 0), os.WriteFile(dir+"/gid_map", text, 0))
		}})
		zero := plan.Int(0)
		p.Child(plan.Users, plan.Call("setresgid", sys.Setresgid, zero, zero, zero), plan.Call("setresuid", sys.Setresuid, zero, zero, zero))
		return nil
	})
}

func sum(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// fewCapabilities leaves root inside what container engines leave it. Root of the host's own user namespace with CAP_SYS_PTRACE can
// trace any process that it sees, also one that joins: no sandbox holds it.
func fewCapabilities() plan.Primitive {
	keep := []int{unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_MKNOD, unix.CAP_NET_RAW, unix.CAP_SETGID,
		unix.CAP_SETUID, unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_KILL, unix.CAP_AUDIT_WRITE}
	return plan.Func(func(p *plan.Plan) error {
		for c := range unix.CAP_LAST_CAP + 1 {
			if !slices.Contains(keep, c) {
				p.Child(plan.Credentials, plan.Call("prctl", unix.SYS_PRCTL, plan.Int(unix.PR_CAPBSET_DROP), plan.Int(c)).Tolerate(syscall.EINVAL))
			}
		}
		return nil
	})
}

// TestCVE_2019_5736: a sandbox without a user namespace, as root; what is executed in it is a script for /proc/self/exe. Someone
// inside keeps open whatever /proc/PID/exe leads to, and writes to it when the host has ended.
func TestCVE_2019_5736(t *testing.T) {
	world{ownRoot: true, command: worlds()[2].command}.need(t)
	if !initprog.Supported() {
		t.Skip("no sealed program for ", runtime.GOARCH, ": there the host is not protected from scripts for /proc/self/exe, only looked after afterwards")
	}
	dir, err := os.MkdirTemp(os.TempDir(), "5736")
	require.NoError(t, err)
	host := filepath.Join(dir, "host")
	b, err := os.ReadFile(self())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(host, b, 0o755))
	for name, text := range map[string]string{"trap": "#!/proc/self/exe\n", "chain": "#!" + dir + "/trap\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	before := sum(t, host)
	out, err := threat(host, "host5736", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ended"), nil, 0o644))
	var report []byte
	for range 1000 {
		if report, err = os.ReadFile(filepath.Join(dir, "report")); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.NoError(t, err)
	require.Equal(t, before, sum(t, host), "%s", report)
	require.Contains(t, string(report), "the host's binary: 0 times")
	require.NotContains(t, string(report), "other programs: 0 times", "nothing was seen: the test tests nothing")
}

// host5736 is the host: it starts the attacker, then traps inside and outside of its sandbox, and ends.
func host5736(args []string) error {
	dir := args[0]
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "host"), &st); err != nil {
		return err
	}
	sandbox := caisson.New(append(isolated(), fewCapabilities())...)
	attacker := sandbox.Command(self(), "grab", dir, strconv.FormatUint(st.Ino, 10))
	attacker.Env = append(os.Environ(), helperEnv+"=threat")
	if err := attacker.Start(); err != nil {
		return err
	}
	for range 500 {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	empty := []string{helperEnv + "=args"} // should the trap work, the host's binary does nothing
	for range times(60) {
		for _, name := range []string{"trap", "chain"} {
			for _, c := range []*caisson.Cmd{attacker.Process.Exec(filepath.Join(dir, name)), sandbox.Command(filepath.Join(dir, name))} {
				c.Env = empty
				c.Run()
			}
		}
		if err := attacker.Process.Exec("/bin/sleep", "0.002").Run(); err != nil {
			return err
		}
	}
	return nil
}

// grab is the attacker inside.
func grab(args []string) error {
	dir := args[0]
	target, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o644); err != nil {
		return err
	}
	var kept []int
	others := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if _, err := os.Stat(filepath.Join(dir, "ended")); err == nil {
			break
		}
		for _, pid := range processes() {
			fd, err := unix.Open("/proc/"+pid+"/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && st.Ino == target && len(kept) < 100 {
				kept = append(kept, fd)
				continue
			}
			others++
			unix.Close(fd)
		}
	}
	written := 0
	for range 50 { // the host may be on its way out
		for _, fd := range kept {
			if w, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
				unix.Write(w, []byte("owned"))
				written++
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	report := fmt.Sprintf("the host's binary: %d times, written %d, other programs: %d times", len(kept), written, others)
	return os.WriteFile(filepath.Join(dir, "report"), []byte(report), 0o644)
}

// processes are the other processes of the pid namespace.
func processes() (pids []string) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	own := strconv.Itoa(os.Getpid())
	for _, n := range names {
		if n[0] >= '0' && n[0] <= '9' && n != own {
			pids = append(pids, n)
		}
	}
	return pids
}

// TestCVE_2024_21626: a working directory by way of a descriptor of the host's.
func TestCVE_2024_21626(t *testing.T) {
	var open []int
	for range 500 {
		fd, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0) // not close-on-exec
		require.NoError(t, err)
		open = append(open, fd)
	}
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	granted, err := os.Open("/")
	require.NoError(t, err)
	defer granted.Close()
	for _, w := range worlds()[1:] {
		t.Run(w.name, func(t *testing.T) {
			w.need(t)
			keeper := w.command("/bin/cat")
			in, err := keeper.StdinPipe()
			require.NoError(t, err)
			require.NoError(t, keeper.Start())
			defer keeper.Wait()
			defer in.Close()
			commands := map[string]func(name string, arg ...string) *caisson.Cmd{
				"start": func(name string, arg ...string) *caisson.Cmd { return w.command(name, arg...).ours },
				"exec":  keeper.ours.Process.Exec,
			}
			for name, command := range commands {
				if name == "exec" && w.name == "empty" {
					continue // there is nothing to join
				}
				refused := []string{"/proc/self/cwd", "/proc/self/root", "/proc/1/root", "/proc/1/cwd", "/proc/thread-self/cwd", "/proc/self/fd/3/.", "/proc/self/fd/3/.."}
				last := open[len(open)-1] + 20
				for fd := 0; fd <= last; fd += 1 + fd/8 {
					refused = append(refused, fmt.Sprintf("/proc/self/fd/%d", fd))
				}
				for _, dir := range refused {
					c := command("/bin/true")
					c.Dir, c.ExtraFiles = dir, []*os.File{granted, granted}
					require.Error(t, c.Run(), "%s: %s", name, dir)
				}
				for _, dir := range []string{"", "/", "/proc", os.TempDir()} {
					c := command("/bin/sh", "-c", "/bin/pwd -P && ls -l /proc/self/cwd")
					c.Dir, c.ExtraFiles = dir, []*os.File{granted}
					out, err := c.CombinedOutput()
					require.NoError(t, err, "%s", out)
					require.NotContains(t, string(out), "unreachable")
					if dir != "" {
						require.Equal(t, dir, strings.SplitN(string(out), "\n", 2)[0])
					}
				}
				c := command("/bin/ls", "/proc/self/fd")
				c.ExtraFiles = []*os.File{nil, granted}
				out, err := c.Output()
				require.NoError(t, err)
				require.Equal(t, "0 1 2 3 4", strings.Join(strings.Fields(string(out)), " "), "%s: 3 is the listing's own, 4 was granted", name)
			}
		})
	}
}

// secretMark is what the host has in its memory, its environment and a file that it has open.
const secretMark = "the host's secret 2016-9962"

// TestCVE_2016_9962: root inside traces and reads each new process, while commands join the sandbox.
func TestCVE_2016_9962(t *testing.T) {
	ids := []int{os.Geteuid()}
	if os.Geteuid() == 0 {
		ids = append(ids, 100000, noUserNamespace)
	} else {
		needUserNamespace(t)
	}
	for _, id := range ids {
		for name, opt := range map[string]caisson.LaunchOptions{"shared memory": {}, "clone": {NoClone3: true}, "copy": {NoVfork: true}} {
			t.Run(fmt.Sprintf("root inside is %d, %s", id, name), func(t *testing.T) { joinUnderEyes(t, id, opt) })
		}
	}
}

const noUserNamespace = -1 // root of the host, with few capabilities

func joinUnderEyes(t *testing.T, id int, opt caisson.LaunchOptions) {
	memory := []byte(secretMark)
	t.Setenv("CAISSON_SECRET", secretMark)
	file := filepath.Join(os.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, memory, 0o600))
	fd, err := unix.Open(file, unix.O_RDONLY, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))

	var pin runtime.Pinner
	pin.Pin(&memory[0])
	defer pin.Unpin()
	address := uintptr(unsafe.Pointer(&memory[0]))
	parts := []plan.Primitive{clone(unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNS), slowly(3 * time.Millisecond)}
	if id == noUserNamespace {
		parts = append(parts, fewCapabilities())
	} else {
		parts = append(parts, inUserNamespace(id))
	}
	parts = append(parts, slices.DeleteFunc(isolated(), func(p plan.Primitive) bool { _, own := p.(plan.Func); return own })...)
	spyCmd := caisson.New(parts...).Command(self(), "spy", strconv.FormatUint(uint64(address), 10), strconv.FormatUint(st.Ino, 10), os.Args[0])
	spyCmd.Env = []string{helperEnv + "=threat", "TMPDIR=" + os.TempDir()}
	in, err := spyCmd.StdinPipe()
	require.NoError(t, err)
	var out bytes.Buffer
	spyCmd.Stdout, spyCmd.Stderr = &out, &out
	require.NoError(t, spyCmd.Start())
	ended := make(chan error)
	go func() { ended <- spyCmd.Wait() }()
	for i := range times(60) {
		c := spyCmd.Process.Exec("/bin/true")
		c.Env = []string{}
		c.SetOptions(opt)
		if i%2 == 1 { // its descriptors pass through the child
			c.Terminal = &caisson.Terminal{}
		}
		err := c.Run()
		if c.Terminal != nil {
			c.Terminal.Close()
		}
		if err != nil && !strings.Contains(err.Error(), "killed") { // who is traced after the exec may be disturbed
			t.Log(err)
		}
	}
	in.Close()
	require.NoError(t, <-ended, "%s", out.String())
	t.Log(strings.TrimSpace(out.String()))
	require.NotContains(t, out.String(), "LEAK")
	require.Contains(t, out.String(), "processes seen")
	require.NotContains(t, out.String(), " 0 of them before", "no process was seen before it executed: the test tests nothing")
}

// slowly keeps the child for a while in the phases that a joining command goes through as well.
func slowly(d time.Duration) plan.Primitive {
	ts := unix.NsecToTimespec(int64(d))
	b := unsafe.Slice((*byte)(unsafe.Pointer(&ts)), unsafe.Sizeof(ts))
	sleep := plan.Call("nanosleep", unix.SYS_NANOSLEEP, plan.Bytes(d.String(), b), plan.Null())
	return plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Limits, sleep)
		p.Child(plan.Credentials, sleep)
		p.Child(plan.Landlock, sleep)
		return nil
	})
}

// spy is root inside. It tries all that reads another process, and reports what it has got of the host.
func spy(args []string) error {
	runtime.LockOSThread() // the tracer is a thread
	address, _ := strconv.ParseUint(args[0], 10, 64)
	inode, _ := strconv.ParseUint(args[1], 10, 64)
	s := &spying{address: uintptr(address), inode: inode, host: args[2], seen: map[string]bool{}, early: map[string]bool{}}
	over := make(chan bool)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	for {
		select {
		case <-over:
			for leak := range s.leaks() {
				fmt.Println("LEAK", leak)
			}
			fmt.Printf("%d processes seen, %d of them before they executed the command\n", len(s.seen), len(s.early))
			return nil
		default:
		}
		for _, pid := range processes() {
			s.look(pid)
		}
	}
}

type spying struct {
	address     uintptr
	inode       uint64
	host        string
	seen, early map[string]bool
	found       []string
}

func (s *spying) leaks() map[string]bool {
	all := map[string]bool{}
	for _, f := range s.found {
		all[f] = true
	}
	return all
}

func (s *spying) leak(format string, a ...any) { s.found = append(s.found, fmt.Sprintf(format, a...)) }

func (s *spying) look(pid string) {
	s.seen[pid] = true
	dir := "/proc/" + pid
	if cmdline, _ := os.ReadFile(dir + "/cmdline"); bytes.HasPrefix(cmdline, []byte(s.host)) {
		s.early[pid] = true
	}
	if env, _ := os.ReadFile(dir + "/environ"); bytes.Contains(env, []byte(secretMark)) {
		s.leak("environ")
	}
	for _, link := range []string{"exe", "cwd", "root"} {
		if to, err := os.Readlink(dir + "/" + link); err == nil && (strings.HasSuffix(to, ".test") || link != "exe" && to != "/") {
			s.leak("%s is %s", link, to)
		}
	}
	s.descriptors(dir)
	s.memory(pid)
	n, _ := strconv.Atoi(pid)
	s.steal(n)
	s.trace(n)
}

func (s *spying) descriptors(dir string) {
	fds, _ := os.ReadDir(dir + "/fd")
	for _, e := range fds {
		var st unix.Stat_t
		if unix.Stat(dir+"/fd/"+e.Name(), &st) == nil && st.Ino == s.inode {
			s.leak("descriptor %s", e.Name())
		}
	}
	if maps, _ := os.ReadFile(dir + "/maps"); bytes.Contains(maps, []byte(".test\n")) {
		s.leak("maps")
	}
}

func (s *spying) memory(pid string) {
	b := make([]byte, len(secretMark))
	if fd, err := unix.Open("/proc/"+pid+"/mem", unix.O_RDONLY, 0); err == nil {
		if n, _ := unix.Pread(fd, b, int64(s.address)); string(b[:max(n, 0)]) == secretMark {
			s.leak("mem")
		}
		unix.Close(fd)
	}
	n, _ := strconv.Atoi(pid)
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	remote := []unix.RemoteIovec{{Base: s.address, Len: len(b)}}
	if n, err := unix.ProcessVMReadv(n, local, remote, 0); err == nil && string(b[:n]) == secretMark {
		s.leak("process_vm_readv")
	}
}

// steal takes descriptors out of the process.
func (s *spying) steal(pid int) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(pidfd)
	for fd := range 40 {
		got, err := unix.PidfdGetfd(pidfd, fd, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(got, &st) == nil && st.Ino == s.inode {
			s.leak("pidfd_getfd %d", fd)
		}
		unix.Close(got)
	}
}

// trace stops the process, and looks whose program it is while it cannot go on.
func (s *spying) trace(pid int) {
	if unix.PtraceSeize(pid) != nil {
		return
	}
	defer unix.PtraceDetach(pid)
	if unix.PtraceInterrupt(pid) != nil {
		return
	}
	var ws unix.WaitStatus
	for range 200 {
		if got, err := unix.Wait4(pid, &ws, unix.WNOHANG|unix.WALL, nil); err != nil || got == pid {
			break
		}
		time.Sleep(20 * time.Microsecond)
	}
	b := make([]byte, len(secretMark))
	if n, err := unix.PtracePeekData(pid, s.address, b); err == nil && string(b[:n]) == secretMark {
		s.leak("ptrace")
	}
	if to, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err == nil && strings.HasSuffix(to, ".test") {
		s.leak("ptrace of %s", to)
	}
}

// TestCVE_2022_29162: no capability is inheritable inside, and none ambient that was not asked for.
func TestCVE_2022_29162(t *testing.T) {
	w := worlds()[2]
	w.need(t)
	keeper := w.command("/bin/cat")
	in, err := keeper.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, keeper.Start())
	defer keeper.Wait()
	defer in.Close()
	for _, c := range []*caisson.Cmd{w.command("/bin/cat", "/proc/self/status").ours, keeper.ours.Process.Exec("/bin/cat", "/proc/self/status")} {
		out, err := c.Output()
		require.NoError(t, err)
		require.Contains(t, string(out), "CapInh:\t0000000000000000\n")
		require.Contains(t, string(out), "CapAmb:\t0000000000000000\n")
	}
	if os.Geteuid() == 0 { // a host that has inheritable ones itself
		out, err := threat(self(), "inherit").CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

// inherit is a host with inheritable and ambient capabilities. A user namespace gives none of them away.
func inherit([]string) error {
	runtime.LockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable = 1<<unix.CAP_NET_RAW | 1<<unix.CAP_CHOWN
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_RAW, 0, 0); err != nil {
		return err
	}
	parts := append([]plan.Primitive{inUserNamespace(0)}, isolated()...)
	keeper := caisson.New(parts...).Command("/bin/cat")
	in, err := keeper.StdinPipe()
	if err != nil {
		return err
	}
	if err := keeper.Start(); err != nil {
		return err
	}
	defer keeper.Wait()
	defer in.Close()
	for _, c := range []*caisson.Cmd{caisson.New(parts...).Command("/bin/cat", "/proc/self/status"), keeper.Process.Exec("/bin/cat", "/proc/self/status")} {
		out, err := c.Output()
		if err != nil {
			return err
		}
		for _, line := range strings.Split(string(out), "\n") {
			if (strings.HasPrefix(line, "CapInh") || strings.HasPrefix(line, "CapAmb")) && !strings.HasSuffix(line, "\t0000000000000000") {
				return errors.New(line)
			}
		}
	}
	return nil
}

// state is what starts may not change in the host.
func state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, name := range []string{"oom_score_adj", "coredump_filter", "limits", "mountinfo", "cgroup", "uid_map", "personality"} {
		text, _ := os.ReadFile("/proc/self/" + name)
		fmt.Fprintf(&b, "%s: %s\n", name, text)
	}
	threads, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	kinds := map[string]bool{}
	for _, thread := range threads {
		for _, ns := range []string{"user", "mnt", "net", "ipc", "uts", "cgroup", "pid", "pid_for_children", "time", "time_for_children"} {
			if link, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/" + ns); err == nil {
				kinds[ns+" "+link] = true
			}
		}
		status, _ := os.ReadFile("/proc/self/task/" + thread.Name() + "/status")
		for _, line := range strings.Split(string(status), "\n") {
			if name, _, _ := strings.Cut(line, ":"); slices.Contains([]string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Umask", "Cpus_allowed", "SigIgn"}, name) {
				kinds[line] = true
			}
		}
	}
	lines := make([]string, 0, len(kinds))
	for k := range kinds {
		lines = append(lines, k)
	}
	slices.Sort(lines)
	flag, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	wd, _ := os.Getwd()
	hostname, _ := os.Hostname()
	fmt.Fprintln(&b, strings.Join(lines, "\n"), "\ndumpable", flag, wd, hostname)
	return b.String()
}

// TestHostState: what memory, threads and namespaces of the host are, they are after starts that change everything inside, with one
// processor and with many.
func TestHostState(t *testing.T) {
	w := worlds()[2]
	w.need(t)
	for _, procs := range []int{1, 8} {
		t.Run(fmt.Sprintf("GOMAXPROCS=%d", procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			parts := append(isolated(), caisson.DieWithParent{}, caisson.Nice(3), caisson.Umask(0o77), caisson.Affinity{firstCPU(t)}, caisson.Session{},
				caisson.Rlimit{Resource: caisson.RlimitNofile, Soft: 50, Hard: 60}, plan.Func(changeAll))
			if os.Geteuid() == 0 {
				parts = append(parts, caisson.User{UID: 65534, GID: 65534})
			}
			sandbox := caisson.New(parts...)
			before := state(t)
			var wg sync.WaitGroup
			for range 4 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for range times(20) {
						out, err := sandbox.Command("/bin/sh", "-c", "umask; ulimit -n; cat /proc/self/oom_score_adj").CombinedOutput()
						if err != nil || strings.Join(strings.Fields(string(out)), " ") != "0077 50 555" {
							t.Errorf("%v %s", err, out)
						}
					}
				}()
			}
			wg.Wait()
			require.Equal(t, before, state(t))
		})
	}
}

// changeAll changes what is the child's alone, if all is right.
func changeAll(p *plan.Plan) error {
	fd := p.Slot()
	p.Child(plan.Sources,
		plan.Call("openat", unix.SYS_OPENAT, plan.Int(-100), plan.Str("/proc/thread-self/oom_score_adj"), plan.Int(unix.O_WRONLY|unix.O_CLOEXEC)).Save(fd),
		plan.Call("write", unix.SYS_WRITE, plan.Saved(fd), plan.Str("555"), plan.Int(3)),
		plan.Call("mount", unix.SYS_MOUNT, plan.Str("x"), plan.Str("/mnt"), plan.Str("tmpfs"), plan.Int(0), plan.Null()).Tolerate(syscall.ENOENT),
		plan.Call("chdir", unix.SYS_CHDIR, plan.Str("/")))
	p.Child(plan.Names, plan.Call("sethostname", unix.SYS_SETHOSTNAME, plan.Str("inside"), plan.Int(6)))
	p.Child(plan.Credentials, plan.Call("prctl", unix.SYS_PRCTL, plan.Int(unix.PR_SET_NO_NEW_PRIVS), plan.Int(1), plan.Int(0), plan.Int(0), plan.Int(0)),
		plan.Call("prctl", unix.SYS_PRCTL, plan.Int(unix.PR_SET_NAME), plan.Str("inside")))
	return nil
}

func firstCPU(t *testing.T) int {
	t.Helper()
	var set unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &set))
	for i := range 1024 {
		if set.IsSet(i) {
			return i
		}
	}
	t.Fatal("no CPU")
	return 0
}

// TestGoDescriptorsThreadsLimits: thousands of starts, good ones and bad ones, leave no descriptor, goroutine, thread or process.
func TestGoDescriptorsThreadsLimits(t *testing.T) {
	w := worlds()[2]
	w.need(t)
	kinds := []func() error{
		func() error { return caisson.New().Command("/bin/true").Run() },
		func() error { return caisson.New(caisson.DieWithParent{}).Command("/bin/true").Run() },
		func() error { return caisson.New(caisson.Nice(1)).Command("/bin/true").Run() },
		func() error { return failing(caisson.New().Command("/nonexistent")) },
		func() error { return failing(caisson.New(caisson.Umask(0o1000)).Command("/bin/true")) },
		func() error { return w.command("/bin/true").Run() },
		func() error { return failing(w.command("/nonexistent").ours) },
	}
	for _, f := range kinds {
		require.NoError(t, f())
	}
	fds, goroutines := openDescriptors(t), runtime.NumGoroutine()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range times(2500) {
				kind := kinds[i%5]
				if i%50 == g {
					kind = kinds[5+i/50%2]
				}
				if err := kind(); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	for range 500 {
		if slices.Equal(fds, openDescriptors(t)) && runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.Equal(t, fds, openDescriptors(t))
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	threads, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	require.Less(t, len(threads), 60)
	_, err = unix.Wait4(-1, nil, unix.WNOHANG, nil)
	require.ErrorIs(t, err, syscall.ECHILD, "a child is left")
}

func failing(c *caisson.Cmd) error {
	if c.Run() == nil {
		return errors.New("no error")
	}
	return nil
}

func openDescriptors(t *testing.T) (list []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "anon_inode:[event") {
			list = append(list, e.Name()+" "+to)
		}
	}
	return list
}

// TestATSecure: a set-user-ID or set-group-ID program may not use the library.
func TestATSecure(t *testing.T) {
	needRoot(t)
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(os.TempDir(), &fs))
	if fs.Flags&unix.ST_NOSUID != 0 {
		t.Skip(os.TempDir(), " is mounted nosuid")
	}
	b, err := os.ReadFile(self())
	require.NoError(t, err)
	for name, mode := range map[string]uint32{"plain": 0o755, "setuid": 0o4755, "setgid": 0o2755} {
		t.Run(name, func(t *testing.T) {
			binary := filepath.Join(os.TempDir(), name)
			require.NoError(t, os.WriteFile(binary, b, 0o755))
			require.NoError(t, unix.Chmod(binary, mode))
			c := threat(binary, "secure")
			c.Dir = "/"
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, err := c.CombinedOutput()
			require.NoError(t, err, "%s", out)
			if name == "plain" {
				require.Equal(t, "started\n", string(out))
			} else {
				require.Contains(t, string(out), "set-user-ID")
			}
		})
	}
}

// secure is a host, also after it has given up what it was given.
func secure([]string) error {
	err := caisson.New().Command("/bin/true").Run()
	if err == nil {
		fmt.Println("started")
		return nil
	}
	fmt.Println(err)
	if !errors.Is(err, os.ErrPermission) {
		return errors.New("not fs.ErrPermission")
	}
	if _, err := unix.Auxv(); err != nil {
		return nil // glibc has moved the environment about, and the file is not ours to read: the ids of now are all there is
	}
	if err := errors.Join(syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
		return err
	}
	if caisson.New().Command("/bin/true").Run() == nil {
		return errors.New("the ids of now count, and not those of the start")
	}
	return nil
}
