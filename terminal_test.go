package caisson_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// screen is a command on a terminal, and what it has printed.
type screen struct {
	*caisson.Terminal
	cmd *caisson.Cmd
	out bytes.Buffer
}

// watch starts the command with a terminal of 24 rows of 80.
func watch(t testing.TB, c *caisson.Cmd) *screen {
	t.Helper()
	s := &screen{Terminal: &caisson.Terminal{Rows: 24, Cols: 80}, cmd: c}
	c.Terminal = s.Terminal
	require.NoError(t, c.Start())
	t.Cleanup(func() {
		s.Close()
		if c.ProcessState == nil {
			c.Process.Kill()
			c.Wait()
		}
	})
	return s
}

// until reads until the text has come, and gives what has been printed since the last call.
func (s *screen) until(t testing.TB, text string) string {
	t.Helper()
	require.NoError(t, s.SetReadDeadline(time.Now().Add(patience/2)))
	b := make([]byte, 1)
	for !strings.Contains(s.out.String(), text) {
		n, err := s.Read(b)
		s.out.Write(b[:n])
		require.NoError(t, err, "no %q in %q", text, s.out.String())
	}
	defer s.out.Reset()
	return s.out.String()
}

func (s *screen) enter(t testing.TB, keys string) {
	t.Helper()
	_, err := io.WriteString(s, keys)
	require.NoError(t, err)
}

// rest reads to the end of the session, and waits for the command.
func (s *screen) rest(t testing.TB) (string, error) {
	t.Helper()
	require.NoError(t, s.SetReadDeadline(time.Now().Add(patience/2)))
	b, err := io.ReadAll(s)
	require.NoError(t, err)
	return strings.ReplaceAll(s.out.String()+string(b), "\r\n", "\n"), s.cmd.Wait()
}

// rooms are sandboxes with and without a devpts of their own.
func rooms(t *testing.T) map[string]caisson.Sandbox {
	t.Helper()
	all := map[string]caisson.Sandbox{
		"nothing":   caisson.New(),
		"own":       box(t),
		"session":   box(t, caisson.Session{}, caisson.DieWithParent{}),
		"host's":    caisson.New(noDev()...),
		"namespace": caisson.New(userNamespace()),
	}
	if os.Geteuid() == 0 {
		all["user"] = box(t, caisson.User{UID: 70000, GID: 70001})
		all["user of the host's"] = caisson.New(append(noDev(), caisson.User{UID: 70000, GID: 70001})...)
		all["user namespace"] = box(t, userNamespace())
		all["user in a namespace"] = box(t, inUserNamespace(70000), caisson.User{NoSetGroups: true})
	}
	if runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" {
		all["init"] = box(t, caisson.Init{})
	}
	return all
}

// noDev is an ordinary sandbox with the host's /dev.
func noDev() (parts []plan.Primitive) {
	for _, p := range isolated() {
		if _, dev := p.(chroot.Dev); !dev {
			parts = append(parts, p)
		}
	}
	return parts
}

// eachRoom calls f with each of them. In a slow machine the most different ones have to do for all tests but the first.
func eachRoom(t *testing.T, f func(t *testing.T, s caisson.Sandbox, own bool)) {
	all := rooms(t)
	if slow() && t.Name() != "TestTerminal" {
		maps.DeleteFunc(all, func(name string, _ caisson.Sandbox) bool { return name != "nothing" && name != "init" && name != "own" })
	}
	for name, s := range all {
		t.Run(name, func(t *testing.T) { f(t, s, s.Plan().Has(plan.Devpts)) })
	}
}

// about prints what the terminal is for the command.
const about = `for fd in 0 1 2; do test -t $fd && echo $fd; done
	stty size; test "$(tty)" = "$(readlink /proc/self/fd/0)" && echo named
	(echo tty > /dev/tty) 2>&- || echo none; echo stdout > /dev/stdout
	set -- $(cat /proc/self/stat); test $6 = $(ps -o sess= -p $$) && test $8 = $5 && echo foreground
	ls /proc/self/fd | tr '\n' ' '`

