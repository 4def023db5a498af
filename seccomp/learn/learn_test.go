package learn_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/learn"
)

// learned runs a script and gives what it did and what it printed.
func learned(t *testing.T, rec *learn.Recorder, script string, with ...plan.Primitive) string {
	t.Helper()
	out, err := caisson.New(append(with, learn.Calls{Into: rec})...).CommandContext(soon(t), "/bin/sh", "-c", script).CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

// under runs a script under a policy.
func under(t *testing.T, part plan.Primitive, script string, with ...plan.Primitive) (string, caisson.Result) {
	t.Helper()
	cmd := caisson.New(append(with, part)...).CommandContext(soon(t), "/bin/sh", "-c", script)
	out, err := cmd.CombinedOutput()
	var e *caisson.Error
	require.False(t, errors.As(err, &e), "%v", err)
	return string(out), cmd.Result()
}

// script waits for each of its commands: a shell does not bear that SIGCHLD interrupts it while it forks.
const script = `echo begin; for i in 1 2 3; do cat /proc/sys/kernel/ostype; done; ls / >/dev/null && echo end`

// TestRoundTrip: what was learned lets the same run, and kills what does something else.
func TestRoundTrip(t *testing.T) {
	asUser(t)
	own := namespaces.Set(0)
	if os.Geteuid() != 0 {
		own = namespaces.User
	}
	for name, with := range map[string][]plan.Primitive{
		"plain":     nil,
		"namespace": {own | namespaces.PID | namespaces.UTS},
		"init":      {own | namespaces.PID, caisson.Init{}},
	} {
		for _, arguments := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				rec := &learn.Recorder{Arguments: arguments}
				want := learned(t, rec, script, with...)
				p := rec.Profile()
				if name == "init" {
					p = p.WithInit()
				}
				require.NotContains(t, p.Names(), "mkdir")
				require.Contains(t, p.Names(), "write")
				filter := seccomp.New(p.Policy(seccomp.KillProcess))
				got, r := under(t, filter, script, with...)
				require.Equal(t, want, got, "%v", r)
				require.Equal(t, "begin\nLinux\nLinux\nLinux\nend\n", got)
				require.Zero(t, r.ExitCode)
				_, r = under(t, filter, "exec mkdir "+filepath.Join(t.TempDir(), "x"), with...)
				require.Equal(t, syscall.SIGSYS, r.Signal, "%v", r)
			})
		}
	}
}

// TestWithInit: what was learned without an init process runs under one.
func TestWithInit(t *testing.T) {
	with := []plan.Primitive{namespaces.PID, caisson.Init{}}
	if os.Geteuid() != 0 {
		with[0] = namespaces.PID | namespaces.User
	}
	for _, arguments := range []bool{false, true} {
		rec := &learn.Recorder{Arguments: arguments}
		want := learned(t, rec, script)
		out, r := under(t, seccomp.New(rec.Profile().WithInit().Policy(seccomp.KillProcess)), script, with...)
		require.Equal(t, want, out, "%v", r)
	}
}

// TestScript: a script is executed by way of another program in a root of its own; here it is the plain way.
func TestScript(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "script")
	require.NoError(t, os.WriteFile(name, []byte("#!/bin/sh\necho it runs\n"), 0o755))
	var rec learn.Recorder
	require.Equal(t, "it runs\n", learned(t, &rec, name))
	out, _ := under(t, seccomp.New(rec.Profile().Policy(seccomp.KillProcess)), name)
	require.Equal(t, "it runs\n", out)
}

// TestValues: of a multiplexer only the values that were used are allowed. The other family is one that neither a shell nor
// glibc uses on its own: a search for the user's name asks nscd by AF_UNIX.
func TestValues(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 to make sockets with")
	}
	use := func(family string) string {
		return python + ` -ISE -c 'import _socket; _socket.socket(_socket.` + family + `, 1); print("made")' 2>&1`
	}
	rec := &learn.Recorder{Arguments: true}
	learned(t, rec, use("AF_INET"))
	p := rec.Profile()
	var values []uint64
	for _, c := range p {
		if c.Name == "socket" {
			values = c.Values
		}
	}
	require.Contains(t, values, uint64(unix.AF_INET))
	for _, filter := range filters(t, p) {
		out, r := under(t, filter, use("AF_INET"))
		require.Equal(t, "made\n", out, "%v", r)
		out, _ = under(t, filter, use("AF_NETLINK"))
		require.Contains(t, out, "Operation not permitted")
	}
}

// filters are the policy itself, and what becomes of it by way of OCI's JSON.
func filters(t *testing.T, p learn.Profile) []plan.Primitive {
	t.Helper()
	oci, err := p.OCI(0)
	require.NoError(t, err)
	text, err := json.Marshal(oci)
	require.NoError(t, err)
	parsed, err := seccomp.ParseProfile(text)
	require.NoError(t, err, string(text))
	return []plan.Primitive{seccomp.New(p.Policy(0)), parsed.Filter(seccomp.Target{})}
}

