package caisson_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
)

// helperEnv names what the test binary does instead of testing: it is the command of many tests, for it is there on any
// machine, and says exactly what it was given.
const helperEnv = "CAISSON_TEST_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		// Not os.Exit: a binary made with -cover or -race has something to say then.
		syscall.Exit(helper(name, os.Args[1:]))
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run makes one directory for all files of the tests, which the sandboxes see too, with a copy of the test binary.
func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "caisson")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	// What whoever started us has left open would be left open in the commands of os/exec, too.
	if err := unix.CloseRange(3, 1<<16, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 1, err
	}
	if signal.Ignored(syscall.SIGHUP) { // as below nohup(1); commands would ignore it, too, and not end by it
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	if err := errors.Join(os.Chmod(dir, 0o777|os.ModeSticky), os.Setenv("TMPDIR", dir), copySelf()); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// self is the test binary, where every user can execute it.
func self() string { return filepath.Join(os.TempDir(), "self") }

func copySelf() error {
	from, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(self(), b, 0o755)
}

func helper(name string, args []string) int {
	helpers := map[string]func(args []string) error{
		"args":       helpArgs,
		"threat":     helpThreat,
		"nest":       helpNest,
		"descriptor": helpDescriptors,
		"contents":   helpContents,
		"number":     helpNumbers,
		"echo":       helpEcho,
		"session":    helpSession,
		"die":        helpDie,
		"nofile":     helpNofile,
		"usage":      helpUsage,
		"terminate":  helpTerminate,
	}
	f, ok := helpers[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no helper", name)
		return 125
	}
	if err := f(args); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		return 124
	}
	return 0
}

// helpArgs prints the arguments.
func helpArgs([]string) error {
	for _, a := range os.Args {
		fmt.Printf("%q\n", a)
	}
	return nil
}

// helpDescriptors prints what is open. It opens nothing itself.
func helpDescriptors([]string) error {
	for fd := uintptr(0); fd < 1024; fd++ {
		flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
		if err != nil {
			continue
		}
		status, _ := unix.FcntlInt(fd, unix.F_GETFL, 0)
		var st unix.Stat_t
		if err := unix.Fstat(int(fd), &st); err != nil {
			return err
		}
		fmt.Printf("%d: descriptor flags %d, mode %#o, access %d, device %d\n", fd, flags, st.Mode&unix.S_IFMT, status&unix.O_ACCMODE, st.Rdev)
	}
	return nil
}

// helpContents prints what the files 3 and following hold, up to the number in the argument.
func helpContents(args []string) error {
	last, err := strconv.Atoi(args[0])
	for fd := 3; fd <= last && err == nil; fd++ {
		b := make([]byte, 64)
		n, e := unix.Pread(fd, b, 0)
		if e != nil {
			fmt.Printf("%d: %v\n", fd, e)
			continue
		}
		fmt.Printf("%d: %s\n", fd, b[:n])
	}
	return err
}

// helpNumbers prints which files the descriptors in the arguments are, to descriptor 3.
func helpNumbers(args []string) error {
	out := os.NewFile(3, "out")
	for _, a := range args {
		fd, err := strconv.Atoi(a)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s is %d:%d\n", a, st.Dev, st.Ino)
	}
	return nil
}

// helpEcho says "ready", and then copies lines.
func helpEcho([]string) error {
	fmt.Println("ready")
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

// helpTerminate says "ready", and ends with the exit code in the argument when SIGTERM comes.
func helpTerminate(args []string) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("ready")
	<-c
	code, err := strconv.Atoi(args[0])
	if err == nil {
		syscall.Exit(code)
	}
	return err
}

// helpSession prints on descriptor 3 whether it leads its session, and what controls it.
func helpSession([]string) error {
	out := os.NewFile(3, "out")
	sid, err := unix.Getsid(0)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "leader %v\n", sid == os.Getpid())
	controlled, err := unix.IoctlGetInt(0, unix.TIOCGSID)
	if err != nil {
		fmt.Fprintln(out, "terminal", err)
		return nil
	}
	fmt.Fprintf(out, "terminal controls us %v\n", controlled == sid)
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	fmt.Fprintln(out, "/dev/tty opens", err == nil)
	if err == nil {
		_, err = fmt.Fprintln(tty, "written to /dev/tty")
	}
	return err
}

