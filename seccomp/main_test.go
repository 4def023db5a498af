package seccomp

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// children are acts that cannot be undone: each runs in a process of its own. The error, if there is one, is printed, and the process
// ends with 1; with 77 where the kernel cannot do it.
var children = map[string]func() error{
	"docker": dockerInKernel, "all threads": allThreads, "thread conflict": threadConflict, "one thread": oneThread, "killed": killed,
	"access": access, "flags": everyFlag, "untrusted": untrustedInKernel, "small": smallInKernel,
	"int 0x80": interrupt, "other abis": otherABIs, "abis of the policy": ownABIs, "docker abis": dockerABIs,
}

const childVar = "CAISSON_SECCOMP_CHILD"

var errSkip = errors.New("skipped")

func TestMain(m *testing.M) {
	name := os.Getenv(childVar)
	if name == "" {
		os.Exit(m.Run())
	}
	err := children[name]()
	if err != nil {
		fmt.Println(err)
	}
	switch {
	case errors.Is(err, errSkip):
		os.Exit(77)
	case err != nil:
		os.Exit(1)
	}
	os.Exit(0)
}

// child runs one of the children and gives its end.
func child(t *testing.T, name string) (*os.ProcessState, string) {
	t.Helper()
	require.Contains(t, children, name)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVar+"="+name)
	out, err := cmd.CombinedOutput()
	if e := new(exec.ExitError); err != nil && !errors.As(err, &e) {
		require.NoError(t, err)
	}
	return cmd.ProcessState, string(out)
}

// good runs a child that must succeed.
func good(t *testing.T, name string) {
	t.Helper()
	state, out := child(t, name)
	if state.ExitCode() == 77 {
		t.Skip(out)
	}
	require.Truef(t, state.Success(), "%v\n%s", state, out)
}

// endedBy runs a child that the filter ends.
func endedBy(t *testing.T, name string) {
	t.Helper()
	state, out := child(t, name)
	if state.ExitCode() == 77 {
		t.Skip(out)
	}
	ws := state.Sys().(syscall.WaitStatus)
	require.Truef(t, ws.Signaled() && ws.Signal() == syscall.SIGSYS, "%v\n%s", state, out)
}
