package overlay_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/overlay"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
)

// whole is a sandbox with all that untrusted code should have.
func whole(t *testing.T, root plan.Primitive, set namespaces.Set) caisson.Sandbox {
	t.Helper()
	return caisson.New(set|namespaces.PID|namespaces.Mount|namespaces.Net|namespaces.IPC|namespaces.UTS, root).
		With(programs(t)...).With(chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"}, chroot.DockerMasks(), chroot.DockerReadOnly(), caps.Drop(caps.All), seccomp.DockerDefault())
}

// TestWhole: with a user namespace, without capabilities and under a filter, by the library's own door; a further command finds the same root.
func TestWhole(t *testing.T) {
	needsScratch(t)
	layer := put(t, t.TempDir(), map[string]string{"f": "layer"})
	for name, set := range map[string]namespaces.Set{"with a user namespace": namespaces.User, "without": 0} {
		if set == 0 && os.Geteuid() != 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			cmd := whole(t, overlay.Root{Lower: []string{layer}}, set).Command("sh", "-c", "cat /f; rm /f; echo x > /new; ls /f 2>&1; echo; read x")
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			err = cmd.Start()
			if err != nil && strings.Contains(err.Error(), "Linux 6.6") {
				t.Skipf("%v", err)
			}
			require.NoError(t, err)
			text := make([]byte, 4096)
			said := ""
			for !strings.HasSuffix(said, "\n\n") {
				n, err := out.Read(text)
				require.NoError(t, err)
				said += string(text[:n])
			}
			require.Regexp(t, "^layerls: .*No such file", said)
			in.Close()
			require.Error(t, cmd.Wait(), "read finds the end of its input")
			require.FileExists(t, layer+"/f")
		})
	}
}

// TestManyAtOnce: many sandboxes from one stack at the same time, each with what it has written itself.
func TestManyAtOnce(t *testing.T) {
	needsScratch(t)
	layer := put(t, t.TempDir(), map[string]string{"f": "layer"})
	box := whole(t, overlay.Root{Lower: []string{layer}}, namespaces.User)
	if _, err := box.Command("true").Output(); err != nil && strings.Contains(err.Error(), "Linux 6.6") {
		t.Skipf("%v", err)
	}
	var wg sync.WaitGroup
	failed := make(chan string, 40)
	for i := range 40 {
		wg.Go(func() {
			out, err := box.Command("sh", "-c", fmt.Sprintf("cat f; echo %d > own; cat own", i)).CombinedOutput()
			if want := fmt.Sprintf("layer%d\n", i); err != nil || string(out) != want {
				failed <- fmt.Sprintf("%q %v", out, err)
			}
		})
	}
	wg.Wait()
	close(failed)
	for f := range failed {
		t.Error(f)
	}
}

// TestFreezeDiskFull: a layer is complete or absent.
func TestFreezeDiskFull(t *testing.T) {
	asRoot(t)
	upper := put(t, t.TempDir(), map[string]string{"a": "x", "b": strings.Repeat("x", 4<<20)})
	inPrivate(t, func(dir string) {
		require.NoError(t, unix.Mount("none", dir, "tmpfs", 0, "size=1m"))
		require.ErrorIs(t, overlay.Freeze(upper, dir+"/layer"), syscall.ENOSPC)
		left, err := filepath.Glob(dir + "/*")
		require.NoError(t, err)
		require.Empty(t, left)
	})
}