// TestTerminal: it is all three descriptors and controls the session, it has a name and an owner, and its end is io.EOF.
func TestTerminal(t *testing.T) {
	eachRoom(t, func(t *testing.T, s caisson.Sandbox, own bool) {
		const script = about + `
			test "$(stat -c %u $(tty))" = "$(id -u)" && echo mine
			exit 7`
		out, err := watch(t, s.Command("sh", "-c", script)).rest(t)
		if s.Plan().Has(plan.RootDir) && !own { // its view of the host has no device nodes
			out = strings.Replace(out, "none\n", "tty\n", 1)
		}
		require.Equal(t, "0\n1\n2\n24 80\nnamed\ntty\nstdout\nforeground\n0 1 2 3 mine\n", out)
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 7, exit.ExitCode())
		if !own {
			return
		}
		out, err = watch(t, s.Command("sh", "-c", `tty; echo console > /dev/console; ls /dev/pts | tr '\n' ' '
			test "$(stat -c %t:%T:%i /dev/console)" = "$(stat -c %t:%T:%i $(tty))" && echo same
			cat /proc/self/mountinfo | grep -c " /dev/console "`)).rest(t)
		require.NoError(t, err)
		require.Equal(t, "/dev/pts/0\nconsole\n0 ptmx same\n1\n", out)
	})
}

func TestTerminalAsNobody(t *testing.T) {
	if os.Geteuid() != 0 || asNobody(t) {
		TestTerminal(t)
	}
}

// TestTerminalKeys: ^C, ^D and the size are the kernel's business, and reach the command.
func TestTerminalKeys(t *testing.T) {
	eachRoom(t, func(t *testing.T, s caisson.Sandbox, _ bool) {
		c := watch(t, s.Command("sh", "-c", `trap 'echo int' INT; trap 'stty size' WINCH
			echo ready; cat; echo "end $?"; until read -r line && test "$line" = x; do :; done; echo over`))
		c.until(t, "ready\r\n")
		c.enter(t, "hello\n")
		c.until(t, "hello\r\nhello\r\n")
		c.enter(t, "\x04")
		c.until(t, "end 0\r\n")
		require.NoError(t, c.Resize(50, 132))
		c.enter(t, "\n")
		c.until(t, "50 132\r\n")
		c.enter(t, "\x03")
		c.until(t, "int\r\n")
		c.enter(t, "x\n")
		out, err := c.rest(t)
		require.NoError(t, err)
		require.Contains(t, out, "over\n")
	})
}

// TestTerminalJobs: an interactive shell has job control, as process 1 as well.
func TestTerminalJobs(t *testing.T) {
	for _, shell := range []string{"bash", "dash"} {
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("no %s: %v", shell, err)
			continue
		}
		eachRoom(t, func(t *testing.T, s caisson.Sandbox, _ bool) {
			c := s.Command(shell, "-i")
			c.Env = []string{"PATH=/usr/bin:/bin", "PS1=$ ", "TERM=dumb", "ENV=/", "HOME=/", "HISTFILE="}
			if shell == "bash" {
				c.Args = []string{"bash", "--norc", "--noprofile", "--noediting", "-i"}
			}
			w := watch(t, c)
			require.NotContains(t, w.until(t, "$ "), "job control")
			w.enter(t, "cat\n")
			w.until(t, "cat\r\n")
			w.enter(t, "first\n")
			w.until(t, "first\r\nfirst\r\n")
			w.enter(t, "\x1a") // ^Z stops cat, and the shell goes on
			w.until(t, "$ ")
			w.enter(t, "jobs; echo $((6*7))\n")
			require.Contains(t, w.until(t, "42\r\n"), "topped")
			w.until(t, "$ ")
			w.enter(t, "fg\n")
			w.until(t, "cat\r\n")
			w.enter(t, "second\n")
			w.until(t, "second\r\nsecond\r\n")
			w.enter(t, "\x03") // ends cat, not the shell
			w.until(t, "$ ")
			w.enter(t, "exit 5\n")
			_, err := w.rest(t)
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, 5, exit.ExitCode())
		})
	}
}

