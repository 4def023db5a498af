//go:build linux

package initprog

import (
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestOpenIsSealed(t *testing.T) {
	f := mustOpen(t)
	defer f.Close()

	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	require.NoError(t, err)
	const want = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	require.Equal(t, want, seals&want)

	_, err = f.WriteAt([]byte{0}, 0)
	require.ErrorIs(t, err, unix.EPERM)
	_, err = f.WriteAt([]byte{0}, int64(len(program)))
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorIs(t, f.Truncate(0), unix.EPERM)
	require.ErrorIs(t, f.Truncate(1<<20), unix.EPERM)
	_, err = unix.Mmap(int(f.Fd()), 0, len(program), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.ErrorIs(t, err, unix.EPERM)
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE)
	require.ErrorIs(t, err, unix.EPERM)
	if seals&unix.F_SEAL_EXEC != 0 {
		require.ErrorIs(t, unix.Fchmod(int(f.Fd()), 0), unix.EPERM)
	}
}

// The attack of CVE-2019-5736: a second descriptor, opened for writing by way of
// /proc. The seals are the file's, not the descriptor's.
func TestOpenIsSealedForOthers(t *testing.T) {
	f := mustOpen(t)
	defer f.Close()
	again, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDWR, 0)
	require.NoError(t, err)
	defer again.Close()
	_, err = again.WriteString("#!")
	require.ErrorIs(t, err, unix.EPERM)
	_, err = os.OpenFile(again.Name(), os.O_RDWR|os.O_TRUNC, 0)
	require.ErrorIs(t, err, unix.EPERM)
	got, err := io.ReadAll(again)
	require.NoError(t, err)
	require.Equal(t, program, string(got))
}

func TestOpenFlags(t *testing.T) {
	f := mustOpen(t)
	defer f.Close()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	require.NoError(t, err)
	require.Equal(t, unix.FD_CLOEXEC, flags)
	target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	require.NoError(t, err)
	require.Equal(t, "/memfd:caisson-init (deleted)", target)
	info, err := f.Stat()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o111), info.Mode()&0o111)
	require.EqualValues(t, len(program), info.Size())
}

func TestOpenLeaksNothing(t *testing.T) {
	f := mustOpen(t)
	lowest := f.Fd()
	f.Close()
	for range 100 {
		f := mustOpen(t)
		require.Equal(t, lowest, f.Fd())
		f.Close()
	}
}

func TestCreate(t *testing.T) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	for name, c := range map[string]struct {
		answers []error // of the successive calls
		flags   []int
		err     error
	}{
		"6.3":         {[]error{nil}, []int{flags | unix.MFD_EXEC}, nil},
		"before 6.3":  {[]error{unix.EINVAL, nil}, []int{flags | unix.MFD_EXEC, flags}, nil},
		"forbidden":   {[]error{unix.EACCES}, []int{flags | unix.MFD_EXEC}, unix.EACCES},
		"before 3.17": {[]error{unix.ENOSYS}, []int{flags | unix.MFD_EXEC}, errors.ErrUnsupported},
		"no file":     {[]error{unix.EINVAL, unix.EMFILE}, []int{flags | unix.MFD_EXEC, flags}, unix.EMFILE},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			fd, err := create(func(_ string, flags int) (int, error) {
				got = append(got, flags)
				return 7, c.answers[len(got)-1]
			})
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.flags, got)
			if c.err == nil {
				require.Equal(t, 7, fd)
			}
		})
	}
}

func TestSeal(t *testing.T) {
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	for name, c := range map[string]struct {
		answers []error
		seals   []int
		err     error
	}{
		"6.3":        {[]error{nil}, []int{seals | unix.F_SEAL_EXEC}, nil},
		"before 6.3": {[]error{unix.EINVAL, nil}, []int{seals | unix.F_SEAL_EXEC, seals}, nil},
		"refused":    {[]error{unix.EPERM}, []int{seals | unix.F_SEAL_EXEC}, unix.EPERM},
	} {
		t.Run(name, func(t *testing.T) {
			var got []int
			err := seal(func(seals int) error {
				got = append(got, seals)
				return c.answers[len(got)-1]
			})
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.seals, got)
		})
	}
}

const noexecSysctl = "/proc/sys/vm/memfd_noexec"

// The refusal: vm.memfd_noexec=2, which belongs to the PID namespace.
func TestOpenForbidden(t *testing.T) {
	mustOpen(t).Close()
	if _, err := os.Stat(noexecSysctl); errors.Is(err, os.ErrNotExist) {
		t.Skip("this kernel has no vm.memfd_noexec (Linux 6.3)")
	}
	if os.Geteuid() != 0 {
		t.Skip("the sysctl is root's to write")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperEnv+"=noexec")
	cmd.SysProcAttr = namespace()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "caisson-init: memfd_create: permission denied (sysctl vm.memfd_noexec=2 forbids executable memfds)",
		strings.TrimSpace(string(out)))
}

func TestArgs(t *testing.T) {
	got, err := Args(7, []string{"/bin/a", "./a"}, []string{"a", "", "-x"})
	require.NoError(t, err)
	require.Equal(t, []string{"caisson-init", "7", "2", "/bin/a", "./a", "a", "", "-x"}, got)
}

func TestArgsRefused(t *testing.T) {
	ok := []string{"/bin/a"}
	huge := int64(math.MaxInt32) + 1 // negative where int has 32 bits
	for name, c := range map[string]struct {
		report           int
		candidates, argv []string
	}{
		"negative descriptor": {-1, ok, ok},
		"huge descriptor":     {int(huge), ok, ok},
		"no candidate":        {3, nil, ok},
		"no argv":             {3, ok, nil},
		"no slash":            {3, []string{"/bin/a", "a"}, ok},
		"empty candidate":     {3, []string{""}, ok},
		"NUL in candidate":    {3, []string{"/bin/a\x00b"}, ok},
		"NUL in argv":         {3, ok, []string{"a", "b\x00"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Args(c.report, c.candidates, c.argv)
			require.Nil(t, got)
			require.ErrorIs(t, err, unix.EINVAL)
			var typed *Error
			require.ErrorAs(t, err, &typed)
			require.Equal(t, "arguments", typed.Op)
		})
	}
}
