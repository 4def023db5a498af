package seccomp_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
	"github.com/caisson-dev/caisson/seccomp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// filter allows all but what the rules say.
func filter(rules ...seccomp.Rule) seccomp.Filter {
	return seccomp.New(seccomp.Policy{Default: seccomp.Allow, Rules: rules})
}

func refuse(names ...string) seccomp.Rule {
	return seccomp.Rule{Names: names, Action: seccomp.Errno(syscall.EPERM)}
}

// start runs a program of the machine and gives its output and wait status.
func start(t *testing.T, argv []string, parts ...plan.Primitive) (string, unix.WaitStatus, error) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd := &plan.Command{Candidates: argv[:1], Args: argv, Env: os.Environ(), Files: []*os.File{nil, w, w}}
	p := plan.Build(parts...)
	cmd.Init = p.Has(plan.InitProg)
	proc, err := launch.Start(context.Background(), p, cmd, launch.Options{})
	w.Close()
	if err != nil {
		return "", 0, err
	}
	var out bytes.Buffer
	_, err = out.ReadFrom(r)
	require.NoError(t, err)
	var ws unix.WaitStatus
	_, err = unix.Wait4(proc.PID, &ws, 0, nil)
	require.NoError(t, err)
	require.NoError(t, proc.Release())
	return out.String(), ws, nil
}

func shell(t *testing.T, script string, parts ...plan.Primitive) (string, unix.WaitStatus) {
	t.Helper()
	out, ws, err := start(t, []string{"/bin/sh", "-c", script}, parts...)
	require.NoError(t, err)
	return out, ws
}

func TestFilterInChild(t *testing.T) {
	t.Run("refuses", func(t *testing.T) {
		out, _ := shell(t, "mkdir /tmp/seccomp-never || echo refused", filter(refuse("mkdir", "mkdirat")))
		require.Contains(t, out, "Operation not permitted")
		require.NoDirExists(t, "/tmp/seccomp-never")
	})
	t.Run("ends the command", func(t *testing.T) {
		_, ws := shell(t, "exec mkdir /tmp/seccomp-never", filter(seccomp.Rule{Names: []string{"mkdir", "mkdirat"}, Action: seccomp.KillProcess}))
		require.True(t, ws.Signaled() && ws.Signal() == unix.SIGSYS, ws)
	})
	t.Run("sets no_new_privs", func(t *testing.T) {
		out, _ := shell(t, "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", filter())
		require.Equal(t, "NoNewPrivs:\t1\nSeccomp:\t2\n", out)
	})
	t.Run("Docker's default runs a shell", func(t *testing.T) {
		out, ws := shell(t, "echo $((6*7)); unshare -U true 2>/dev/null || echo no namespace", seccomp.DockerDefault())
		require.Equal(t, "42\nno namespace\n", out)
		require.Zero(t, ws.ExitStatus())
	})
	t.Run("the policy for untrusted code runs a shell", func(t *testing.T) {
		out, ws := shell(t, "echo hello | sed s/hello/42/; ls / >/dev/null && (sleep 0.01 & wait)", seccomp.New(seccomp.Untrusted()))
		require.Equal(t, "42\n", out)
		require.Zero(t, ws.ExitStatus())
	})
	t.Run("a script", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "script")
		require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\necho script\n"), 0o755))
		out, _, err := start(t, []string{script}, seccomp.DockerDefault())
		require.NoError(t, err)
		require.Equal(t, "script\n", out)
	})
	t.Run("two filters", func(t *testing.T) {
		out, _ := shell(t, "mkdir /tmp/seccomp-never; umask", filter(refuse("mkdir", "mkdirat")), seccomp.DockerDefault())
		require.Contains(t, out, "Operation not permitted")
	})
}

// TestWithoutNoNewPrivs needs a right, and says so without it.
func TestWithoutNoNewPrivs(t *testing.T) {
	f := filter(refuse("mkdir"))
	f.AllowNewPrivileges = true
	out, _, err := start(t, []string{"/bin/sh", "-c", "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status"}, f)
	if os.Geteuid() == 0 {
		require.NoError(t, err)
		require.Equal(t, "NoNewPrivs:\t0\nSeccomp:\t2\n", out)
		return
	}
	require.ErrorIs(t, err, syscall.EACCES)
	e := new(plan.Error)
	require.ErrorAs(t, err, &e)
	require.Equal(t, "seccomp.Filter", e.Primitive)
	require.Contains(t, e.Hint, "CAP_SYS_ADMIN")
}

