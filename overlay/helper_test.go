package overlay_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caisson-dev/caisson/internal/launchtest"
	"github.com/stretchr/testify/require"
)

// The shell in a sandbox; see package launchtest.
var (
	withUser     = launchtest.WithUser
	start        = launchtest.Start
	run          = launchtest.Run
	pipes        = launchtest.Pipes
	startWaiting = launchtest.StartWaiting
	firstBytes   = launchtest.FirstBytes
)

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

// rounds is how often a race is tried: fewer times in an emulated machine, which is up to 40 times slower.
func rounds(n int) int {
	if os.Getenv("VMRUN") != "" {
		return max(10, n/10)
	}
	return n
}
