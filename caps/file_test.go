package caps

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// file makes an empty file on a file system that has capabilities.
func file(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, nil, 0o755))
	err := unix.Setxattr(name, attribute, must(File{Permitted: Kill}.MarshalBinary()), 0)
	if err == unix.ENOTSUP {
		t.Skipf("the file system of %s has no capabilities", name)
	}
	require.NoError(t, err)
	require.NoError(t, unix.Removexattr(name, attribute))
	return name
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestFile(t *testing.T) {
	asRoot(t, Setfcap)
	name := file(t)
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	for _, c := range []File{{}, {Permitted: NetRaw, Effective: true}, {Inheritable: NetRaw | Bpf}, {Permitted: known, Inheritable: Kill, Effective: true},
		{Permitted: Kill, RootID: 1000}, {Permitted: Kill | Bpf, Effective: true, RootID: 1<<32 - 2}} {
		_, err := ReadFile(name)
		require.ErrorIs(t, err, syscall.ENODATA)
		require.NoError(t, c.Write(name))
		got, err := ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, c, got)
		got, err = ReadFrom(f)
		require.NoError(t, err)
		require.Equal(t, c, got)
		require.NoError(t, RemoveFile(name))
		require.NoError(t, c.WriteOn(f))
		got, err = ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, c, got)
		require.NoError(t, RemoveFrom(f))
	}
	require.ErrorIs(t, RemoveFile(name), syscall.ENODATA)
	require.ErrorIs(t, RemoveFrom(f), syscall.ENODATA)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Empty(t, b)
}

// What has no capabilities that count is refused, and a symbolic link not followed: what it points at stays as it is.
func TestFileRefuses(t *testing.T) {
	asRoot(t, Setfcap)
	name := file(t)
	c := File{Permitted: Kill}
	require.NoError(t, c.Write(name))
	dir := filepath.Dir(name)
	link, fifo := dir+"/link", dir+"/fifo"
	require.NoError(t, os.Symlink(name, link))
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	for path, want := range map[string]error{link: syscall.ELOOP, fifo: syscall.EINVAL, dir: syscall.EINVAL, "/dev/null": syscall.EINVAL,
		dir + "/none": fs.ErrNotExist, name + "/x": syscall.ENOTDIR, "a\x00b": syscall.EINVAL, "": fs.ErrNotExist} {
		_, err := ReadFile(path)
		for _, err := range []error{err, File{}.Write(path), RemoveFile(path)} {
			var e *Error
			require.ErrorAs(t, err, &e, path)
			require.ErrorIs(t, err, want, path)
		}
	}
	got, err := ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, c, got)
	got, err = ReadFile(link + "/../" + filepath.Base(name)) // not a directory
	require.Error(t, err, got)
	require.NoError(t, os.Symlink(dir, dir+"/dir"))
	got, err = ReadFile(dir + "/dir/file") // the directory part is followed
	require.NoError(t, err)
	require.Equal(t, c, got)

	f, err := os.Open(name)
	require.NoError(t, err)
	f.Close()
	_, err = ReadFrom(f)
	require.ErrorIs(t, err, syscall.EBADF)
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	place := os.NewFile(uintptr(fd), name)
	defer place.Close()
	require.ErrorIs(t, c.WriteOn(place), syscall.EBADF)
	proc, err := os.Open("/proc/self/status")
	require.NoError(t, err)
	defer proc.Close()
	require.ErrorIs(t, c.WriteOn(proc), errors.ErrUnsupported)
}

func TestFileOfOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	name := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(name, nil, 0o000))
	_, err := ReadFile(name) // needs no right to read it
	require.ErrorIs(t, err, syscall.ENODATA)
	err = File{Permitted: Kill}.Write(name)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "CAP_SETFCAP")
	_, err = ReadFile(name)
	require.ErrorIs(t, err, syscall.ENODATA)
}

// The file capabilities that root of a user namespace writes count only there: the kernel puts in the id.
func TestFileOfUserNamespace(t *testing.T) {
	asRoot(t, Setfcap|Setuid)
	name := file(t)
	require.NoError(t, os.Chmod(filepath.Dir(filepath.Dir(name)), 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(name), 0o755))
	require.NoError(t, os.Chown(name, nobody, nobody))
	hasCommand(t, "setcap", "Debian's package libcap2-bin")
	c := exec.Command("setcap", "cap_kill=ep", name)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, Credential: &syscall.Credential{}, GidMappingsEnableSetgroups: true,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}}
	out, err := c.CombinedOutput()
	unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) // os/exec leaves us undumpable
	require.NoError(t, err, string(out))
	got, err := ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, File{Permitted: Kill, Effective: true, RootID: nobody}, got)
}

