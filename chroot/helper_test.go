package chroot_test

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

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

// rounds is how often a race is tried: n times; ten times as often where CAISSON_SLOW asks for a long run, but fewer
// in an emulated machine, which is up to 40 times slower.
func rounds(n int) int {
	switch {
	case os.Getenv("VMRUN") != "":
		return max(10, n/10)
	case os.Getenv("CAISSON_SLOW") != "":
		return 10 * n
	}
	return n
}

// deadlines of a race: when its rounds are enough, and when one that never succeeds has failed.
func deadlines() (enough, tooLong time.Time) {
	now := time.Now()
	if os.Getenv("CAISSON_SLOW") != "" && os.Getenv("VMRUN") == "" {
		return now.Add(time.Minute), now.Add(2 * time.Minute)
	}
	return now.Add(1500 * time.Millisecond), now.Add(20 * time.Second)
}