func TestPlan(t *testing.T) {
	plantest.Check(t, learn.Calls{Into: new(learn.Recorder)})
	plantest.Check(t, learn.Calls{})
	require.ErrorIs(t, plan.Build(learn.Calls{}).Err(), syscall.EINVAL)
	require.Contains(t, plan.Build(learn.Calls{Into: new(learn.Recorder)}).String(), "SECCOMP_FILTER_FLAG_NEW_LISTENER")
}

func nr(t *testing.T, arch seccomp.Arch, name string) int {
	t.Helper()
	n, ok := arch.Number(name)
	require.True(t, ok)
	return n
}

// note makes a recorder that has seen the calls.
func note(t *testing.T, arguments bool, arch seccomp.Arch, calls map[string][]uint64) learn.Profile {
	t.Helper()
	rec := &learn.Recorder{Arguments: arguments}
	for name, values := range calls {
		for _, v := range values {
			args := [6]uint64{}
			args[learn.Multiplexed()[name]] = v
			require.NoError(t, rec.Note(arch, nr(t, arch, name), args))
		}
	}
	return rec.Profile()
}

func TestMerge(t *testing.T) {
	a := note(t, true, seccomp.X86_64, map[string][]uint64{"socket": {1, 2, 1}, "read": {0}})
	b := note(t, true, seccomp.X86_64, map[string][]uint64{"socket": {1<<40 | 10}, "prctl": {38}, "clone3": {0}})
	m := learn.Merge(a, b)
	require.Equal(t, m, learn.Merge(b, a))
	require.Equal(t, m, learn.Merge(m, m, a))
	require.Equal(t, []string{"clone3", "prctl", "read", "socket"}, m.Names())
	require.Equal(t, []uint64{1, 2, 10}, m[3].Values, "the upper half of an int is nobody's")
	require.Equal(t, []uint64{1, 2}, a[1].Values, "Merge changes what it was given")
	names := note(t, false, seccomp.X86_64, map[string][]uint64{"socket": {1}})
	require.Nil(t, learn.Merge(m, names)[3].Values)
	require.Empty(t, learn.Merge())
	require.Equal(t, []seccomp.Arch{seccomp.Native()}, learn.Profile{}.Arches())
}

// TestVerdicts: the policy says yes to what was seen and no to all else, in each architecture.
func TestVerdicts(t *testing.T) {
	p := learn.Merge(
		note(t, true, seccomp.X86_64, map[string][]uint64{"socket": {unix.AF_INET}, "read": {0}, "clone": {unix.CLONE_VM | 17}, "clone3": {0}}),
		note(t, true, seccomp.ARM64, map[string][]uint64{"socket": {unix.AF_UNIX}, "write": {0}}))
	program, err := p.Policy(seccomp.KillProcess).Compile()
	require.NoError(t, err)
	verdict := func(a seccomp.Arch, name string, args ...uint64) seccomp.Action {
		return program.Verdict(a, nr(t, a, name), args...)
	}
	require.Equal(t, seccomp.Allow, verdict(seccomp.X86_64, "socket", unix.AF_INET))
	require.Equal(t, seccomp.Allow, verdict(seccomp.X86_64, "socket", 7<<32|unix.AF_INET))
	require.Equal(t, seccomp.KillProcess, verdict(seccomp.X86_64, "socket", unix.AF_UNIX))
	require.Equal(t, seccomp.Allow, verdict(seccomp.ARM64, "socket", unix.AF_UNIX))
	require.Equal(t, seccomp.KillProcess, verdict(seccomp.ARM64, "socket", unix.AF_INET))
	require.Equal(t, seccomp.Allow, verdict(seccomp.X86_64, "clone", unix.CLONE_THREAD))
	require.Equal(t, seccomp.KillProcess, verdict(seccomp.X86_64, "clone", unix.CLONE_NEWUSER))
	require.Equal(t, seccomp.Errno(syscall.ENOSYS), verdict(seccomp.X86_64, "clone3"))
	require.Equal(t, seccomp.KillProcess, verdict(seccomp.X86_64, "write"))
	require.Equal(t, seccomp.Allow, verdict(seccomp.ARM64, "write"))
	for _, name := range []string{"execve", "exit_group", "rt_sigreturn", "restart_syscall"} {
		require.Equal(t, seccomp.Allow, verdict(seccomp.X86_64, name))
	}
	require.Equal(t, seccomp.KillProcess, verdict(seccomp.I386, "read"))
	zero, err := learn.Profile{}.Policy(0).Compile()
	require.NoError(t, err)
	require.Equal(t, seccomp.Errno(syscall.EPERM), zero.Verdict(seccomp.Native(), nr(t, seccomp.Native(), "read")))
}

// TestManyValues: an argument with very many values is not told apart.
func TestManyValues(t *testing.T) {
	var values []uint64
	for v := range uint64(65) {
		values = append(values, v)
	}
	require.Nil(t, note(t, true, seccomp.X86_64, map[string][]uint64{"ioctl": values})[0].Values)
	require.Len(t, note(t, true, seccomp.X86_64, map[string][]uint64{"ioctl": values[:64]})[0].Values, 64)
}

