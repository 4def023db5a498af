//go:build linux

package initprog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestCommand(t *testing.T) {
	b := run(t, []string{"/bin/sh"}, []string{"sh", "-c", `echo "$0,$1,$2,$VAR"; echo err >&2`, "zero", "", "a b"}, env("VAR=x"))
	records, out, code := b.end()
	require.Equal(t, []Record{{Executed, 2}, {Ended, 0}}, records)
	require.Equal(t, "zero,,a b,x\nerr\n", out)
	require.Zero(t, code)
}

func TestArguments(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	argv := []string{"any name", "", "-x", "3", "a b", "\xff"}
	_, out, _ := run(t, []string{self}, argv, env(helperEnv+"=args")).end()
	require.Equal(t, fmt.Sprintf("%q\n", argv), out)
}

func TestExitCode(t *testing.T) {
	for _, want := range []int{1, 7, 125, 127, 128, 255} {
		records, _, code := shell(t, fmt.Sprint("exit ", want)).end()
		require.Equal(t, Record{Ended, int32(want) << 8}, records[1])
		require.Equal(t, want, code)
	}
}

func TestKilled(t *testing.T) {
	for _, sig := range []int{1, 2, 6, 9, 11, 15, 31, 40, 64} {
		records, _, code := shell(t, fmt.Sprintf("ulimit -c 0; kill -%d $$; sleep 60", sig), noNamespace).end()
		require.Equal(t, Ended, records[1].Kind)
		require.EqualValues(t, sig, records[1].Value&0x7f)
		require.Equal(t, 128+sig, code)
	}
}

// files makes one file for each way an exec can fail, and one that works.
func files(t *testing.T) (path func(name string) string) {
	t.Helper()
	dir := t.TempDir()
	path = func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(path("denied"), []byte("#!/bin/sh\nexit 1\n"), 0o644))
	require.NoError(t, os.WriteFile(path("text"), []byte("exit 2\n"), 0o755))
	require.NoError(t, os.WriteFile(path("empty"), nil, 0o755))
	require.NoError(t, os.Symlink("loop", path("loop")))
	require.NoError(t, os.Symlink("/bin/sh", path("sh")))
	require.NoError(t, os.WriteFile(path("lost"), []byte("#!/no/such/interpreter\n"), 0o755))
	return path
}

func TestCandidates(t *testing.T) {
	path := files(t)
	for _, c := range []struct {
		candidates string
		errno      unix.Errno // 0: executed
	}{
		{"sh", 0},
		{"absent", unix.ENOENT},
		{"lost", unix.ENOENT},
		{"text/x", unix.ENOTDIR},
		{"denied", unix.EACCES},
		{".", unix.EACCES},
		{"text", unix.ENOEXEC},
		{"empty", unix.ENOEXEC},
		{"loop", unix.ELOOP},
		{strings.Repeat("x", 256), unix.ENAMETOOLONG},
		{"absent text/x denied sh", 0},
		{"sh text", 0},
		{"denied absent", unix.EACCES},
		{"absent denied text/x", unix.EACCES},
		{"absent text/x", unix.ENOTDIR},
		{"absent text sh", unix.ENOEXEC},
		{"denied loop sh", unix.ELOOP},
	} {
		t.Run(c.candidates, func(t *testing.T) {
			var list []string
			for _, name := range strings.Fields(c.candidates) {
				list = append(list, path(name))
			}
			records, out, code := run(t, list, []string{"sh", "-c", "exit 3"}).end()
			require.Empty(t, out)
			if c.errno == 0 {
				require.Equal(t, []Record{{Executed, 2}, {Ended, 3 << 8}}, records)
				require.Equal(t, 3, code)
				return
			}
			require.Equal(t, []Record{{Failed, int32(c.errno)}}, records)
			require.Equal(t, 127, code)
		})
	}
}

func TestManyCandidates(t *testing.T) {
	list := append(slices.Repeat([]string{"/no/such"}, 1000), "/bin/sh")
	_, _, code := run(t, list, []string{"sh", "-c", "exit 4"}).end()
	require.Equal(t, 4, code)
}

