//go:build linux

package initprog

import (
	"bufio"
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
)

const timeout = 60 * time.Second

// box is a running init and what the test holds of it.
type box struct {
	*exec.Cmd
	t      *testing.T
	report *os.File // read end
	out    *os.File // read end of the command's standard output and error
	lines  *bufio.Reader
}

type option func(*box)

// noNamespace leaves init outside of a PID namespace of its own.
func noNamespace(b *box) { b.SysProcAttr = &syscall.SysProcAttr{} }

// namespace asks for a new PID namespace, by way of a user namespace where we are
// not root.
func namespace() *syscall.SysProcAttr {
	if os.Geteuid() == 0 {
		return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	}
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
	}
}

// needNamespace skips only where the reason can be shown.
func needNamespace(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", ":")
	cmd.SysProcAttr = namespace()
	err := cmd.Run()
	if err == nil {
		return
	}
	for sysctl, forbids := range map[string]string{
		"kernel/apparmor_restrict_unprivileged_userns": "1",
		"kernel/unprivileged_userns_clone":             "0",
		"user/max_user_namespaces":                     "0",
		"user/max_pid_namespaces":                      "0",
	} {
		if v, _ := os.ReadFile("/proc/sys/" + sysctl); strings.TrimSpace(string(v)) == forbids {
			t.Skipf("no PID namespace (%v): sysctl %s is %s", err, sysctl, forbids)
		}
	}
	if status, _ := os.ReadFile("/proc/self/status"); bytes.Contains(status, []byte("Seccomp:\t2")) {
		t.Skipf("no PID namespace (%v): this process runs under a seccomp filter", err)
	}
	t.Fatalf("no PID namespace, and no known reason: %v", err)
}

// mustOpen skips where there is no program.
func mustOpen(t *testing.T) *os.File {
	t.Helper()
	f, err := Open()
	if errors.Is(err, errors.ErrUnsupported) {
		require.Empty(t, program)
		t.Skip("the program is built for amd64 and arm64 only")
	}
	require.NoError(t, err)
	return f
}

// openHigh opens the program at a descriptor that os/exec does not reuse in the
// child. It is close-on-exec there too, as the launcher's will be.
func openHigh(t *testing.T) string {
	t.Helper()
	f := mustOpen(t)
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 100)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d", fd)
}

// newBox prepares init with an argv; descriptor 3 is the report, further
// ExtraFiles start at 4.
func newBox(t *testing.T, argv []string, opts ...option) *box {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	b := &box{t: t, Cmd: exec.CommandContext(ctx, openHigh(t))}
	b.Args = argv
	b.SysProcAttr = namespace()
	for _, o := range opts {
		o(b)
	}
	if b.SysProcAttr.Cloneflags != 0 {
		needNamespace(t)
	}
	return b
}

// begin starts init and closes our copies of what it was given.
func (b *box) begin() *box {
	b.t.Helper()
	report, reportW := b.pipe()
	out, outW := b.pipe()
	b.report, b.out, b.lines = report, out, bufio.NewReader(out)
	b.ExtraFiles = append([]*os.File{reportW}, b.ExtraFiles...)
	if b.Stdout == nil {
		b.Stdout = outW
		b.Stderr = outW
	}
	require.NoError(b.t, b.Start())
	reportW.Close()
	outW.Close()
	b.t.Cleanup(func() { // a failed test leaves it running
		if b.ProcessState == nil {
			b.Process.Kill()
			b.Wait()
		}
	})
	return b
}

func (b *box) pipe() (r, w *os.File) {
	b.t.Helper()
	r, w, err := os.Pipe()
	require.NoError(b.t, err)
	require.NoError(b.t, r.SetReadDeadline(time.Now().Add(timeout)))
	b.t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// run starts a command by its candidates.
func run(t *testing.T, candidates, argv []string, opts ...option) *box {
	t.Helper()
	args, err := Args(3, candidates, argv)
	require.NoError(t, err)
	return newBox(t, args, opts...).begin()
}

// shell starts /bin/sh -c script.
func shell(t *testing.T, script string, opts ...option) *box {
	t.Helper()
	return run(t, []string{"/bin/sh"}, []string{"sh", "-c", script}, opts...)
}

// helper starts a function of this test binary (see TestMain).
func helper(t *testing.T, name string, opts ...option) *box {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return run(t, []string{self}, []string{"helper"}, append(opts, env(helperEnv+"="+name))...)
}

func env(kv ...string) option { return func(b *box) { b.Env = append(b.Environ(), kv...) } }

// record reads one record, which must be of the kind.
func (b *box) record(want Kind) int32 {
	b.t.Helper()
	rec, err := ReadRecord(b.report)
	require.NoError(b.t, err)
	require.Equal(b.t, want, rec.Kind, "value %d", rec.Value)
	return rec.Value
}

// line reads one line of output.
func (b *box) line() string {
	b.t.Helper()
	s, err := b.lines.ReadString('\n')
	require.NoError(b.t, err, "got %q", s)
	return strings.TrimSpace(s)
}

// end reads what is left of reports and output, and returns init's exit status.
func (b *box) end() (records []Record, output string, code int) {
	b.t.Helper()
	rest, err := io.ReadAll(b.lines)
	require.NoError(b.t, err)
	for {
		rec, err := ReadRecord(b.report)
		if err == io.EOF {
			break
		}
		require.NoError(b.t, err)
		records = append(records, rec)
	}
	var exit *exec.ExitError
	if err := b.Wait(); !errors.As(err, &exit) {
		require.NoError(b.t, err)
	}
	return records, string(rest), b.ProcessState.ExitCode()
}

// process is a line of /proc/PID/stat, of the test's own view of processes.
type process struct {
	pid, ppid, pgrp, session, tpgid int
	state                           string
}

func parseStat(line string) (process, bool) {
	first, rest, ok := strings.Cut(line, " (")
	end := strings.LastIndex(rest, ") ")
	if !ok || end < 0 {
		return process{}, false
	}
	f := strings.Fields(rest[end+2:])
	if len(f) < 6 {
		return process{}, false
	}
	n := func(s string) int { i, _ := strconv.Atoi(s); return i }
	return process{n(first), n(f[1]), n(f[2]), n(f[3]), n(f[5]), f[0]}, true
}

// children lists the processes whose parent is init, zombies too.
func (b *box) children() []process {
	var list []process
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		line, _ := os.ReadFile(path) // gone meanwhile: empty
		if p, ok := parseStat(string(line)); ok && p.ppid == b.Process.Pid {
			list = append(list, p)
		}
	}
	return list
}
