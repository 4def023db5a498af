package lsm

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// launchSimulated starts a command by a plan of a simulated host, and ends it.
func launchSimulated(t *testing.T, parts ...plan.Primitive) (*launch.Process, error) {
	t.Helper()
	cmd := &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "100"}, Files: []*os.File{nil, nil, nil}}
	p, err := launch.Start(context.Background(), plan.Build(parts...), cmd, launch.Options{})
	if err != nil {
		return nil, err
	}
	require.NoError(t, unix.Kill(p.PID, unix.SIGKILL))
	_, err = unix.Wait4(p.PID, nil, 0, nil)
	require.NoError(t, err)
	return p, p.Release()
}
