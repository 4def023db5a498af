package layer_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// TestDiffOrder: sorted by name, whiteouts first, hard links to the first name, sockets left out and counted.
func TestDiffOrder(t *testing.T) {
	dst, _ := cage(t)
	for _, name := range []string{"b/2", "b/1", "a-b", "a/x", "B"} {
		write(t, filepath.Join(dst, name), name)
	}
	require.NoError(t, os.Link(filepath.Join(dst, "b/2"), filepath.Join(dst, "a/link")))
	require.NoError(t, unix.Mknod(filepath.Join(dst, "b/zz"), unix.S_IFCHR, 0))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	back, err := os.Getwd()
	require.NoError(t, err)
	require.NoError(t, os.Chdir(dst)) // the path may be too long for a socket
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"}))
	require.NoError(t, os.Chdir(back))
	var b bytes.Buffer
	totals, err := layer.Pack{Form: layer.UserOverlay}.Diff(ctx, &b, dst)
	require.NoError(t, err)
	require.Equal(t, []string{"5 ./", `0 B "B"`, "5 a/", `0 a/link "b/2"`, `0 a/x "a/x"`, `0 a-b "a-b"`, "5 b/", "0 b/.wh.zz", `0 b/1 "b/1"`, "1 b/2 -> a/link"},
		listing(t, b.Bytes()))
	require.Equal(t, layer.Totals{Entries: 10, Files: 5, Bytes: 13, Whiteouts: 1, Skipped: 1}, totals)
}

// TestDiffHostile: a directory in which somebody hostile could write cannot delete in the layer's name, nor be read elsewhere, nor make us wait.
func TestDiffHostile(t *testing.T) {
	steady(t)
	for name, c := range map[string]struct {
		form layer.Form
		make func(dir string) error
		why  layer.Refusal
	}{
		"whiteout by name":   {layer.UserOverlay, func(d string) error { return os.WriteFile(d+"/.wh.etc", nil, 0o644) }, layer.IsWhiteout},
		"opaque by name":     {layer.Plain, func(d string) error { return os.Mkdir(d+"/.wh..wh..opq", 0o755) }, layer.IsWhiteout},
		"whiteout in a base": {layer.Plain, func(d string) error { return unix.Mknod(d+"/x", unix.S_IFCHR, 0) }, layer.IsWhiteout},
		"whiteout of dot":    {layer.AUFS, func(d string) error { return os.WriteFile(d+"/.wh..", nil, 0o644) }, layer.IsBadWhiteout},
		"redirect": {layer.UserOverlay, func(d string) error {
			os.Mkdir(d+"/d", 0o755)
			return unix.Setxattr(d+"/d", "user.overlay.redirect", []byte("/etc"), 0)
		}, layer.IsNeedsLower},
		"metacopy": {layer.UserOverlay, func(d string) error {
			os.WriteFile(d+"/f", nil, 0o644)
			return unix.Setxattr(d+"/f", "user.overlay.metacopy", []byte{}, 0)
		}, layer.IsNeedsLower},
	} {
		dst, _ := cage(t)
		if c.why == layer.IsNeedsLower && !userAttrs(t) {
			continue
		}
		require.NoError(t, c.make(dst), name)
		_, err := layer.Pack{Form: c.form}.Diff(ctx, io.Discard, dst)
		var refused *layer.RefusedError
		require.ErrorAs(t, err, &refused, name)
		require.Equal(t, c.why, refused.Why, name)
		var e *layer.Error
		require.ErrorAs(t, err, &e)
		require.NotEmpty(t, e.Entry)
	}
	// Links and fifos are entries, not ways.
	dst, outside := cage(t)
	require.NoError(t, os.Symlink(outside, filepath.Join(dst, "dir")))
	require.NoError(t, os.Symlink(outside+"/secret", filepath.Join(dst, "file")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dst, "fifo"), 0o600))
	require.Equal(t, []string{"5 ./", "2 dir -> " + outside, "6 fifo", "2 file -> " + outside + "/secret"}, listing(t, diff(t, layer.Pack{}, dst)))
}

