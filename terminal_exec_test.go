package caisson_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// TestTerminalExec: a further command has a terminal of the sandbox's devpts, too, whatever the first one has.
func TestTerminalExec(t *testing.T) {
	eachRoom(t, func(t *testing.T, s caisson.Sandbox, own bool) {
		if s.Plan().Has(plan.RootDir) && !own {
			return // the commands below need devices
		}
		first := watch(t, s.Command("sh", "-c", "tty; exec cat"))
		first.until(t, "/dev/pts/")
		for range 3 {
			c := first.cmd.Process.Exec("sh", "-c", about+`; exit 7`)
			v := watch(t, c)
			require.NoError(t, v.Resize(24, 80))
			out, err := v.rest(t)
			require.Equal(t, "0\n1\n2\n24 80\nnamed\ntty\nstdout\nforeground\n0 1 2 3 ", out)
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, 7, exit.ExitCode())
			require.NoError(t, v.Close())
		}
		if own {
			out, err := watch(t, first.cmd.Process.Exec("sh", "-c", `tty; stat -c %u $(tty); id -u; stat -c %T /dev/console`)).rest(t)
			require.NoError(t, err)
			lines := strings.Fields(out)
			require.Equal(t, []string{"/dev/pts/1", lines[2], "0"}, []string{lines[0], lines[1], lines[3]}, "the console is the first command's")
		}
		out, err := first.cmd.Process.Exec("sh", "-c", "tty; cat /dev/tty").CombinedOutput()
		require.Error(t, err, "without a terminal there is none")
		require.Contains(t, string(out), "not a tty")
		first.enter(t, "\n\x04")
		_, err = first.rest(t)
		require.NoError(t, err)
	})
}

func TestTerminalExecAsNobody(t *testing.T) {
	if os.Geteuid() != 0 || asNobody(t) {
		TestTerminalExec(t)
	}
}

// hostile are what root of a running sandbox can do to /dev/pts, and what becomes of a terminal then.
var hostile = map[string]struct {
	script string
	want   error // nil: it works all the same
}{
	"nothing there":    {"umount -l /dev/pts", syscall.ENOTTY},
	"no directory":     {"umount -l /dev/pts; rmdir /dev/pts", syscall.ENOENT},
	"a fifo":           {"mount -t tmpfs none /dev/pts; mkfifo /dev/pts/ptmx", syscall.ENOTTY},
	"a device":         {"mount --bind /dev/null /dev/pts/ptmx", syscall.EXDEV},
	"another ptmx":     {"mount --bind /dev/pts/ptmx /dev/pts/ptmx", syscall.EXDEV},
	"a link":           {"umount -l /dev/pts; rmdir /dev/pts; mkdir /dev/other; mount -t devpts -o newinstance,ptmxmode=666 none /dev/other; ln -s other /dev/pts", syscall.ELOOP},
	"a magic link":     {"umount -l /dev/pts; rmdir /dev/pts; ln -s /proc/self/fd /dev/pts", syscall.ELOOP},
	"the root":         {"mount --rbind / /dev", syscall.ENOENT},
	"another instance": {"mount -t devpts -o newinstance,ptmxmode=666 none /dev/pts", nil},
	"a full instance":  {"mount -t devpts -o newinstance,ptmxmode=666,max=1 none /dev/pts; exec 9<>/dev/pts/ptmx", syscall.ENOSPC},
}

// rooted is an ordinary sandbox whose command is root of a user namespace, with all capabilities in it.
func rooted(t *testing.T) caisson.Sandbox {
	t.Helper()
	id := 70000
	if os.Geteuid() != 0 {
		needUserNamespace(t)
		id = os.Geteuid()
	}
	parts := slices.DeleteFunc(isolated(), func(p plan.Primitive) bool { _, own := p.(plan.Func); return own })
	return caisson.New(append(parts, clone(unix.CLONE_NEWPID|unix.CLONE_NEWNS), inUserNamespace(id))...)
}

// TestTerminalHostile: nothing is opened but the ptmx of a devpts, and what is refused leaves nothing behind.
func TestTerminalHostile(t *testing.T) {
	if _, err := exec.LookPath("mount"); err != nil {
		t.Skip(err)
	}
	before := openDescriptors(t)
	for name, h := range hostile {
		t.Run(name, func(t *testing.T) {
			c := rooted(t).Command("/bin/sh", "-c", h.script+"; echo done; exec cat")
			c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
			first := watch(t, c)
			require.NotContains(t, first.until(t, "done\r\n"), "mount:")
			e := c.Process.Exec("/bin/true")
			e.Terminal = &caisson.Terminal{}
			err := e.Start()
			if h.want == nil {
				require.NoError(t, err)
				require.NoError(t, errors.Join(e.Wait(), e.Terminal.Close()))
			} else {
				var typed *caisson.Error
				require.ErrorAs(t, err, &typed)
				require.ErrorIs(t, err, h.want)
				require.Equal(t, "caisson.terminal", typed.Primitive)
			}
			require.NoError(t, c.Process.Exec("/bin/true").Run(), "a command without a terminal is not concerned")
			first.enter(t, "\x04")
			_, err = first.rest(t)
			require.NoError(t, errors.Join(err, first.Close()))
		})
	}
	require.Equal(t, before, openDescriptors(t))
}

