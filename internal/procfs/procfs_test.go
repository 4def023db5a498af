package procfs

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// eachWay runs the test on a mount of our own and on the one at /proc, with openat2 and without.
func eachWay(t *testing.T, f func(t *testing.T, s *FS)) {
	t.Helper()
	for _, open := range []struct {
		name string
		f    func() (*FS, error)
	}{{"open", Open}, {"attached", func() (*FS, error) { return OpenAt("/proc") }}} {
		for _, walk := range []bool{false, true} {
			t.Run(open.name+" walk "+strconv.FormatBool(walk), func(t *testing.T) {
				s, err := open.f()
				require.NoError(t, err)
				defer s.Close()
				if os.Geteuid() == 0 {
					require.Equal(t, open.name == "open", s.Detached(), "root may mount a procfs of its own")
				}
				s.walk = walk
				f(t, s)
			})
		}
	}
}

func TestReadWrite(t *testing.T) {
	eachWay(t, func(t *testing.T, s *FS) {
		text, err := s.Read("sys/kernel/ostype")
		require.NoError(t, err)
		require.Equal(t, "Linux\n", text)
		text, err = s.ReadProcess(os.Getpid(), "status")
		require.NoError(t, err)
		require.Contains(t, text, "Pid:\t"+strconv.Itoa(os.Getpid())+"\n")
		before, err := s.Read("self/oom_score_adj")
		require.NoError(t, err)
		require.NoError(t, s.WriteVerified("self/oom_score_adj", "777"))
		text, err = s.Read("thread-self/oom_score_adj")
		require.NoError(t, err)
		require.Equal(t, "777\n", text)
		if err := s.Write("self/oom_score_adj", strings.TrimSpace(before)); err != nil {
			require.ErrorIs(t, err, fs.ErrPermission, "lowering takes CAP_SYS_RESOURCE")
		}
		require.ErrorIs(t, s.Write("sys/kernel/ostype", "x"), fs.ErrPermission)
	})
}

func TestNames(t *testing.T) {
	eachWay(t, func(t *testing.T, s *FS) {
		for name, want := range map[string]error{"": syscall.EINVAL, "/sys": syscall.EINVAL, "sys/../self/status": syscall.EINVAL, "sys//kernel": syscall.EINVAL,
			"./sys": syscall.EINVAL, "a\x00b": syscall.EINVAL, "self/exe": syscall.ELOOP, "self/root/etc/passwd": syscall.ELOOP, "self/fd/0": syscall.ELOOP,
			"mounts": syscall.ELOOP, "no/such": syscall.ENOENT} {
			_, err := s.Read(name)
			require.ErrorIs(t, err, want, name)
		}
		_, err := s.ReadProcess(0, "status")
		require.ErrorIs(t, err, syscall.ESRCH)
	})
}

func TestReopen(t *testing.T) {
	eachWay(t, func(t *testing.T, s *FS) {
		name := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(name, []byte("data"), 0o644))
		fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		require.NoError(t, os.Rename(name, name+"2"))
		require.NoError(t, os.Symlink("/etc/passwd", name))
		f, err := s.Reopen(fd, unix.O_RDONLY)
		require.NoError(t, err)
		defer f.Close()
		b := make([]byte, 10)
		n, err := f.Read(b)
		require.NoError(t, err)
		require.Equal(t, "data", string(b[:n]))
	})
}

func TestSysfs(t *testing.T) {
	s, err := OpenSys()
	require.NoError(t, err)
	defer s.Close()
	_, err = s.Read("kernel/uevent_seqnum")
	if errors.Is(err, fs.ErrNotExist) {
		_, err = s.Read("kernel/mm/transparent_hugepage/enabled")
	}
	require.NoError(t, err)
	// A link of sysfs leads elsewhere in it; the real path is asked for.
	_, err = s.Read("class/net/lo/mtu")
	require.ErrorIs(t, err, syscall.ELOOP)
	text, err := s.Read("devices/virtual/net/lo/mtu")
	require.NoError(t, err)
	require.NotEmpty(t, text)
}

// TestCVE_2025_52881, CVE-2019-16884, CVE-2023-27561: something is mounted over /proc, or over a file in it. A write goes to the real file or
// fails; it never goes where somebody wants it to go.
func TestCVE_2025_52881(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN to mount over /proc")
	}
	const mark = "CAISSON_TEST_PRIVATE"
	if os.Getenv(mark) == "" {
		c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), mark+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	dir := t.TempDir()
	bait := filepath.Join(dir, "bait")
	require.NoError(t, os.WriteFile(bait, nil, 0o666))
	untouched := func() {
		t.Helper()
		b, err := os.ReadFile(bait)
		require.NoError(t, err)
		require.Empty(t, b)
	}
	const name = "sys/kernel/hostname"
	bind := func(from, to string) func() {
		require.NoError(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
		return func() { require.NoError(t, unix.Unmount(to, unix.MNT_DETACH)) }
	}
	hostname := func() string {
		var u unix.Utsname
		require.NoError(t, unix.Uname(&u))
		return unix.ByteSliceToString(u.Nodename[:])
	}
	for what, cover := range map[string]func() func(){
		"file":                       func() func() { return bind(bait, "/proc/"+name) },
		"another file of /proc":      func() func() { return bind("/proc/sys/kernel/domainname", "/proc/"+name) },
		"directory":                  func() func() { return bind(dir, "/proc/sys/kernel") },
		"another directory of /proc": func() func() { return bind("/proc/sys/net", "/proc/sys/kernel") },
	} {
		undo := cover()
		for i, walk := range []bool{false, true} {
			s, err := OpenAt("/proc")
			require.NoError(t, err)
			s.walk = walk
			require.ErrorIs(t, s.Write(name, "bad"), syscall.EXDEV, what)
			require.NoError(t, s.Close())
			s, err = Open()
			require.NoError(t, err)
			s.walk = walk
			want := "good" + strconv.Itoa(i)
			require.NoError(t, s.WriteVerified(name, want), what)
			require.Equal(t, want, hostname(), what)
			require.NoError(t, s.Close())
		}
		untouched()
		undo()
	}
	// Not a procfs, not its root, or a link.
	fake := filepath.Join(dir, "proc")
	require.NoError(t, os.MkdirAll(fake+"/sys/kernel", 0o755))
	require.NoError(t, os.WriteFile(fake+"/"+name, nil, 0o666))
	require.NoError(t, os.Symlink("/proc", filepath.Join(dir, "link")))
	for _, path := range []string{fake, "/proc/sys", "/proc/self", filepath.Join(dir, "link")} {
		_, err := OpenAt(path)
		require.Error(t, err, path)
	}
	undo := bind(fake, "/proc")
	defer undo()
	_, err := OpenAt("/proc")
	require.ErrorIs(t, err, syscall.EINVAL)
	s, err := Open()
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.WriteVerified(name, "real"))
	require.Equal(t, "real", hostname())
}

// TestRefusal: without privilege the procfs at its place is verified and used.
func TestRefusal(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user; the user lane runs it")
	}
	s, err := Open()
	require.NoError(t, err)
	defer s.Close()
	require.False(t, s.Detached())
	require.ErrorIs(t, s.Write("sys/kernel/hostname", "x"), fs.ErrPermission)
}