// The first candidate that works is the one, whatever comes later.
func TestFirstCandidateWins(t *testing.T) {
	dir := t.TempDir()
	list := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	for i, p := range list {
		require.NoError(t, os.WriteFile(p, fmt.Appendf(nil, "#!/bin/sh\nexit %d\n", 10+i), 0o755))
	}
	_, _, code := run(t, list, []string{"x"}).end()
	require.Equal(t, 10, code)
}

func TestMalformed(t *testing.T) {
	for _, argv := range [][]string{
		{}, {""}, {"init"}, {"init", "3"}, {"init", "3", "1"}, {"init", "3", "1", "/bin/true"},
		{"init", "", "1", "/bin/true", "true"},
		{"init", "-1", "1", "/bin/true", "true"},
		{"init", "+3", "1", "/bin/true", "true"},
		{"init", " 3", "1", "/bin/true", "true"},
		{"init", "3 ", "1", "/bin/true", "true"},
		{"init", "0x3", "1", "/bin/true", "true"},
		{"init", "3x", "1", "/bin/true", "true"},
		{"init", "3/", "1", "/bin/true", "true"},
		{"init", "3:", "1", "/bin/true", "true"},
		{"init", "2147483648", "1", "/bin/true", "true"},
		{"init", "4294967299", "1", "/bin/true", "true"},
		{"init", "18446744073709551619", "1", "/bin/true", "true"},
		{"init", strings.Repeat("9", 4096), "1", "/bin/true", "true"},
		{"init", "99", "1", "/bin/true", "true"}, // not open
		{"init", "3", "0", "/bin/true", "true"},
		{"init", "3", "", "/bin/true", "true"},
		{"init", "3", "-1", "/bin/true", "true"},
		{"init", "3", "0x1", "/bin/true", "true"},
		{"init", "3", "2", "/bin/true", "true"},
		{"init", "3", "2147483647", "/bin/true", "true"},
		{"init", "3", "4294967297", "/bin/true", "true"},
	} {
		records, out, code := newBox(t, argv).begin().end()
		require.Equal(t, 125, code, "%q", argv)
		require.Empty(t, records, "%q", argv)
		require.Empty(t, out, "%q", argv)
	}
}

// TestOrphans makes 200 orphans that end when their standard input does.
func TestOrphans(t *testing.T) {
	for name, opts := range map[string][]option{"pid 1": nil, "subreaper": {noNamespace}} {
		t.Run(name, func(t *testing.T) { testOrphans(t, opts...) })
	}
}