// TestTerminalStreams: what the caller has set stays as it is.
func TestTerminalStreams(t *testing.T) {
	eachRoom(t, func(t *testing.T, s caisson.Sandbox, own bool) {
		if s.Plan().Has(plan.RootDir) && !own {
			return // no device can be opened there, so neither /dev/tty
		}
		c := s.Command("sh", "-c", "test -t 0 && test ! -t 2 && echo 0; test -t 1; echo shown > /dev/tty")
		c.Terminal = &caisson.Terminal{}
		out, err := c.Output()
		defer c.Terminal.Close()
		require.NoError(t, err)
		require.Equal(t, "0\n", string(out))
		b, err := io.ReadAll(c.Terminal)
		require.NoError(t, err)
		require.Equal(t, "shown\r\n", string(b))
		if s.Plan().Has(plan.InitProg) {
			return
		}
		c = s.Command("sh", "-c", "for fd in 0 1 2; do test -t $fd && echo $fd; done; cat >&2; read -r line < /dev/tty; echo $line")
		c.Terminal = &caisson.Terminal{}
		c.Stdin = strings.NewReader("input\n")
		require.NoError(t, c.Start())
		defer c.Terminal.Close()
		io.WriteString(c.Terminal, "typed\n")
		b, err = io.ReadAll(c.Terminal)
		require.NoError(t, errors.Join(err, c.Wait()))
		require.Equal(t, "1\n2\ninput\ntyped\n", strings.ReplaceAll(strings.Replace(string(b), "typed\r\n", "", 1), "\r\n", "\n"), "but for the echo")
	})
}

// TestTerminalHangUp: Close is a hang-up for what runs inside, and ends a Read.
func TestTerminalHangUp(t *testing.T) {
	eachRoom(t, func(t *testing.T, s caisson.Sandbox, _ bool) {
		c := watch(t, s.Command("sh", "-c", "trap 'exit 9' HUP; echo ready; while :; do cat; sleep 0.01; done"))
		c.until(t, "ready\r\n")
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, c.SetDeadline(time.Time{}))
		read := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		time.Sleep(5 * time.Millisecond)
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-read, os.ErrClosed)
		var exit *exec.ExitError
		require.ErrorAs(t, c.cmd.Wait(), &exit)
		require.Equal(t, 9, exit.ExitCode())
		require.ErrorIs(t, c.Resize(1, 1), os.ErrClosed)
		require.ErrorIs(t, c.Close(), os.ErrClosed)
	})
}

// TestTerminalLeftBehind: a process that the command leaves behind, in a session of its own, holds the terminal. Wait does not wait for it. Where it
// lives on, what it prints can be read, and WaitDelay bounds for how long.
func TestTerminalLeftBehind(t *testing.T) {
	eachRoom(t, func(t *testing.T, s caisson.Sandbox, own bool) {
		if s.Plan().Has(plan.RootDir) && !own {
			return // the shell cannot open /dev/null there
		}
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer w.Close() // ends it
		c := s.Command("sh", "-c", `setsid sh -c 'trap "" HUP; echo left > /dev/stdout; exec cat <&3' & read -r line`)
		c.ExtraFiles, c.WaitDelay = []*os.File{r}, 400*time.Millisecond
		if slow() {
			c.WaitDelay = 4 * time.Second
		}
		v := watch(t, c)
		r.Close()
		v.until(t, "left\r\n")
		v.enter(t, "\n")
		require.NoError(t, c.Wait())
		require.Equal(t, plan.Exited, c.Result().Reason)
		_, err = io.WriteString(w, "later\n")
		b, e := io.ReadAll(v)
		if (s.Plan().Cloned() & unix.CLONE_NEWPID) != 0 {
			require.NoError(t, e)
			require.NotContains(t, string(b), "later")
			return
		}
		require.NoError(t, err)
		require.ErrorIs(t, e, exec.ErrWaitDelay)
		require.Contains(t, string(b), "later\r\n")
		require.NoError(t, v.SetReadDeadline(time.Time{})) // the caller may wait longer
		_, err = io.WriteString(w, "last\n")
		require.NoError(t, errors.Join(err, w.Close()))
		b, err = io.ReadAll(v)
		require.NoError(t, err)
		require.Equal(t, "last\r\n", string(b))
	})
}

