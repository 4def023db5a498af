// The tests are in a package of their own: what they import would be initialised before package nofile otherwise.
package nofile_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/internal/nofile"
)

const helperName = "CAISSON_NOFILE_HELPER"

func TestMain(m *testing.M) {
	if how := os.Getenv(helperName); how != "" {
		helper(how)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper prints what Original gives, after a change by the program.
func helper(how string) {
	var change syscall.Rlimit
	if n, _ := fmt.Sscan(how, &change.Cur, &change.Max); n == 2 {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &change); err != nil {
			fmt.Println(err)
			return
		}
	}
	var now syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now)
	lim, changed := nofile.Original()
	fmt.Println(lim.Cur, lim.Max, changed, "now", now.Cur)
}

// under runs the helper as a program that was started with the limits.
func under(t *testing.T, soft, hard uint64, how string) string {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", fmt.Sprintf("ulimit -Sn %d && ulimit -Hn %d && exec /proc/%d/exe", soft, hard, os.Getpid()))
	c.Env = append(os.Environ(), helperName+"="+how)
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return strings.TrimSpace(string(out))
}

func TestOriginal(t *testing.T) {
	// The runtime has raised the soft limit, and the original is still known.
	require.Equal(t, "123 456 true now 455", under(t, 123, 456, "nothing"))
	// Nothing to raise.
	require.Equal(t, "456 456 false now 456", under(t, 456, 456, "nothing"))
}

func TestOwnLimitIsKept(t *testing.T) {
	require.Equal(t, "200 456 false now 200", under(t, 123, 456, "200 456"))
	require.Equal(t, "300 300 false now 300", under(t, 123, 456, "300 300"))
	require.Equal(t, "123 456 false now 123", under(t, 123, 456, "123 456"))
}
