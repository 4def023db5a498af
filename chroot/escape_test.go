package chroot_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

const escapeEnv = "CAISSON_TEST_ESCAPE"

// TestMain makes the test binary the program that breaks out, too.
func TestMain(m *testing.M) {
	if mark := os.Getenv(escapeEnv); mark != "" {
		fmt.Println(escape(mark))
		os.Exit(0)
	}
	if where := os.Getenv(attackEnv); where != "" {
		attack(where)
		os.Exit(0)
	}
	if err := makeOlder(os.Getenv(olderEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// escape is the classic way out of chroot(2): the working directory stays where it is when the root is moved below it, and ".." ends at the
// root only.
func escape(mark string) string {
	if _, err := os.Stat(mark); err == nil {
		return "not inside"
	}
	os.Mkdir("/below", 0o755)
	if err := syscall.Chroot("/below"); err != nil {
		return err.Error()
	}
	for range 100 {
		if err := syscall.Chdir(".."); err != nil {
			return err.Error()
		}
	}
	if err := syscall.Chroot("."); err != nil {
		return err.Error()
	}
	if b, err := os.ReadFile(mark); err == nil {
		return "escaped: " + string(b)
	}
	return "confined"
}

// TestChrootIsNoIsolation: the same program, the same privileges, the same directory; only the call differs.
func TestChrootIsNoIsolation(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	require.NoError(t, os.WriteFile(mark, []byte("the host's"), 0o644))
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	for _, c := range []struct {
		root func(dir string) plan.Primitive
		want string
	}{
		{func(dir string) plan.Primitive { return chroot.Chroot{Dir: dir} }, "escaped: the host's\n"},
		{func(dir string) plan.Primitive { return chroot.Pivot{Dir: dir} }, "confined\n"},
	} {
		dir, parts := rootfs(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "prog"), self, 0o755))
		parts[0] = c.root(dir)
		out := run(t, escapeEnv+"="+mark+" /prog < /prog", append(parts, chroot.Proc{})...)
		first, _, _ := strings.Cut(out, "\n") // a build with -cover complains of its directory that is not there
		require.Equal(t, c.want, first+"\n")
	}
}

func TestChroot(t *testing.T) {
	dir, parts := rootfs(t)
	parts[0] = chroot.Chroot{Dir: dir}
	out := run(t, "pwd; ls -d /*; cat /tmp/f /proc/version; test -c /dev/null && echo null", append(parts, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"},
		chroot.File{Path: "/tmp/f", Data: []byte("x\n")}, chroot.Mask{"/proc/version"})...)
	require.True(t, strings.HasPrefix(out, "/\n"), out)
	require.NotContains(t, out, "/root\n")
	require.Contains(t, out, "x\nnull\n")
	require.NotContains(t, plan.Build(chroot.Chroot{Dir: dir}).String(), "CLONE_NEWNS", "the call alone makes no mount namespace")
	_, err := start(t, "true", chroot.Chroot{Dir: "/no/such"})
	require.ErrorIs(t, err, syscall.ENOENT)
	_, err = start(t, "true", chroot.Chroot{Dir: "/etc/passwd"})
	require.ErrorIs(t, err, syscall.ENOTDIR)
	require.ErrorIs(t, plan.Build(chroot.Chroot{}).Err(), syscall.EINVAL)
	require.ErrorIs(t, plan.Build(chroot.Chroot{Dir: "/"}, chroot.Host{}).Err(), syscall.EINVAL)
}