// TestS390: clone has its flags elsewhere.
func TestS390(t *testing.T) {
	rec := &learn.Recorder{Arguments: true}
	require.NoError(t, rec.Note(seccomp.S390X, nr(t, seccomp.S390X, "clone"), [6]uint64{unix.CLONE_NEWNET, 17}))
	program, err := rec.Profile().Policy(seccomp.KillProcess).Compile()
	require.NoError(t, err)
	clone := nr(t, seccomp.S390X, "clone")
	require.Equal(t, seccomp.Allow, program.Verdict(seccomp.S390X, clone, unix.CLONE_NEWUSER, 0))
	require.Equal(t, seccomp.KillProcess, program.Verdict(seccomp.S390X, clone, 0, unix.CLONE_NEWUSER))
}

func TestUnknown(t *testing.T) {
	var rec learn.Recorder
	require.ErrorIs(t, rec.Note(0, 1, [6]uint64{}), errors.ErrUnsupported)
	require.NoError(t, rec.Note(seccomp.X86_64, 100000, [6]uint64{}))
	p := rec.Profile()
	program, err := p.Policy(0).Compile()
	require.NoError(t, err)
	require.Equal(t, seccomp.Allow, program.Verdict(seccomp.X86_64, 100000))
	_, err = p.OCI(0)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	for _, bad := range []seccomp.Action{seccomp.Allow, seccomp.Notify} {
		_, err = learn.Profile{}.OCI(bad)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}

// TestGo: the source is what it was made from.
func TestGo(t *testing.T) {
	p := note(t, true, seccomp.X86_64, map[string][]uint64{"socket": {unix.AF_INET, 1}, "read": {0}, "clone": {17}, "clone3": {0}})
	p = learn.Merge(p, learn.Profile{{Arch: seccomp.ARM64, Number: 100000}})
	text := p.Go(seccomp.Errno(syscall.EACCES))
	for _, want := range []string{"seccomp.Policy{", "Default: seccomp.Errno(13)", "seccomp.Arg(0).Equal(0x1)", "seccomp.Arg(0).Masked(0x7e020000, 0x0)",
		"[]int{100000}", "seccomp.ARM64", `"execve"`} {
		require.Contains(t, text, want)
	}
	if os.Getenv("CAISSON_SLOW") != "" {
		t.Skip("CAISSON_SLOW is set, as where the machine is emulated: compiling takes minutes there, and depends on no kernel")
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("there is no go command to compile the source with")
	}
	program, err := p.Policy(seccomp.Errno(syscall.EACCES)).Compile()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "main.go")
	require.NoError(t, os.WriteFile(file, []byte("package main\n\nimport (\n\"fmt\"\n\n\"github.com/caisson-dev/caisson/seccomp\"\n)\n\nfunc main() {\np, err := "+text+
		".Compile()\nfmt.Print(p.SockFilter(), err)\n}\n"), 0o600))
	cmd := exec.CommandContext(t.Context(), tool, "run", file)
	cmd.Dir = "../.."
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, strings.TrimSuffix(sprint(program.SockFilter()), "\n")+" <nil>", string(out))
}

func TestReadAudit(t *testing.T) {
	log := `type=SECCOMP msg=audit(1700000000.123:42): auid=0 uid=0 gid=0 ses=1 pid=17 comm="x" exe="/bin/x" sig=0 arch=c000003e syscall=41 compat=0 ip=0x7f code=0x7ffc0000
audit: type=1326 audit(1700000000.124:43): auid=0 uid=0 gid=0 ses=1 pid=18 comm="x" exe="/bin/x" sig=0 arch=40000003 syscall=3 compat=1 ip=0x7f code=0x7ffc0000
type=SYSCALL msg=audit(1700000000.123:42): arch=c000003e syscall=999
`
	p, err := learn.ReadAudit(strings.NewReader(log), 0)
	require.NoError(t, err)
	require.Equal(t, []string{"read", "socket"}, p.Names())
	require.Equal(t, seccomp.I386, p[1].Arch)
	p, err = learn.ReadAudit(strings.NewReader(log), 17)
	require.NoError(t, err)
	require.Equal(t, []string{"socket"}, p.Names())
	for _, bad := range []string{"type=SECCOMP x", "type=1326 arch=c000003e", "type=1326 arch=c000003e syscall=-1", "type=1326 arch=1 syscall=1"} {
		_, err = learn.ReadAudit(strings.NewReader("\n"+bad), 0)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.ErrorContains(t, err, "line 2")
	}
}

// FuzzReadAudit: whatever stands in a log, what is read from it can be compiled and printed.
func FuzzReadAudit(f *testing.F) {
	f.Add("type=1326 arch=c000003e syscall=41")
	f.Add("type=SECCOMP arch=40000003 syscall=3 pid=9")
	f.Add("type=1326 arch=c000003e syscall=1073741824")
	f.Fuzz(func(t *testing.T, log string) {
		p, err := learn.ReadAudit(strings.NewReader(log), 0)
		if err != nil {
			return
		}
		if _, err := p.Policy(0).Compile(); err != nil {
			t.Errorf("%v: %v", p, err)
		}
		p.Go(0)
	})
}
