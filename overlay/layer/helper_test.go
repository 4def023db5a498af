package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

var (
	ctx  = context.Background()
	root = os.Geteuid() == 0
	old  = time.Unix(1_000_000_000, 123456789)
)

// entry is one of an archive, with its contents.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry { return entry{tar.Header{Name: name, Mode: 0o644}, body} }
func dir(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}
func symlink(name, to string) entry {
	return entry{tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink, Mode: 0o777}, ""}
}
func hardlink(name, to string) entry {
	return entry{tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeLink, Mode: 0o644}, ""}
}
func kind(name string, flag byte) entry {
	return entry{tar.Header{Name: name, Typeflag: flag, Mode: 0o644}, ""}
}

// archive writes entries as whoever runs the test, of one time, unless they say otherwise.
func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == tar.TypeXGlobalHeader {
			require.NoError(t, w.WriteHeader(&h))
			continue
		}
		h.Size, h.Format = int64(len(e.body)), tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = old
		}
		if h.Uid == 0 && h.Gid == 0 {
			h.Uid, h.Gid = os.Getuid(), os.Getgid()
		}
		require.NoError(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, e.body)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func apply(t testing.TB, u layer.Unpack, dst string, entries ...entry) (layer.Totals, error) {
	t.Helper()
	return u.Apply(ctx, dst, bytes.NewReader(archive(t, entries...)))
}

// diff gives a layer of a directory.
func diff(t testing.TB, p layer.Pack, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := p.Diff(ctx, &b, dir)
	require.NoError(t, err)
	return b.Bytes()
}

// listing gives each entry of a layer as a line.
func listing(t testing.TB, b []byte) []string {
	t.Helper()
	var lines []string
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return lines
		}
		require.NoError(t, err)
		body, err := io.ReadAll(r)
		require.NoError(t, err)
		line := fmt.Sprintf("%c %s", h.Typeflag, h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if len(body) > 0 {
			line += fmt.Sprintf(" %.20q", body)
		}
		lines = append(lines, line)
	}
}

// state describes all of a tree: names, kinds, owners, modes, times, contents, attributes.
func state(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, filepath.WalkDir(dir+"/.", func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		require.NoError(t, unix.Lstat(name, &st))
		rel, _ := filepath.Rel(dir, name)
		fmt.Fprintf(&b, "%q %o %d:%d %d.%09d %x", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			f, err := os.Open(name)
			require.NoError(t, err)
			h := sha256.New()
			_, err = io.Copy(h, f)
			require.NoError(t, err)
			f.Close()
			fmt.Fprintf(&b, " %x %d", h.Sum(nil)[:8], st.Nlink)
		case unix.S_IFLNK:
			to, err := os.Readlink(name)
			require.NoError(t, err)
			fmt.Fprintf(&b, " -> %q", to)
		}
		for _, a := range attrs(t, name) {
			fmt.Fprintf(&b, " %s", a)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

func attrs(t testing.TB, name string) []string {
	t.Helper()
	b := make([]byte, 4096)
	n, err := unix.Llistxattr(name, b)
	require.NoError(t, err)
	var list []string
	for key := range strings.SplitSeq(string(b[:n]), "\x00") {
		if key == "" || strings.HasPrefix(key, "security.") && key != "security.capability" {
			continue
		}
		v := make([]byte, 4096)
		m, err := unix.Lgetxattr(name, key, v)
		require.NoError(t, err)
		list = append(list, fmt.Sprintf("%s=%x", key, v[:m]))
	}
	slices.Sort(list)
	return list
}

// names lists a tree.
func names(t testing.TB, dir string) []string {
	t.Helper()
	list := []string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, name); rel != "." {
			list = append(list, rel)
		}
		return err
	}))
	return list
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(b)
}

func write(t testing.TB, name, body string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(body), 0o644))
}

// cage makes a directory to unpack into, with something beside it that nobody may touch.
func cage(t testing.TB) (dst, outside string) {
	t.Helper()
	top := t.TempDir()
	dst, outside = filepath.Join(top, "dst"), filepath.Join(top, "outside")
	require.NoError(t, os.Mkdir(dst, 0o755))
	require.NoError(t, os.Mkdir(outside, 0o755))
	write(t, filepath.Join(outside, "secret"), "secret")
	t.Cleanup(func() { // an ordinary user cannot remove what is in a closed directory
		filepath.WalkDir(dst, func(name string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(name, 0o700)
			}
			return nil
		})
	})
	return dst, outside
}

// descriptors counts those that are open.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(list)
}

// steady fails if descriptors are left open.
func steady(t testing.TB) {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // the runtime opens some of its own when the first is made
		r.Close()
		w.Close()
	}
	before := descriptors(t)
	t.Cleanup(func() {
		for range 100 {
			if descriptors(t) <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("descriptors left: %d, were %d", descriptors(t), before)
	})
}

// detached makes a file system that is mounted nowhere, and gives a path to it.
func detached(t testing.TB, fstype string, options ...string) string {
	t.Helper()
	if !root {
		t.Skip("needs root, to mount")
	}
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fs)
	for _, o := range options {
		key, value, ok := strings.Cut(o, "=")
		if ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, key)
		}
		require.NoError(t, err, o)
	}
	require.NoError(t, unix.FsconfigCreate(fs))
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d", fd)
}

// attached makes a file system that is mounted in a mount namespace of this test's thread, and gives its path. Before Linux 6.15 overlay takes no directory of a
// mount that is attached nowhere.
func attached(t testing.TB, fstype string, options ...string) string {
	t.Helper()
	if !root {
		t.Skip("needs root, to mount")
	}
	runtime.LockOSThread() // for ever: the thread ends with the test
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS))
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	dir := t.TempDir()
	require.NoError(t, unix.Mount(fstype, dir, fstype, 0, strings.Join(options, ",")))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// userAttrs reports whether the file system of the tests has attributes of user: tmpfs does since Linux 6.6.
func userAttrs(t testing.TB) bool {
	t.Helper()
	err := unix.Setxattr(t.TempDir(), "user.test", []byte("x"), 0)
	if err != syscall.ENOTSUP {
		require.NoError(t, err)
	}
	return err == nil
}

func needUserAttrs(t testing.TB) {
	t.Helper()
	if !userAttrs(t) {
		t.Skip("the file system of the tests has no attributes of user")
	}
}