// helpDie starts a command that holds descriptor 3, as the argument says, prints its pid, and waits.
func helpDie(args []string) error {
	var s caisson.Sandbox
	if args[0] == "die" {
		s = s.With(caisson.DieWithParent{})
	}
	c := s.Command("cat")
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	c.ExtraFiles = []*os.File{os.NewFile(3, "held")}
	if args[0] == "die" { // the thread that starts it must not matter
		err = startOnThread(c.Start)
	} else {
		err = c.Start()
	}
	if err != nil {
		return err
	}
	fmt.Println(c.Process.Pid)
	return c.Wait()
}

// helpNofile prints the limit of descriptors that the commands of os/exec and of a sandbox see.
func helpNofile(args []string) error {
	if args[0] == "set" {
		lim := unix.Rlimit{Cur: 77, Max: 99}
		if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, (*syscall.Rlimit)(&lim)); err != nil {
			return err
		}
	}
	os.Unsetenv(helperEnv)
	script := []string{"-c", "ulimit -Sn; ulimit -Hn"}
	for _, w := range worlds() {
		out, err := w.command("sh", script...).Output()
		if err != nil {
			if w.refused(err) {
				continue
			}
			return fmt.Errorf("%s: %w", w.name, err)
		}
		fmt.Println(strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}

// helpUsage uses up processor time and memory.
func helpUsage([]string) error {
	b := bytes.Repeat([]byte{1}, 64<<20)
	var u unix.Rusage
	for time.Duration(u.Utime.Nano()) < 50*time.Millisecond {
		for i := range b {
			b[i]++
		}
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			return err
		}
	}
	return nil
}

// slow reports whether loops should be short.
func slow() bool { return testing.Short() || os.Getenv("CAISSON_SLOW") == "1" }

// patience is how long something may take that is certain to happen.
const patience = 60 * time.Second

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for what the kernel or the runtime does a moment later.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// helperEnviron makes the test binary a helper, with a Go runtime that keeps no files open for itself.
func helperEnviron(name string) []string {
	return append(os.Environ(), helperEnv+"="+name, "GODEBUG=containermaxprocs=0,updatemaxprocs=0")
}

// asNobody reports whether the caller has no privilege. For root it runs the test again as an ordinary user, in a process
// of its own, and reports what that says.
func asNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	// Not by os/exec: its child would leave us undumpable, prctl(2).
	nobody := caisson.New(caisson.User{UID: 65534, GID: 65534})
	c := nobody.CommandContext(patient(t), self(), "-test.run=^"+t.Name()+"$", "-test.v")
	c.Dir = "/"
	out, err := c.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "--- SKIP") {
			t.Log("as an ordinary user:", line)
		}
	}
	return false
}

// needUserNamespace skips where an ordinary user may not make one, and only if that can be shown.
func needUserNamespace(t *testing.T) {
	t.Helper()
	err := caisson.New(userNamespace()).Command("/bin/true").Run()
	if err == nil {
		return
	}
	for name, value := range map[string]string{
		"/proc/sys/kernel/unprivileged_userns_clone":             "0",
		"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
		"/proc/sys/user/max_user_namespaces":                     "0",
	} {
		if b, e := os.ReadFile(name); e == nil && strings.TrimSpace(string(b)) == value {
			t.Skipf("%s is %s: %v", name, value, err)
		}
	}
	t.Fatalf("no user namespace, for no known reason: %v", err)
}

// firstLine reads a line, which tells that the command runs.
func firstLine(t testing.TB, r io.Reader) string {
	t.Helper()
	line, err := bufio.NewReaderSize(r, 16).ReadString('\n')
	if err != nil {
		t.Fatalf("read a first line: %q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}
