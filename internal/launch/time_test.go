package launch

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// TestTime: the command is in a new time namespace, or the start fails. It may not be in the host's in silence.
func TestTime(t *testing.T) {
	needRoot(t)
	own, err := os.Readlink("/proc/self/ns/time")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the kernel has no time namespaces")
	}
	require.NoError(t, err)
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			err := run(opt, clone(unix.CLONE_NEWTIME))
			if !kernelAtLeast(6, 2) {
				require.ErrorIs(t, err, errors.ErrUnsupported)
				return
			}
			require.NoError(t, err)
			out := output(t, opt, plan.Build(clone(unix.CLONE_NEWTIME)), "readlink /proc/self/ns/time")
			require.NotEqual(t, own, strings.TrimSpace(out))
		})
	}
}