// TestDiffSwap: files become links, fifos and other files while a layer is made.
func TestDiffSwap(t *testing.T) {
	dst, outside := cage(t)
	write(t, filepath.Join(dst, "d/file"), "inside")
	require.NoError(t, os.Symlink(outside, filepath.Join(dst, "e")))
	require.NoError(t, os.Symlink(outside+"/secret", filepath.Join(dst, "s")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dst, "f"), 0o600))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			for _, pair := range [][2]string{{"d", "e"}, {"d/file", "s"}, {"d/file", "f"}} {
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(dst, pair[0]), unix.AT_FDCWD, filepath.Join(dst, pair[1]), unix.RENAME_EXCHANGE)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		var b bytes.Buffer
		if _, err := (layer.Pack{}).Diff(ctx, &b, dst); err == nil {
			require.NotContains(t, strings.Join(listing(t, b.Bytes()), "\n"), `"secret"`)
		}
	}
	close(stop)
	<-done
}

// TestDiffUnderLease: a lease makes whoever opens the file wait for its holder, for up to 45 seconds.
func TestDiffUnderLease(t *testing.T) {
	dst, _ := cage(t)
	f, err := os.OpenFile(filepath.Join(dst, "leased"), os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer f.Close()
	fd := f.Fd()
	if _, err = unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_WRLCK); err == syscall.EINVAL || err == syscall.EAGAIN {
		t.Skipf("no leases here: %v", err)
	}
	require.NoError(t, err)
	began := time.Now()
	_, err = layer.Pack{}.Diff(ctx, io.Discard, dst)
	require.Less(t, time.Since(began), 5*time.Second)
	var refused *layer.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, layer.IsBusy, refused.Why)
	require.ErrorContains(t, err, "leased")
}

// TestDiffWhileWritten: a file that changes meanwhile is an error, and never a layer that is half of it.
func TestDiffWhileWritten(t *testing.T) {
	dst, _ := cage(t)
	name := filepath.Join(dst, "log")
	write(t, name, strings.Repeat("x", 1<<20))
	grown := false
	w := writerFunc(func(p []byte) (int, error) {
		if !grown {
			grown = true
			f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			f.WriteString("more")
			f.Close()
		}
		return len(p), nil
	})
	_, err := layer.Pack{}.Diff(ctx, w, dst)
	var refused *layer.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, layer.IsChanged, refused.Why)
	require.ErrorContains(t, err, `"log"`)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestCompare(t *testing.T) {
	one, _ := cage(t)
	lower(t, one)
	two, _ := cage(t)
	_, err := layer.Apply(ctx, two, bytes.NewReader(diff(t, layer.Pack{}, one)))
	require.NoError(t, err)
	compare := func(p layer.Pack) []string {
		var b bytes.Buffer
		_, err := p.Compare(ctx, &b, one, two)
		require.NoError(t, err)
		applied, _ := cage(t)
		_, err = layer.Apply(ctx, applied, bytes.NewReader(diff(t, layer.Pack{}, one)))
		require.NoError(t, err)
		_, err = layer.Apply(ctx, applied, bytes.NewReader(b.Bytes()))
		require.NoError(t, err)
		if p.Contents {
			require.Equal(t, state(t, two), state(t, applied))
		}
		return listing(t, b.Bytes())
	}
	require.Empty(t, compare(layer.Pack{}))
	at := func(name string) string { return filepath.Join(two, name) }
	keep := func(name string, f func()) { // its time, and that of its directory
		var st, up unix.Stat_t
		require.NoError(t, unix.Stat(at(name), &st))
		require.NoError(t, unix.Stat(filepath.Dir(at(name)), &up))
		f()
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{st.Atim, st.Mtim}, 0))
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Dir(at(name)), []unix.Timespec{up.Atim, up.Mtim}, 0))
	}
	keep("a/1", func() { write(t, at("a/1"), "LOWER") })
	require.Empty(t, compare(layer.Pack{}), "the same size and time")
	require.Equal(t, []string{"5 ./", "5 a/", `0 a/1 "LOWER"`}, compare(layer.Pack{Contents: true}))
	keep("b/sub/deep/4", func() {
		if userAttrs(t) {
			require.NoError(t, unix.Setxattr(at("b/sub/deep/4"), "user.x", []byte("y"), 0))
		} else {
			require.NoError(t, os.Chmod(at("b/sub/deep/4"), 0o600))
		}
	})
	require.NoError(t, os.RemoveAll(at("d")))
	require.NoError(t, os.Remove(at("c")))
	write(t, at("c/now/a/dir"), "x")
	require.NoError(t, os.RemoveAll(at("a/sub")))
	write(t, at("a/sub"), "now a file")
	require.NoError(t, os.Remove(at("b/5")))
	require.NoError(t, os.Symlink("x", at("b/5")))
	require.Equal(t, []string{"5 ./", "0 .wh.d", "5 a/", `0 a/1 "LOWER"`, `0 a/sub "now a file"`, "5 b/", "2 b/5 -> x", "5 b/sub/", "5 b/sub/deep/", `0 b/sub/deep/4 "lower"`,
		"5 c/", "5 c/now/", "5 c/now/a/", `0 c/now/a/dir "x"`}, compare(layer.Pack{Contents: true}))
}

