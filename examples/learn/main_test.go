//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/seccomp"
)

// TestMain makes the test binary be the program that is tested, when it has its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "learn" {
		main()
		return
	}
	os.Exit(m.Run())
}

// users runs the test as who runs it, and as nobody too if that is root.
func users(t *testing.T, f func(t *testing.T, learn func(args ...string) (stdout, stderr string))) {
	for name, uid := range map[string]int{"user": 65534, "own": os.Geteuid()} {
		if name == "user" && os.Geteuid() != 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/var/tmp", "caisson-learn")
			require.NoError(t, err)
			defer os.RemoveAll(dir)
			self, err := os.Executable()
			require.NoError(t, err)
			b, err := os.ReadFile(self)
			require.NoError(t, err)
			require.NoError(t, os.Chmod(dir, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "learn"), b, 0o755))
			f(t, func(args ...string) (string, string) {
				c := exec.CommandContext(t.Context(), filepath.Join(dir, "learn"), args...)
				c.Dir = "/"
				if uid != os.Geteuid() {
					c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
				}
				c.Stdin = strings.NewReader("first\nsecond\n")
				var out, errs bytes.Buffer
				c.Stdout, c.Stderr = &out, &errs
				if err := c.Run(); err != nil {
					errs.WriteString(err.Error())
				}
				return out.String(), errs.String()
			})
		})
	}
}

func TestLearn(t *testing.T) {
	users(t, func(t *testing.T, learn func(args ...string) (string, string)) {
		out, errs := learn("-args", "-otherwise", "kill process", "--", "cat", "/proc/sys/kernel/ostype")
		require.Empty(t, errs)
		text, found := strings.CutPrefix(out, "Linux\n")
		require.True(t, found, out)
		profile, err := seccomp.ParseProfile([]byte(text))
		require.NoError(t, err)
		policy, err := profile.Policy(seccomp.Target{})
		require.NoError(t, err)
		program, err := policy.Compile()
		require.NoError(t, err)
		for name, want := range map[string]seccomp.Action{"read": seccomp.Allow, "openat": seccomp.Allow, "mkdirat": seccomp.KillProcess} {
			nr, ok := seccomp.Native().Number(name)
			require.True(t, ok)
			require.Equal(t, want, program.Verdict(seccomp.Native(), nr), name)
		}
	})
}

func TestForms(t *testing.T) {
	users(t, func(t *testing.T, learn func(args ...string) (string, string)) {
		out, errs := learn("-names", "-runs", "2", "--", "true")
		require.Empty(t, errs)
		require.Contains(t, out, "mmap\n")
		require.NotContains(t, out, "mkdir")
		out, errs = learn("-go", "-init", "--", "true")
		require.Empty(t, errs)
		require.Contains(t, out, "seccomp.Policy{")
		require.Contains(t, out, `"rt_sigtimedwait"`)
		out, errs = learn("-check", "-o", "/dev/null", "-otherwise", "kill process", "--", "ls", "/proc/self/ns")
		require.Empty(t, errs)
		list := strings.Fields(out)
		require.Equal(t, list[:len(list)/2], list[len(list)/2:], "the second time under the profile")
		out, errs = learn("--", "true")
		require.Empty(t, errs)
		require.Contains(t, out, `"capset"`)
		out, errs = learn("-bare", "--", "true")
		require.Empty(t, errs)
		require.NotContains(t, out, `"capset"`)
		_, errs = learn("--")
		require.Contains(t, errs, "no command")
		_, errs = learn("-otherwise", "laugh", "--", "true")
		require.Contains(t, errs, "laugh")
		_, errs = learn("-names", "--", "false")
		require.Contains(t, errs, "exit status 1")
	})
}

// TestFiles: a command runs under the rules that were learned from it, and does what it did then, and nothing else.
func TestFiles(t *testing.T) {
	if lsm.LandlockABI() == 0 {
		t.Skip("the kernel has no Landlock, or it is not enabled")
	}
	users(t, func(t *testing.T, learn func(args ...string) (string, string)) {
		const does = `cat /etc/hostname /proc/self/status /etc/mtab >/dev/null; echo x >/tmp/new; mv /tmp/new /tmp/old; mkdir /tmp/d; ls /tmp; ls / >/dev/null; `
		const only = `read run; if test $run = second; then cat /etc/passwd; cat /etc/profile; fi 2>&1; `
		out, errs := learn("-files", "-check", "--", "sh", "-c", only+does)
		require.Empty(t, errs)
		for _, line := range []string{"read-only /etc/hostname", "read-only /proc", "read-write /tmp", "list /", "read-write /dev/null"} {
			require.Contains(t, out, "\n"+line+"\n")
		}
		require.NotContains(t, out, "read-only /etc/passwd")
		require.Contains(t, out, "execute /")
		require.Equal(t, 2, strings.Count(out, "Permission denied"), out)
		require.NotContains(t, out, "root:")
		require.True(t, strings.HasPrefix(out, "d\nold\n") && strings.HasSuffix(out, "\nd\nold\n"), "it does what it did: %s", out)
	})
}

// TestFileForms: Go source that stands for the same rules, wider ones, and what does not go together.
func TestFileForms(t *testing.T) {
	users(t, func(t *testing.T, learn func(args ...string) (string, string)) {
		out, errs := learn("-files", "-go", "--", "true")
		require.Empty(t, errs)
		require.Contains(t, out, "lsm.Landlock{\n\tlsm.Execute(\n")
		out, errs = learn("-files", "-fold", "0", "-runs", "2", "--", "cat", "/etc/hostname")
		require.Empty(t, errs)
		require.Contains(t, out, "read-only /etc\n")
		require.NotContains(t, out, "/etc/hostname")
		_, errs = learn("-files", "-args", "--", "true")
		require.Contains(t, errs, "not for -files")
	})
}

// TestInterpreter: the program that the kernel executes for another one.
func TestInterpreter(t *testing.T) {
	for text, want := range map[string]string{"#!/bin/sh\n": "/bin/sh", "#! \t/usr/bin/env python3\nx": "/usr/bin/env", "#!/a\t-x": "/a\t-x", "#!": "", "": "", "\x7fELF": "", "text": ""} {
		require.Equal(t, want, interpreter(strings.NewReader(text)), "%q", text)
	}
}
