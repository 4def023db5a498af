package launch_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/initprog"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// TestScriptFindsNoHostBinary: what a script that begins with #!/proc/self/exe gets is our sealed program, not the host's binary.
func TestScriptFindsNoHostBinary(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a root file system without a user namespace")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
	}
	write("self", "#!/proc/self/exe\n")
	write("chain", "#!/tmp/x/self\n")
	write("honest", "#!/bin/sh\necho honest\n")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "unreadable"), []byte("#!/proc/self/exe\n"), 0o111))
	p := plan.Build(plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWPID); return nil }),
		chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}, chroot.Bind{Source: dir, Target: "/tmp/x"})
	for _, way := range []launch.Options{{}, {NoClone3: true}, {NoVfork: true}} {
		require.Equal(t, "honest\n", script(t, p, "/tmp/x/honest", way, 0))
		for _, name := range []string{"self", "chain", "unreadable"} {
			// Our program, executed with the wrong arguments, ends with 125.
			require.Empty(t, script(t, p, "/tmp/x/"+name, way, 125), name)
		}
	}
}

// TestProgramBecomesScript: that a program was none is remembered as a guess, never as an answer: when it has become a script, the child finds that.
func TestProgramBecomesScript(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a root file system without a user namespace")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	echo, err := os.ReadFile("/bin/echo")
	require.NoError(t, err)
	p := plan.Build(plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWPID); return nil }),
		chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}, chroot.Bind{Source: dir, Target: "/tmp/x"})
	for range 3 {
		for text, want := range map[string]string{string(echo): "\n", "#!/bin/sh\necho script\n": "script\n"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "new"), []byte(text), 0o755))
			require.NoError(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "program")))
			for range 2 {
				require.Equal(t, want, script(t, p, "/tmp/x/program", launch.Options{}, 0))
			}
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "program"), []byte("#!/proc/self/exe\n"), 0o755))
	require.Empty(t, script(t, p, "/tmp/x/program", launch.Options{}, 125))
}

// TestNoDeviceIsOpened: the launcher looks at the program before it executes it, and to open a device, or a fifo, has effects.
func TestNoDeviceIsOpened(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a root file system without a user namespace")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o777))
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(watch)
	_, err = unix.InotifyAddWatch(watch, fifo, unix.IN_OPEN)
	require.NoError(t, err)
	p := plan.Build(plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWPID); return nil }),
		chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}, chroot.Bind{Source: dir, Target: "/tmp/x"})
	cmd := &plan.Command{Candidates: []string{"/tmp/x/fifo"}, Args: []string{"fifo"}, Files: []*os.File{nil, nil, os.Stderr}}
	_, err = launch.Start(context.Background(), p, cmd, launch.Options{})
	require.ErrorIs(t, err, syscall.EACCES)
	_, err = unix.Read(watch, make([]byte, 4096))
	require.ErrorIs(t, err, unix.EAGAIN, "it was opened")
}

// script runs a program, expects its exit code, and gives its output. Without our program for the architecture, the start has to fail.
func script(t *testing.T, p *plan.Plan, path string, opt launch.Options, code int) string {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd := &plan.Command{Candidates: []string{"/no/such", path}, Args: []string{path}, Env: []string{"PATH=/bin:/usr/bin"}, Files: []*os.File{nil, w, os.Stderr}}
	proc, err := launch.Start(context.Background(), p, cmd, opt)
	w.Close()
	if !initprog.Supported() && code != 0 {
		require.True(t, errors.Is(err, syscall.EPERM), "%v", err)
		return ""
	}
	require.NoError(t, err)
	out, err := io.ReadAll(r)
	require.NoError(t, err)
	var ws unix.WaitStatus
	_, err = unix.Wait4(proc.PID, &ws, 0, nil)
	require.NoError(t, err)
	require.Equal(t, code, ws.ExitStatus(), path)
	require.NoError(t, proc.Release())
	return string(out)
}

// TestReportKept: somebody inside has got hold of the end to which the init program writes, and keeps it open: the end of the process
// ends the wait all the same. What was written before is read first.
func TestReportKept(t *testing.T) {
	r, kept, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer kept.Close()
	cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, os.Stderr}}
	proc, err := launch.Start(context.Background(), plan.Build(), cmd, launch.Options{})
	require.NoError(t, err)
	_, err = launch.ReadReport(r, proc.PIDFD)
	require.Equal(t, io.EOF, err)
	require.NoError(t, binary.Write(kept, binary.NativeEndian, make([]byte, initprog.RecordSize)))
	_, err = launch.ReadReport(r, proc.PIDFD)
	require.NotEqual(t, io.EOF, err)
	var ws unix.WaitStatus
	_, err = unix.Wait4(proc.PID, &ws, 0, nil)
	require.NoError(t, err)
	require.NoError(t, proc.Release())
}