// acl is a list in the kernel's form: of the owner, of user 1000, of the group, the mask, of others.
func acl(perms ...uint16) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for i, tag := range []uint16{1, 2, 4, 0x10, 0x20} {
		id := uint32(0xffffffff)
		if tag == 2 {
			id = 1000
		}
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perms[i])
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return string(b)
}

// TestACL: lists are carried as text and as bytes; one that a directory passes on is not taken over by files that have none.
func TestACL(t *testing.T) {
	dst, _ := cage(t)
	if err := unix.Setxattr(dst, "system.posix_acl_access", []byte(acl(7, 5, 5, 5, 5)), 0); err == syscall.ENOTSUP {
		t.Skip("no access control lists on the file system of the tests")
	}
	text := entry{tar.Header{Name: "text", Mode: 0o674, PAXRecords: map[string]string{"SCHILY.acl.access": "user::rw-,user:someone:rwx:1000,group::r--,mask::rwx,other::r--"}}, ""}
	inheriting := withAttr(dir("d"), "system.posix_acl_default", acl(7, 7, 5, 7, 5))
	_, err := apply(t, layer.Unpack{}, dst, dir("./"), withAttr(entry{tar.Header{Name: "bytes", Mode: 0o674}, ""}, "system.posix_acl_access", acl(6, 7, 4, 7, 4)), text, inheriting, file("d/x", "x"), dir("d/y"))
	require.NoError(t, err)
	want := attrs(t, filepath.Join(dst, "bytes"))
	require.Len(t, want, 1)
	require.Equal(t, want, attrs(t, filepath.Join(dst, "text")))
	// A second layer, now that the directory passes its list on.
	_, err = apply(t, layer.Unpack{}, dst, file("d/z", "z"), dir("d/new"), file("d/new/x", ""), kind("d/fifo", tar.TypeFifo), symlink("d/link", "x"), entry{tar.Header{Name: "d/private", Mode: 0o600}, ""})
	require.NoError(t, err)
	for _, name := range []string{".", "d/x", "d/y", "d/z", "d/new", "d/new/x", "d/fifo", "d/link", "d/private"} {
		require.Empty(t, attrs(t, filepath.Join(dst, name)), name)
	}
	var st unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dst, "d/private"), &st))
	require.EqualValues(t, unix.S_IFREG|0o600, st.Mode)
	next, _ := cage(t)
	_, err = layer.Apply(ctx, next, bytes.NewReader(diff(t, layer.Pack{}, dst)))
	require.NoError(t, err)
	require.Equal(t, state(t, dst), state(t, next))
}