// TestTerminalOutput: the last that is printed can be read after Wait.
func TestTerminalOutput(t *testing.T) {
	eachRoom(t, func(t *testing.T, s caisson.Sandbox, _ bool) {
		text := strings.Repeat("0123456789abcde\n", 200) // the kernel keeps some 4 KiB
		c := s.Command("sh", "-c", `stty -opost; echo "$1"`, "sh", text)
		v := watch(t, c)
		require.NoError(t, c.Wait())
		b, err := io.ReadAll(v)
		require.NoError(t, err)
		require.Equal(t, text+"\n", string(b))
		_, err = v.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		_, err = v.Write([]byte("x"))
		require.NoError(t, err)
	})
}

// TestTerminalFlood: a megabyte passes, in both directions at once.
func TestTerminalFlood(t *testing.T) {
	c := watch(t, box(t).Command("sh", "-c", "stty raw -echo; echo ready; exec cat"))
	c.until(t, "ready\n")
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go c.Write(text)
	got := make([]byte, len(text))
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience/2)))
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(text, got))
}

func TestTerminalMisuse(t *testing.T) {
	term := &caisson.Terminal{}
	_, err := term.Read(nil)
	require.ErrorIs(t, err, os.ErrInvalid)
	_, err = term.Write(nil)
	require.ErrorIs(t, err, os.ErrInvalid)
	_, err = term.SyscallConn()
	require.ErrorIs(t, err, os.ErrInvalid)
	for _, err := range []error{term.Close(), term.Resize(1, 1), term.SetDeadline(time.Time{}), term.SetReadDeadline(time.Time{}), term.SetWriteDeadline(time.Time{})} {
		require.ErrorIs(t, err, os.ErrInvalid)
	}
	c := caisson.New().Command("cat")
	s := watch(t, c)
	again := caisson.New().Command("cat")
	again.Terminal = c.Terminal
	require.ErrorContains(t, again.Start(), "has been used")
	s.enter(t, "\x04")
	_, err = s.rest(t)
	require.NoError(t, err, "the first command is not concerned")

	c = caisson.New(caisson.Session{Terminal: true}).Command("cat")
	c.Terminal = &caisson.Terminal{}
	var conflict *plan.ConflictError
	require.ErrorAs(t, c.Start(), &conflict)
	require.Equal(t, "the controlling terminal is given by caisson.Session and by caisson.terminal", conflict.Error())

	c = caisson.New(clone(unix.CLONE_NEWPID), caisson.Init{}).Command("cat")
	c.Terminal, c.Stdin = &caisson.Terminal{}, strings.NewReader("")
	err = c.Start()
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "Stdin must be nil")

	c = caisson.New().Command("/no/such")
	c.Terminal = &caisson.Terminal{}
	require.ErrorIs(t, c.Start(), exec.ErrNotFound)
	_, err = c.Terminal.Read(nil)
	require.ErrorIs(t, err, os.ErrClosed)
}

// TestTerminalEveryStepFails: each step, made to fail, is the one that the error names, and nothing is left behind.
func TestTerminalEveryStepFails(t *testing.T) {
	for _, s := range []caisson.Sandbox{caisson.New(), box(t, caisson.DieWithParent{})} {
		n := strings.Count(withTerminal(s).Plan(), "\n")
		before := look(t)
		for k := range n {
			c := withTerminal(s)
			c.SetOptions(caisson.LaunchOptions{Fault: k + 1})
			err := c.Start()
			if err == nil { // the clone itself cannot be made to fail
				require.Contains(t, strings.Split(c.Plan(), "\n")[k], "clone3(")
				require.NoError(t, c.Terminal.Close())
				c.Wait()
				continue
			}
			var e *caisson.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, k+1, e.Step, err)
			require.Error(t, c.Terminal.Close(), "closed, or never opened")
		}
		before.unchanged(t)
	}
}

func withTerminal(s caisson.Sandbox) *caisson.Cmd {
	c := s.Command("/bin/true")
	c.Terminal = &caisson.Terminal{}
	return c
}