// ofPrograms makes a root directory of the host's programs.
func ofPrograms(t *testing.T) (dir string, parts []plan.Primitive) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	require.NoError(t, os.Chmod(dir, 0o755))
	parts = []plan.Primitive{chroot.Pivot{Dir: dir}}
	for _, name := range []string{"usr", "lib", "lib64", "bin"} {
		st, err := os.Lstat("/" + name)
		switch {
		case os.IsNotExist(err):
		case st.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink("/" + name)
			require.NoError(t, errors.Join(err, os.Symlink(target, filepath.Join(dir, name))))
		default:
			parts = append(parts, chroot.Bind{Source: "/" + name, Target: "/" + name, ReadOnly: true})
		}
	}
	return dir, parts
}

// TestCVE_2025_52565: another sandbox that shares the root directory exchanges /dev, while it is mounted on, for one of its own making.
// A start fails, or the terminal and the console are what they should be; and what the links lead to stays as it was.
func TestCVE_2025_52565(t *testing.T) {
	dir, parts := ofPrograms(t)
	victim := filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(victim, []byte("as it was"), 0o600))
	decoy := filepath.Join(dir, "decoy")
	require.NoError(t, errors.Join(os.Mkdir(filepath.Join(dir, "dev"), 0o755), os.MkdirAll(filepath.Join(decoy, "pts"), 0o755),
		os.Mkdir(filepath.Join(decoy, "shm"), 0o755), os.WriteFile(filepath.Join(decoy, "pts/ptmx"), nil, 0o666),
		os.Symlink("/victim", filepath.Join(decoy, "console")), os.Symlink("/victim", filepath.Join(dir, "dev/console"))))
	own := []plan.Primitive{clone(unix.CLONE_NEWPID | unix.CLONE_NEWNS)}
	if os.Geteuid() != 0 {
		needUserNamespace(t)
		own = append(own, userNamespace())
	}
	s := caisson.New(append(append(own, parts...), chroot.Proc{}, chroot.Dev{})...)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	exchanges := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "dev"), unix.AT_FDCWD, decoy, unix.RENAME_EXCHANGE) == nil {
					exchanges++
				}
				time.Sleep(time.Microsecond) // or the starts would have no processor
			}
		}
	})
	n, good, refused := times(400), 0, 0
	if os.Getenv("CAISSON_SOAK") != "" {
		n = 5000
	}
	for range n {
		c := s.Command("/bin/sh", "-c", "exec /usr/bin/stat -L -c %t:%T:%i /proc/self/fd/0 /dev/console")
		c.Env = []string{}
		c.Terminal = &caisson.Terminal{}
		if err := c.Start(); err != nil {
			var typed *caisson.Error
			require.ErrorAs(t, err, &typed)
			refused++
			continue
		}
		b, err := io.ReadAll(c.Terminal)
		require.NoError(t, errors.Join(err, c.Terminal.Close()))
		if c.Wait() == nil { // else /dev has been exchanged while the command looked for it
			lines := strings.Fields(string(b))
			if len(lines) == 2 && lines[0] == lines[1] {
				good++
			}
			require.Regexp(t, "^88:0:", lines[0])
		}
	}
	close(stop)
	wg.Wait()
	b, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "as it was", string(b))
	require.NotZero(t, exchanges)
	require.NotZero(t, good)
	for _, d := range []string{"dev", "decoy"} {
		list, err := os.ReadDir(filepath.Join(dir, d))
		require.NoError(t, err)
		for _, e := range list {
			require.Contains(t, []string{"console", "pts", "shm"}, e.Name())
			if e.Name() == "console" {
				require.Equal(t, os.ModeSymlink, e.Type())
			}
		}
	}
	t.Logf("%d starts, %d good, %d refused, %d exchanges", n, good, refused, exchanges)
}

// TestTerminalDevpts: a /dev of the root directory with a devpts on it; the console there is not ours to make.
func TestTerminalDevpts(t *testing.T) {
	dir, parts := ofPrograms(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "dev"), 0o755))
	own := []plan.Primitive{clone(unix.CLONE_NEWPID | unix.CLONE_NEWNS)}
	if os.Geteuid() != 0 {
		needUserNamespace(t)
		own = append(own, userNamespace())
	}
	c := caisson.New(append(append(own, parts...), chroot.Proc{}, chroot.Devpts{})...).Command("/usr/bin/tty")
	c.Env = []string{}
	out, err := watch(t, c).rest(t)
	require.NoError(t, err)
	require.Equal(t, "/dev/pts/0\n", out)
	list, err := os.ReadDir(filepath.Join(dir, "dev"))
	require.NoError(t, err)
	require.Len(t, list, 1, "pts alone")
}
