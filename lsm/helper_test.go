package lsm_test

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/internal/launchtest"
	"github.com/caisson-dev/caisson/plan"
)

// start starts a shell with the script and gives what it printed.
func start(t *testing.T, script string, parts ...plan.Primitive) (string, error) {
	t.Helper()
	return startCommand(t, shell(script), parts...)
}

func shell(script string) *plan.Command {
	return &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", script}}
}

func startCommand(t *testing.T, cmd *plan.Command, parts ...plan.Primitive) (string, error) {
	t.Helper()
	return startWith(t, launch.Options{}, cmd, parts...)
}

func startWith(t *testing.T, opt launch.Options, cmd *plan.Command, parts ...plan.Primitive) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd.Env, cmd.Files = os.Environ(), []*os.File{w, w, w} // a program of Go's wants a standard input
	p, err := launch.Start(context.Background(), plan.Build(parts...), cmd, opt)
	w.Close()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	_, err = out.ReadFrom(r)
	require.NoError(t, err)
	_, err = unix.Wait4(p.PID, nil, 0, nil)
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

// isolated gives pid and ipc namespaces and, where the test has no privilege, a user namespace.
func isolated(p *plan.Plan) error { return launchtest.Isolated.Apply(p) }
