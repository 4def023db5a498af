package learn_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// soon ends what takes too long.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func sprint(v any) string { return fmt.Sprint(v) }

// asUser runs the test again as nobody, where this process is root.
func asUser(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	b, err := os.ReadFile(exe)
	require.NoError(t, err)
	name := filepath.Join(dir, "user.test")
	require.NoError(t, os.WriteFile(name, b, 0o755))
	c := exec.Command(name, "-test.run", "^"+t.Name()+"$", "-test.v")
	c.Dir = "/"
	c.Env = append(os.Environ(), "TMPDIR=/tmp")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) // os/exec leaves it cleared
	require.NoError(t, err, string(out))
	require.False(t, bytes.Contains(out, []byte("--- SKIP")), string(out))
}
