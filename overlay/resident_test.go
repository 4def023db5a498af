package overlay_test

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// resident counts the pages of a mapping that are in memory (mincore(2)).
func resident(t *testing.T, m []byte) (n int) {
	t.Helper()
	vec := make([]byte, (len(m)+4095)/4096)
	_, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&vec[0])))
	require.Zero(t, e)
	for _, v := range vec {
		n += int(v & 1)
	}
	return n
}

// inPrivate calls f with a directory, in a mount namespace that is thrown away.
func inPrivate(t *testing.T, f func(dir string)) {
	t.Helper()
	dir, done := t.TempDir(), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
			return
		}
		f(dir)
	}()
	<-done
}