func testOrphans(t *testing.T, opts ...option) {
	const orphans = 200
	gate, gateW, err := os.Pipe()
	require.NoError(t, err)
	defer gateW.Close()
	stop, stopW, err := os.Pipe()
	require.NoError(t, err)
	defer stopW.Close()
	script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do ( { read _ <&4; } & ); i=$((i+1)); done; echo made; read _ <&5; exit 6`, orphans)
	b := shell(t, script, append(opts, func(b *box) { b.ExtraFiles = []*os.File{gate, stop} })...)
	gate.Close()
	stop.Close()

	require.Equal(t, "made", b.line())
	b.record(Executed)
	adopted := func() int { return len(b.children()) - 1 }
	require.Eventually(t, func() bool { return adopted() == orphans }, timeout, time.Millisecond)
	require.NoError(t, gateW.Close())
	require.Eventually(t, func() bool { return adopted() == 0 }, timeout, time.Millisecond, "zombies")
	require.NoError(t, stopW.Close())
	records, _, code := b.end()
	require.Equal(t, []Record{{Ended, 6 << 8}}, records)
	require.Equal(t, 6, code)
}

// A command that makes orphans without end keeps neither signals nor its own end
// from being seen.
func TestOrphanStorm(t *testing.T) {
	b := shell(t, `trap 'exit 42' TERM; echo ready; while :; do ( : & ); done`)
	require.Equal(t, "ready", b.line())
	b.record(Executed)
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, b.Process.Signal(unix.SIGTERM))
	_, _, code := b.end()
	require.Equal(t, 42, code)
}

// What is left when the command ends is killed by the kernel: its pipe closes.
func TestNothingIsLeft(t *testing.T) {
	b := shell(t, `sleep 1000 & (trap '' TERM HUP; sleep 1000) & exit 5`)
	_, _, code := b.end() // waits for the end of the output
	require.Equal(t, 5, code)
}

func TestForward(t *testing.T) {
	for name, opts := range map[string][]option{"pid 1": nil, "not pid 1": {noNamespace}} {
		t.Run(name, func(t *testing.T) {
			b := helper(t, "signals", opts...)
			require.Equal(t, "ready", b.line())
			b.record(Executed)
			for _, sig := range forwarded {
				require.NoError(t, b.Process.Signal(sig))
				require.Equal(t, strconv.Itoa(int(sig)), b.line())
			}
			require.Contains(t, []string{"S", "R"}, b.state(), "init must not stop")
			// SIGCHLD is init's own. It would come first: the kernel hands out the lowest.
			require.NoError(t, b.Process.Signal(unix.SIGCHLD))
			require.NoError(t, b.Process.Signal(syscall.Signal(64)))
			_, out, code := b.end()
			require.Equal(t, "64\n", out)
			require.Zero(t, code)
		})
	}
}

// state is the letter of /proc/PID/stat.
func (b *box) state() string {
	b.t.Helper()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.Process.Pid))
	require.NoError(b.t, err)
	p, ok := parseStat(string(line))
	require.True(b.t, ok)
	return p.state
}

// A forwarded stop stops the command and not init, which then still forwards.
func TestForwardStop(t *testing.T) {
	b := run(t, []string{"/bin/sleep"}, []string{"sleep", "1000"})
	b.record(Executed)
	state := func(want string) func() bool {
		return func() bool { list := b.children(); return len(list) == 1 && list[0].state == want }
	}
	for range 3 {
		require.NoError(t, b.Process.Signal(unix.SIGTSTP))
		require.Eventually(t, state("T"), timeout, time.Millisecond)
		require.Contains(t, []string{"S", "R"}, b.state())
		require.NoError(t, b.Process.Signal(unix.SIGCONT))
		require.Eventually(t, state("S"), timeout, time.Millisecond)
	}
	require.NoError(t, b.Process.Signal(unix.SIGTERM))
	records, _, code := b.end()
	require.Equal(t, []Record{{Ended, 15}}, records)
	require.Equal(t, 143, code)
}

// SIGSTOP and SIGCONT from outside interrupt init's sleep.
func TestStoppedFromOutside(t *testing.T) {
	b := shell(t, `trap 'exit 8' USR1; echo ready; while :; do sleep 0.01; done`)
	require.Equal(t, "ready", b.line())
	require.NoError(t, b.Process.Signal(unix.SIGSTOP))
	require.Eventually(t, func() bool { return b.state() == "T" }, timeout, time.Millisecond)
	require.NoError(t, b.Process.Signal(unix.SIGUSR1))
	require.NoError(t, b.Process.Signal(unix.SIGCONT))
	_, _, code := b.end()
	require.Equal(t, 8, code)
}

func TestKilledFromOutside(t *testing.T) {
	b := run(t, []string{"/bin/sleep"}, []string{"sleep", "1000"})
	b.record(Executed)
	require.NoError(t, b.Process.Kill())
	records, _, _ := b.end()
	require.Empty(t, records)
	require.Equal(t, unix.SIGKILL, b.ProcessState.Sys().(syscall.WaitStatus).Signal())
}

// statusOf runs cat /proc/self/status, after inherit, directly or by init.
func statusOf(t *testing.T, byInit bool) map[string]string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cat := []string{"cat", "/proc/self/status"}
	b := newBox(t, nil, env(helperEnv+"=inherit"))
	become := append([]string{"/bin/cat"}, cat...)
	if byInit {
		args, err := Args(3, []string{"/bin/cat"}, cat)
		require.NoError(t, err)
		become = append([]string{b.Path}, args...)
	}
	high := highFd(t, b.Path)
	b.Path, b.Cmd.Args = self, append([]string{self}, become...)
	_, err = unix.FcntlInt(high, unix.F_SETFD, 0) // the helper executes it
	require.NoError(t, err)
	_, out, code := b.begin().end()
	require.Zero(t, code, out)
	fields := map[string]string{}
	for line := range strings.Lines(out) {
		if k, v, _ := strings.Cut(line, ":"); strings.HasPrefix(k, "Sig") || strings.HasPrefix(k, "Shd") {
			fields[k] = strings.TrimSpace(v)
		}
	}
	delete(fields, "SigQ") // a count of the user's pending signals
	return fields
}

func highFd(t *testing.T, path string) uintptr {
	t.Helper()
	n, err := strconv.Atoi(filepath.Base(path))
	require.NoError(t, err)
	return uintptr(n)
}

// The command has the mask and the dispositions that init was given, also where
// SIGCHLD is ignored, which init itself cannot live with.
func TestSignalState(t *testing.T) {
	got := statusOf(t, true)
	require.Equal(t, statusOf(t, false), got)
	bit := func(field string, sig int) bool {
		n, err := strconv.ParseUint(got[field], 16, 64)
		require.NoError(t, err)
		return n>>(sig-1)&1 == 1
	}
	for _, sig := range []int{10, 15, 42} {
		require.True(t, bit("SigBlk", sig), sig)
	}
	for _, sig := range []int{1, 12, 17, 20} {
		require.True(t, bit("SigIgn", sig), sig)
	}
	require.False(t, bit("SigBlk", 2))
	require.False(t, bit("SigIgn", 2))
}

// CVE-2024-21626: neither the report nor the program is among the command's
// descriptors. What the test itself was started with may be.
func TestDescriptors(t *testing.T) {
	const script = `n=0; while [ $n -lt 200 ]; do [ -e /proc/self/fd/$n ] && echo $n; n=$((n+1)); done`
	want, err := exec.Command("/bin/sh", "-c", "exec 3>&-; "+script+"; :").Output()
	require.NoError(t, err)
	b := shell(t, script)
	_, out, _ := b.end()
	require.Equal(t, string(want), out)
	require.NotContains(t, strings.Fields(out), "3")
	require.NotContains(t, strings.Fields(out), filepath.Base(b.Path))
}

// Without a reader of the reports the command runs as ever. In particular it does
// not get the SIGPIPE that init's write caused.
func TestNoReader(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer w.Close()
	require.NoError(t, r.Close())
	args, err := Args(4, []string{"/bin/sh"}, []string{"sh", "-c", "sleep 0.2; exit 9"})
	require.NoError(t, err)
	b := newBox(t, args, func(b *box) { b.ExtraFiles = []*os.File{w} }).begin()
	_, _, code := b.end()
	require.Equal(t, 9, code)
}

// init does not keep the command's output open.
func TestOutputEnds(t *testing.T) {
	stop, stopW, err := os.Pipe()
	require.NoError(t, err)
	defer stopW.Close()
	b := shell(t, `echo x; exec >&- 2>&-; read _ <&4; exit 3`, func(b *box) { b.ExtraFiles = []*os.File{stop} })
	stop.Close()
	out, err := io.ReadAll(b.lines) // while the command runs
	require.NoError(t, err)
	require.Equal(t, "x\n", string(out))
	require.Nil(t, b.ProcessState)
	require.NoError(t, stopW.Close())
	_, _, code := b.end()
	require.Equal(t, 3, code)
}

// The report may have any number, also a standard one.
func TestReportIsStandardError(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	args, err := Args(2, []string{"/bin/sh"}, []string{"sh", "-c", "[ ! -e /proc/self/fd/2 ]"})
	require.NoError(t, err)
	b := newBox(t, args, func(b *box) { b.Stdout, b.Stderr = os.Stdout, w }).begin()
	w.Close()
	require.NoError(t, b.Wait())
	for _, want := range []Record{{Executed, 2}, {Ended, 0}} {
		got, err := ReadRecord(r)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// stat prints the command's own /proc/self/stat without another process.
const stat = `read -r line < /proc/self/stat; echo "$line"; `

func (b *box) statLine() process {
	b.t.Helper()
	line := b.line()
	p, ok := parseStat(line)
	require.True(b.t, ok, line)
	return p
}

func TestProcessGroup(t *testing.T) {
	b := shell(t, stat)
	p := b.statLine()
	require.Equal(t, p.pid, p.pgrp)
	require.Equal(t, b.Process.Pid, p.ppid)
	b.end()
}

// init under a seccomp filter that kills at any call it does not name: the list in
// src/init.c is complete. The command is init once more, as the smallest program
// there is; without arguments it ends with 125.
func TestSystemCalls(t *testing.T) {
	source, err := os.ReadFile("src/init.c")
	require.NoError(t, err)
	_, list, ok := strings.Cut(string(source), "//   both ")
	require.True(t, ok)
	list, _, ok = strings.Cut(list, "// ioctl (")
	require.True(t, ok)
	for name := range initCalls {
		require.Regexp(t, `\b`+name+`\b`, list)
	}

	inner := filepath.Join(t.TempDir(), "init")
	require.NoError(t, os.WriteFile(inner, []byte(program), 0o755))
	self, err := os.Executable()
	require.NoError(t, err)
	for name, opts := range map[string][]option{"pid 1": nil, "subreaper": {noNamespace}} {
		t.Run(name, func(t *testing.T) {
			args, err := Args(3, []string{"/no/such", inner}, []string{"x"})
			require.NoError(t, err)
			b := newBox(t, nil, append(opts, env(helperEnv+"=seccomp"))...)
			b.Path, b.Cmd.Args = self, append([]string{self, inner}, args...)
			records, out, code := b.begin().end()
			require.Equal(t, 125, code, "%s %v", out, b.ProcessState)
			require.Len(t, records, 2)
			require.Equal(t, Record{Ended, 125 << 8}, records[1])
		})
	}
}

// The other name executes the command in its own place: same pid, no record but of a failure.
func TestExec(t *testing.T) {
	args, err := ExecArgs(3, []string{"/no/such", "/bin/sh"}, []string{"sh", "-c", "echo $$; exit 3"})
	require.NoError(t, err)
	records, out, code := newBox(t, args, noNamespace).begin().end()
	require.Equal(t, 3, code)
	require.Empty(t, records)
	require.NotEmpty(t, out)

	args, err = ExecArgs(3, []string{"/etc/passwd", "/no/such"}, []string{"x"})
	require.NoError(t, err)
	records, _, code = newBox(t, args, noNamespace).begin().end()
	require.Equal(t, 127, code)
	require.Equal(t, []Record{{Failed, int32(unix.EACCES)}}, records)
}

// As the launcher executes it: by descriptor, without a path. Nobody can write to
// what runs then (CVE-2019-5736).
func TestExecveat(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	args, err := Args(3, []string{"/bin/sleep"}, []string{"sleep", "1000"})
	require.NoError(t, err)
	b := newBox(t, nil, env(helperEnv+"=execveat"))
	high := highFd(t, b.Path)
	_, err = unix.FcntlInt(high, unix.F_SETFD, 0) // the helper executes it
	require.NoError(t, err)
	b.Path, b.Cmd.Args = self, append([]string{self, fmt.Sprint(high)}, args...)
	b.begin()
	b.record(Executed)

	exe := fmt.Sprintf("/proc/%d/exe", b.Process.Pid)
	link, err := os.Readlink(exe)
	require.NoError(t, err)
	require.Equal(t, "/memfd:caisson-init (deleted)", link)
	f, err := os.OpenFile(exe, os.O_RDWR, 0)
	if err == nil { // kernels that let a running file be opened for writing
		_, err = f.Write([]byte("#!"))
		f.Close()
	}
	require.Error(t, err)
	require.True(t, errors.Is(err, unix.ETXTBSY) || errors.Is(err, unix.EPERM), err)

	require.NoError(t, b.Process.Signal(unix.SIGTERM))
	_, _, code := b.end()
	require.Equal(t, 143, code)
}

// BenchmarkStart shows what init costs.
func BenchmarkStart(b *testing.B) {
	f, err := Open()
	require.NoError(b, err)
	defer f.Close()
	high, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 100)
	require.NoError(b, err)
	defer unix.Close(high)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(b, err)
	defer null.Close()
	args, err := Args(3, []string{"/bin/true"}, []string{"true"})
	require.NoError(b, err)
	bench := func(path string, args []string) func(*testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Cmd{Path: path, Args: args, ExtraFiles: []*os.File{null}, SysProcAttr: namespace()}
				require.NoError(b, cmd.Run())
			}
		}
	}
	b.Run("direct", bench("/bin/true", []string{"true"}))
	b.Run("init", bench(fmt.Sprintf("/proc/self/fd/%d", high), args))
}