// TestLauncherSurvives: filters that would end, or hold up, the start are refused before anything is done.
func TestLauncherSurvives(t *testing.T) {
	kill := func(names ...string) seccomp.Rule { return seccomp.Rule{Names: names, Action: seccomp.KillProcess} }
	init := plan.Func(func(p *plan.Plan) error { return p.Claim(plan.InitProg) })
	admin := plan.Func(func(p *plan.Plan) error { return p.Claim(plan.Caps) })
	privileged := filter(kill("capset"))
	privileged.AllowNewPrivileges = true
	for name, c := range map[string]struct {
		call  string
		parts []plan.Primitive
	}{
		"execve":                 {"execve", []plan.Primitive{filter(kill("execve"))}},
		"execve with conditions": {"execve", []plan.Primitive{filter(seccomp.Rule{Names: []string{"execve"}, Action: seccomp.Errno(1), When: seccomp.Arg(1).In(0)})}},
		"execve answers nothing": {"execve", []plan.Primitive{filter(seccomp.Rule{Names: []string{"execve"}, Action: seccomp.Errno(0)})}},
		"exit_group":             {"exit_group", []plan.Primitive{filter(refuse("exit_group"))}},
		"nothing is allowed":     {"execve", []plan.Primitive{seccomp.New(seccomp.Policy{})}},
		"another architecture":   {"execve", []plan.Primitive{seccomp.New(seccomp.Policy{Default: seccomp.Allow, Arches: []seccomp.Arch{seccomp.S390X}})}},
		"init":                   {"wait4", []plan.Primitive{filter(refuse("wait4")), init}},
		"init, its clone":        {"clone", []plan.Primitive{init, filter(seccomp.Rule{Names: []string{"clone"}, Action: seccomp.Errno(1), When: seccomp.Any{{seccomp.Arg(0).HasAny(unix.CLONE_VM)}}})}},
		"init, ended":            {"setpgid", []plan.Primitive{init, filter(kill("setpgid"))}},
		"capset":                 {"capset", []plan.Primitive{privileged, admin}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "another architecture" && seccomp.Native() == seccomp.S390X {
				t.Skip("this is that architecture")
			}
			p := plan.Build(c.parts...)
			e := new(seccomp.LaunchError)
			require.ErrorAs(t, p.Err(), &e)
			require.Equal(t, c.call, e.Call)
			require.ErrorIs(t, p.Err(), syscall.EINVAL)
		})
	}
	require.NoError(t, plan.Build(filter(kill("exit_group"))).Err())
	require.NoError(t, plan.Build(filter(refuse("setpgid")), init).Err())
	require.NoError(t, plan.Build(seccomp.DockerDefault(), init).Err())
	require.NoError(t, plan.Build(seccomp.New(seccomp.Untrusted()), init).Err())
}

func TestFilterRefuses(t *testing.T) {
	notify := filter(seccomp.Rule{Names: []string{"mkdir"}, Action: seccomp.Notify})
	require.ErrorIs(t, plan.Build(notify).Err(), errors.ErrUnsupported)
	require.ErrorIs(t, notify.Install(), errors.ErrUnsupported)
	waiting := filter()
	waiting.Flags = seccomp.WaitKillable
	require.ErrorIs(t, plan.Build(waiting).Err(), syscall.EINVAL)
	require.ErrorIs(t, plan.Build(seccomp.Filter{}).Err(), syscall.EINVAL)
	require.ErrorIs(t, seccomp.Filter{}.InstallThread(), syscall.EINVAL)
	require.ErrorIs(t, plan.Build(filter(refuse("seccomp")), filter()).Err(), syscall.EINVAL)
	require.NoError(t, plan.Build(filter(), filter(refuse("seccomp"))).Err())
	wrong := seccomp.New(seccomp.Policy{Rules: []seccomp.Rule{{Names: []string{"no such call"}, Action: seccomp.Allow}}})
	require.ErrorAs(t, plan.Build(wrong).Err(), new(*seccomp.NameError))
	unknown := filter()
	unknown.Flags = 1 << 30
	_, _, err := start(t, []string{"/bin/true"}, unknown)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "0x40000000")
}

func TestPlan(t *testing.T) {
	logging := filter(refuse("mkdir"))
	logging.Flags = seccomp.LogRefused
	for name, part := range map[string]plan.Primitive{"docker": seccomp.DockerDefault(), "flags": logging, "bad": seccomp.Filter{},
		"untrusted": seccomp.New(seccomp.Untrusted())} {
		t.Run(name, func(t *testing.T) { plantest.Check(t, part) })
	}
	logging.AllowNewPrivileges = true
	text := ours(plan.Build(filter(refuse("mkdir")), logging).String())
	golden := "testdata/plan.golden"
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(text), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	if seccomp.Native() == seccomp.X86_64 { // the number of instructions depends on the architecture
		require.Equal(t, string(want), text)
	}
	require.Equal(t, 2, strings.Count(text, "SECCOMP_SET_MODE_FILTER"))
}

// ours are the lines of a plan that come of filters, without numbers: the launcher's own differ with the limits of the machine.
func ours(text string) (lines string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, "# seccomp.") || strings.Contains(line, "NO_NEW_PRIVS") {
			lines += strings.TrimLeft(line, " 0123456789")
		}
	}
	return lines
}
