package chroot_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// TestProcessesOutside: root inside without a user namespace writes to the host's files through /proc/PID/root of a process outside, wherever it finds
// a procfs that shows it. It finds none, unless the caller has put it there by name.
func TestProcessesOutside(t *testing.T) {
	inPrivateNamespace(t, func(t *testing.T) {
		outside, check := victim(t)
		host := t.TempDir() // with a procfs somewhere, as a build host has it in its chroots
		require.NoError(t, os.MkdirAll(filepath.Join(host, "build/proc"), 0o755))
		require.NoError(t, os.MkdirAll(filepath.Join(host, "build/deep/proc"), 0o755))
		for _, at := range []string{"build/proc", "build/deep/proc"} {
			mountProc(t, filepath.Join(host, at))
		}
		require.NoError(t, os.Symlink(host, host+"-link"))
		t.Cleanup(func() { os.Remove(host + "-link") })
		pivot, programs := rootfs(t)
		require.NoError(t, os.Mkdir(filepath.Join(pivot, "proc"), 0o755))
		mountProc(t, filepath.Join(pivot, "proc"))
		dir, err := os.Open(host)
		require.NoError(t, err)
		defer dir.Close()
		attack := fmt.Sprintf(`for d in "" %[3]s/build %[3]s/build/deep /x/build /x/build/deep /mnt/build /mnt/build/deep; do
			echo x 2>&- > $d/proc/%[1]d/root%[2]s/made && echo made by $d/proc; done; echo end`, os.Getpid(), outside, host)
		tmp := chroot.Tmpfs{Path: "/mnt"}
		for name, parts := range map[string][]plan.Primitive{
			"host":                {chroot.Host{}},
			"host with proc":      {chroot.Host{}, isolated, chroot.Proc{}},
			"proc before host":    {chroot.Proc{}, isolated, chroot.Host{}},
			"pivot":               programs,
			"pivot with proc":     append([]plan.Primitive{isolated, chroot.Proc{}}, programs...),
			"bind":                append([]plan.Primitive{chroot.Bind{Source: host, Target: "/x"}}, programs...),
			"bind by a link":      append([]plan.Primitive{chroot.Bind{Source: host + "-link", Target: "/x"}}, programs...),
			"bind of a file":      append([]plan.Primitive{chroot.Bind{File: dir, Target: "/x"}}, programs...),
			"covered, then shown": {chroot.Host{}, tmp, chroot.Tmpfs{Path: "/mnt/build/proc"}, chroot.Bind{Source: host, Target: "/mnt"}},
			"masked too":          {chroot.Host{}, chroot.Mask{"/proc", filepath.Join(host, "build/proc")}},
		} {
			require.Equal(t, "end\n", runWith(t, attack, parts...), name)
			check()
		}
		// What the host mounts, moves, renames and unmounts between plan and start.
		plans := map[string]*plan.Plan{"host": plan.Build(chroot.Host{}), "pivot": plan.Build(programs...), "file": plan.Build(append([]plan.Primitive{chroot.Bind{File: dir, Target: "/x"}}, programs...)...)}
		change := func(what string) {
			t.Helper()
			for name, p := range plans {
				require.NoError(t, p.Err())
				out, err := startPlan(t, attack, p)
				require.NoError(t, err, "%s: %s", what, name)
				require.Equal(t, "end\n", out, "%s: %s", what, name)
				check()
			}
		}
		change("nothing")
		require.NoError(t, os.MkdirAll(filepath.Join(host, "new/proc"), 0o755))
		attack = strings.Replace(attack, "/x/build ", "/new /other /x/new /x/other /x/later "+host+"/new "+host+"/other "+host+"/later "+pivot+"/more /x/build ", 1)
		mountProc(t, filepath.Join(host, "new/proc"))
		require.NoError(t, os.MkdirAll(filepath.Join(pivot, "new/proc"), 0o755))
		mountProc(t, filepath.Join(pivot, "new/proc"))
		change("mounted")
		require.NoError(t, os.Rename(filepath.Join(host, "build"), filepath.Join(host, "other")))
		change("renamed")
		require.NoError(t, os.MkdirAll(filepath.Join(host, "later/proc"), 0o755))
		require.NoError(t, unix.Mount(filepath.Join(host, "other/proc"), filepath.Join(host, "later/proc"), "", unix.MS_MOVE, ""))
		change("moved")
		require.NoError(t, unix.Unmount(filepath.Join(pivot, "proc"), 0))
		require.NoError(t, os.Rename(filepath.Join(pivot, "proc"), filepath.Join(pivot, "more")))
		change("unmounted")
		require.NoError(t, unix.Unmount(filepath.Join(host, "later/proc"), 0))
		require.NoError(t, os.Rename(filepath.Join(host, "other"), filepath.Join(host, "build")))
		mountProc(t, filepath.Join(host, "build/proc"))

		// The attack works where the caller asks for it.
		shown := []plan.Primitive{chroot.Host{}, chroot.Bind{Source: "/proc", Target: "/proc"}}
		require.Contains(t, runWith(t, attack, shown...), "made by /proc\n")
		require.NoError(t, os.Remove(filepath.Join(outside, "made")))
		require.Contains(t, runWith(t, "ls /proc", append(shown, chroot.Tmpfs{Path: host})...), fmt.Sprint(os.Getpid()))
	})
}

func mountProc(t *testing.T, at string) {
	t.Helper()
	require.NoError(t, unix.Mount("proc", at, "proc", unix.MS_RDONLY, ""))
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) }) // the test may have done so
}

// runWith is run without the namespaces of the other tests.
func runWith(t *testing.T, script string, parts ...plan.Primitive) string {
	t.Helper()
	out, err := startPlan(t, script, plan.Build(parts...))
	require.NoError(t, err)
	return out
}

// TestProcNeedsPIDs: a procfs that shows the processes of the host is refused, but not in a user namespace, where nobody outside may be traced.
func TestProcNeedsPIDs(t *testing.T) {
	late := func(flags uint64) plan.Primitive {
		return plan.Func(func(p *plan.Plan) error {
			p.Late(func() error { p.Clone(flags); return nil })
			return nil
		})
	}
	for _, root := range []plan.Primitive{chroot.Host{}, chroot.Pivot{Dir: "/srv"}} {
		err := plan.Build(root, chroot.Proc{}).Err()
		require.ErrorIs(t, err, syscall.EINVAL)
		require.ErrorContains(t, err, "namespaces.PID")
		require.NoError(t, plan.Build(root, chroot.Proc{}, more(unix.CLONE_NEWPID)).Err())
		require.NoError(t, plan.Build(root, chroot.Proc{}, late(unix.CLONE_NEWPID)).Err())
		require.NoError(t, plan.Build(root, chroot.Proc{}, late(unix.CLONE_NEWUSER)).Err())
	}
	user := plan.Build(chroot.Host{}, late(unix.CLONE_NEWUSER)).String()
	require.NotContains(t, user, "tmpfs", "nothing has to be covered")
	require.Equal(t, 1, strings.Count(plan.Build(chroot.Host{}).String(), `openat2($1, "proc", {O_PATH|O_CLOEXEC, RESOLVE_NO_MAGICLINKS|RESOLVE_NO_SYMLINKS}`))
}