// TestTerminalWays: however the child is made.
func TestTerminalWays(t *testing.T) {
	for _, opt := range []caisson.LaunchOptions{{}, {NoClone3: true}, {NoVfork: true}, {NoClone3: true, NoVfork: true}} {
		eachRoom(t, func(t *testing.T, s caisson.Sandbox, _ bool) {
			c := s.Command("tty")
			c.SetOptions(opt)
			out, err := watch(t, c).rest(t)
			require.NoError(t, err)
			require.Contains(t, out, "/dev/pts/")
		})
	}
}

// TestTerminalScript: a script is started twice, by way of another program; the terminal is that of the second start.
func TestTerminalScript(t *testing.T) {
	name := os.TempDir() + "/terminal-script"
	require.NoError(t, os.WriteFile(name, []byte("#!/bin/sh\ntty\n"), 0o755))
	before := openDescriptors(t)
	c := box(t).Command(name)
	s := watch(t, c)
	out, err := s.rest(t)
	require.NoError(t, err)
	require.Equal(t, "/dev/pts/0\n", out)
	require.NoError(t, s.Close())
	require.Equal(t, before, openDescriptors(t))
}

// TestTerminalLeak: two hundred starts of each kind leave nothing open.
func TestTerminalLeak(t *testing.T) {
	n := 200
	if slow() {
		n = 20
	}
	before := look(t)
	for name, s := range rooms(t) {
		for i := range n / 5 {
			c := s.Command([]string{"/bin/true", "/no/such"}[i%2])
			c.Terminal = &caisson.Terminal{}
			if err := c.Start(); err != nil {
				require.ErrorIs(t, err, exec.ErrNotFound, name)
				continue
			}
			_, err := io.Copy(io.Discard, c.Terminal)
			require.NoError(t, errors.Join(err, c.Wait(), c.Terminal.Close()), name)
		}
	}
	before.unchanged(t)
}

// TestTerminalsAtOnce: each command has its own.
func TestTerminalsAtOnce(t *testing.T) {
	s := box(t)
	errs := make(chan error)
	for i := range 16 {
		go func() {
			c := s.Command("sh", "-c", fmt.Sprintf("tty; read -r x; echo %d $x", i))
			c.Terminal = &caisson.Terminal{}
			err := c.Start()
			if err == nil {
				defer c.Terminal.Close()
				_, err = fmt.Fprintf(c.Terminal, "typed%d\n", i)
				b, e := io.ReadAll(c.Terminal)
				err = errors.Join(err, e, c.Wait())
				if want := fmt.Sprintf("%d typed%d\r\n", i, i); !strings.Contains(string(b), want) || !strings.Contains(string(b), "/dev/pts/0\r\n") {
					err = errors.Join(err, fmt.Errorf("no %q in %q", want, b))
				}
			}
			errs <- err
		}()
	}
	for range 16 {
		require.NoError(t, <-errs)
	}
}

// TestTerminalPlan: all is printed, and no privilege is needed for that.
func TestTerminalPlan(t *testing.T) {
	c := caisson.New(clone(unix.CLONE_NEWUSER), chroot.Host{}, chroot.Dev{}, caisson.User{UID: 7}).Command("sh")
	c.Terminal = &caisson.Terminal{}
	for _, want := range []string{
		`"ptmx", {O_RDWR|O_NOCTTY|O_NONBLOCK|O_CLOEXEC, RESOLVE_NO_SYMLINKS|RESOLVE_NO_XDEV}, 24) to the parent `, `TIOCGPTPEER, O_RDWR|O_NOCTTY|O_CLOEXEC)`,
		`fchownat(<terminal>, "", 7, -1, AT_EMPTY_PATH)`, `"console", MOVE_MOUNT_F_EMPTY_PATH)`, "dup3(<terminal>, 2, 0)", "setsid()", "ioctl(<terminal>, TIOCSCTTY, 0)",
	} {
		require.Contains(t, c.Plan(), want)
	}
	require.NotContains(t, c.Plan(), "a pseudoterminal of the host")
	c = caisson.New(caisson.Session{}).Command("sh")
	c.Terminal = &caisson.Terminal{}
	require.Contains(t, c.Plan(), "open a pseudoterminal of the host as terminal")
	require.Equal(t, 1, strings.Count(c.Plan(), "setsid()"))
	require.Equal(t, c.Plan(), c.Plan())
}
