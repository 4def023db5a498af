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
		_, errs = learn("--")
		require.Contains(t, errs, "no command")
		_, errs = learn("-otherwise", "laugh", "--", "true")
		require.Contains(t, errs, "laugh")
		_, errs = learn("-names", "--", "false")
		require.Contains(t, errs, "exit status 1")
	})
}
