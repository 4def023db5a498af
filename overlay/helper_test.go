package overlay_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// isolated gives pid and ipc namespaces, and a user namespace where the test has no privilege.
var isolated = plan.Func(func(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWPID | unix.CLONE_NEWIPC)
	if os.Geteuid() == 0 {
		return nil
	}
	return withUser(p)
})

// withUser maps root inside to the caller.
func withUser(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWUSER)
	p.While(plan.Action{Name: "write id maps", Do: func(r *plan.Run) error {
		dir := "/proc/" + plan.Int(r.PID).String() + "/"
		for _, f := range [][2]string{{"setgroups", "deny"}, {"gid_map", "0 " + plan.Int(os.Getegid()).String() + " 1"},
			{"uid_map", "0 " + plan.Int(os.Geteuid()).String() + " 1"}} {
			if err := os.WriteFile(dir+f[0], []byte(f[1]), 0); err != nil {
				return err
			}
		}
		return nil
	}})
	return nil
}

func start(t *testing.T, script string, parts ...plan.Primitive) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd := &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Env: os.Environ(), Files: []*os.File{nil, w, w}}
	p, err := launch.Start(context.Background(), plan.Build(append([]plan.Primitive{isolated}, parts...)...), cmd, launch.Options{})
	w.Close()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	_, err = out.ReadFrom(r)
	require.NoError(t, err)
	var ws unix.WaitStatus
	_, err = unix.Wait4(p.PID, &ws, 0, nil)
	require.NoError(t, err)
	require.NoError(t, p.Release())
	return out.String(), nil
}

func run(t *testing.T, script string, parts ...plan.Primitive) string {
	t.Helper()
	out, err := start(t, script, parts...)
	require.NoError(t, err)
	return out
}

// asRoot skips where the caller cannot mount.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("needs root, this is user %d", os.Geteuid())
	}
}

// put writes files, by their name below dir.
func put(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for name, data := range files {
		at := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, []byte(data), 0o644))
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

type pipe struct{ r, w *os.File }

// pipes gives the standard input and output of a sandbox.
func pipes(t *testing.T) (in, out pipe) {
	t.Helper()
	for _, p := range []*pipe{&in, &out} {
		var err error
		p.r, p.w, err = os.Pipe()
		require.NoError(t, err)
		t.Cleanup(func() { p.r.Close(); p.w.Close() })
	}
	return in, out
}

// startWaiting starts a sandbox and gives what waits for its end.
func startWaiting(t *testing.T, in, out pipe, script string, parts ...plan.Primitive) (end func()) {
	t.Helper()
	cmd := &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}, Env: os.Environ(), Files: []*os.File{in.r, out.w, out.w}}
	p, err := launch.Start(context.Background(), plan.Build(append([]plan.Primitive{isolated}, parts...)...), cmd, launch.Options{})
	out.w.Close()
	require.NoError(t, err)
	return func() {
		var ws unix.WaitStatus
		_, err := unix.Wait4(p.PID, &ws, 0, nil)
		require.NoError(t, err)
		require.NoError(t, p.Release())
	}
}

func firstBytes(t *testing.T, out pipe, n int) string {
	t.Helper()
	b := make([]byte, n)
	_, err := io.ReadFull(out.r, b)
	require.NoError(t, err)
	return string(b)
}

// rounds is how often a race is tried: fewer times in an emulated machine, which is up to 40 times slower.
func rounds(n int) int {
	if os.Getenv("VMRUN") != "" {
		return max(10, n/10)
	}
	return n
}