// setcap and getcap agree with us.
func TestAgainstSetcap(t *testing.T) {
	asRoot(t, Setfcap)
	name := file(t)
	hasCommand(t, "setcap", "Debian's package libcap2-bin")
	hasCommand(t, "getcap", "Debian's package libcap2-bin")
	for _, text := range []string{"cap_net_raw=ep", "cap_kill,cap_net_raw=p", "cap_bpf=i", "=ep", "=", "cap_chown=eip cap_kill+ep", "cap_kill=p [rootid=1000]"} {
		c, err := ParseFile(text)
		require.NoError(t, err)
		require.Equal(t, text, c.String())
		require.NoError(t, c.Write(name))
		out, err := exec.Command("getcap", "-n", name).CombinedOutput()
		require.NoError(t, err)
		require.Equal(t, name+" "+text, strings.TrimSpace(string(out)))
		if c.RootID != 0 {
			continue
		}
		require.NoError(t, RemoveFile(name))
		out, err = exec.Command("setcap", text, name).CombinedOutput()
		require.NoError(t, err, string(out))
		got, err := ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
}

func TestFileFormat(t *testing.T) {
	for want, b := range map[File][]byte{
		{Permitted: NetRaw, Effective: true}:                 {1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{Permitted: Bpf, Inheritable: Kill}:                  {0, 0, 0, 2, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0},
		{Inheritable: 1 << 63, RootID: 1000}:                 {0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xe8, 3, 0, 0},
		{Permitted: Chown, Effective: true, RootID: 1 << 31}: {1, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80},
	} {
		require.Equal(t, b, must(want.MarshalBinary()))
		var got File
		require.NoError(t, got.UnmarshalBinary(b))
		require.Equal(t, want, got)
		for n := range len(b) + 8 {
			if n != len(b) && !(n == 20 && b[3] == 2) && !(n == 24 && b[3] == 3) {
				var e *FormatError
				err := got.UnmarshalBinary(append(bytes.Clone(b), make([]byte, 8)...)[:n])
				require.ErrorAs(t, err, &e)
				require.ErrorIs(t, err, syscall.EINVAL)
				require.Equal(t, n, e.Size)
			}
		}
	}
	var c File
	require.NoError(t, c.UnmarshalBinary([]byte{1, 0, 0, 1, 4, 0, 0, 0, 2, 0, 0, 0})) // revision 1
	require.Equal(t, File{Permitted: DacReadSearch, Inheritable: DacOverride, Effective: true}, c)
	for _, revision := range []byte{0, 4, 255} {
		require.Error(t, c.UnmarshalBinary(append([]byte{0, 0, 0, revision}, make([]byte, 16)...)))
	}
	require.Equal(t, File{Permitted: DacReadSearch, Inheritable: DacOverride, Effective: true}, c, "an error changes nothing")
	for _, text := range []string{"cap_kill=p cap_chown=e", "cap_kill=p [rootid=]", "cap_kill=p [rootid=-1]", "cap_kill=p [rootid=4294967296]", "cap_kill=p [rootid=1",
		"cap_kill", "cap_kill=p [rootid=1] x", "cap_kill,cap_chown=p cap_chown+e", "cap_kill=p [rootid=0x1]"} {
		_, err := ParseFile(text)
		var e *TextError
		require.ErrorAs(t, err, &e, text)
	}
}

func TestRandomFiles(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	n := 3000
	if slow() {
		n = 300
	}
	for range n {
		c := File{Permitted: some(r, All), Inheritable: some(r, All), RootID: uint32(some(r, All))}
		c.Effective = c.Permitted|c.Inheritable != 0 && r.IntN(2) == 0
		var back File
		require.NoError(t, back.UnmarshalBinary(must(c.MarshalBinary())))
		require.Equal(t, c, back)
		text, err := c.MarshalText()
		require.NoError(t, err)
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, c, back, string(text))
	}
}

func FuzzFile(f *testing.F) {
	for _, c := range []File{{}, {Permitted: NetRaw, Effective: true}, {Inheritable: Kill, RootID: 1000}} {
		f.Add(must(c.MarshalBinary()))
	}
	f.Add([]byte{1, 0, 0, 1, 4, 0, 0, 0, 2, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, back File
		if err := c.UnmarshalBinary(b); err != nil {
			var e *FormatError
			if !errors.As(err, &e) || c != (File{}) {
				t.Fatal(err, c)
			}
			return
		}
		if err := back.UnmarshalBinary(must(c.MarshalBinary())); err != nil || back != c {
			t.Fatal(c, back, err)
		}
	})
}

func FuzzParseFile(f *testing.F) {
	f.Add("cap_net_raw=ep")
	f.Add("cap_kill=p [rootid=1000]")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseFile(text)
		if err != nil {
			return
		}
		if back, err := ParseFile(c.String()); err != nil || back != c {
			t.Fatalf("%q: %v, then %v, %v", text, c, back, err)
		}
	})
}
