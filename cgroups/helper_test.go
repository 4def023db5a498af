package cgroups

import (
	"fmt"
	osexec "os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// exec runs a shell command in the group.
func exec(t *testing.T, g *Group, script string) *osexec.Cmd {
	t.Helper()
	cmd := osexec.Command("sh", "-c", "read x; "+script)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	require.NoError(t, g.Add(cmd.Process.Pid))
	fmt.Fprintln(in)
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}
