package lsm_test

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
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

// isolated gives a mount, pid and, where the test has no privilege, a user namespace.
func isolated(p *plan.Plan) error {
	p.Clone(unix.CLONE_NEWPID | unix.CLONE_NEWIPC)
	if os.Geteuid() == 0 {
		return nil
	}
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
