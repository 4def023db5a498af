package layer_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
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

// netRaw is the attribute of a file with cap_net_raw+ep.
func netRaw() string {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	for _, n := range []uint32{1 << unix.CAP_NET_RAW, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return string(b)
}

func withAttr(e entry, name, value string) entry {
	e.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
	return e
}

// everything is a layer with all kinds of entries that the caller may make.
func everything(t testing.TB) []entry {
	long := strings.Repeat("long/", 60) + strings.Repeat("n", 255)
	list := []entry{
		{tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o751}, ""},
		dir("etc/"), file("etc/passwd", "root"), file("etc/empty", ""), hardlink("etc/other", "etc/passwd"),
		{tar.Header{Name: "etc/secret", Mode: 0o400, ModTime: time.Unix(-5, 7)}, "secret"},
		{tar.Header{Name: "closed", Typeflag: tar.TypeDir, Mode: 0o500}, ""}, file("closed/in", "in"),
		symlink("lib", "usr/lib"), dir("usr"), dir("usr/lib"), file("lib/libc.so", "elf"), symlink("absolute", "/etc"), symlink("loop", "loop"),
		hardlink("link of link", "lib"), kind("fifo", tar.TypeFifo), file(long, "long"), file("large", strings.Repeat("0123456789", 100_000)),
		file("odd \n\t\"\xff'日本", "odd"), {tar.Header{Name: "shared", Typeflag: tar.TypeDir, Mode: 0o1777}, ""},
		{tar.Header{Name: "grouped", Typeflag: tar.TypeDir, Mode: 0o2775}, ""}, file("grouped/in", "in"),
		{tar.Header{Name: "setuid", Mode: 0o4755}, "elf"},
	}
	if userAttrs(t) {
		list = append(list, withAttr(file("attr", "x"), "user.test", "va\x00lue"), withAttr(dir("dirattr"), "user.dir", "d"))
	}
	if root {
		list = append(list, entry{tar.Header{Name: "owned", Mode: 0o6711, Uid: 1234, Gid: 4321}, "elf"},
			entry{tar.Header{Name: "ownedlink", Linkname: "x", Typeflag: tar.TypeSymlink, Uid: 2000000000, Gid: 7}, ""},
			entry{tar.Header{Name: "owneddir", Typeflag: tar.TypeDir, Mode: 0o000, Uid: 1, Gid: 2}, ""}, file("owneddir/in", "in"),
			withAttr(entry{tar.Header{Name: "capable", Mode: 0o755, Uid: 5, Gid: 5}, "elf"}, "security.capability", netRaw()),
			withAttr(symlink("trustedlink", "x"), "trusted.test", "t"), withAttr(kind("trustedfifo", tar.TypeFifo), "trusted.test", "f"))
	}
	return list
}

func TestApply(t *testing.T) {
	steady(t)
	dst, _ := cage(t)
	var last layer.Totals
	totals, err := apply(t, layer.Unpack{Progress: func(now layer.Totals) { last = now }}, dst, everything(t)...)
	require.NoError(t, err)
	require.Equal(t, last, totals)
	require.EqualValues(t, len(everything(t)), totals.Entries)
	at := func(name string) string { return filepath.Join(dst, name) }
	stat := func(name string) (st unix.Stat_t) {
		require.NoError(t, unix.Lstat(at(name), &st))
		return st
	}
	require.Equal(t, "root", read(t, at("etc/other")))
	require.EqualValues(t, 2, stat("etc/passwd").Nlink)
	require.EqualValues(t, 2, stat("lib").Nlink)
	require.Equal(t, "elf", read(t, at("usr/lib/libc.so")), "written through a link")
	require.Equal(t, strings.Repeat("0123456789", 100_000), read(t, at("large")))
	st := stat("etc/secret")
	require.EqualValues(t, [2]int64{-5, 7}, [2]int64{int64(st.Mtim.Sec), int64(st.Mtim.Nsec)})
	for name, mode := range map[string]uint32{".": unix.S_IFDIR | 0o751, "closed": unix.S_IFDIR | 0o500, "shared": unix.S_IFDIR | 0o1777, "grouped": unix.S_IFDIR | 0o2775,
		"setuid": unix.S_IFREG | 0o4755, "etc/secret": unix.S_IFREG | 0o400, "fifo": unix.S_IFIFO | 0o644, "long": unix.S_IFDIR | 0o755} {
		require.Equalf(t, mode, stat(name).Mode, "%s: %o", name, stat(name).Mode)
	}
	for _, name := range []string{"etc", "closed", "usr/lib", "lib", "fifo", "grouped"} {
		st := stat(name)
		require.Equal(t, old.UnixNano(), st.Mtim.Nano(), name)
	}
	if userAttrs(t) {
		require.Equal(t, []string{"user.test=7661006c7565"}, attrs(t, at("attr")))
	}
	if root {
		require.EqualValues(t, unix.S_IFREG|0o6711, stat("owned").Mode)
		require.EqualValues(t, 1234, stat("owned").Uid)
		require.EqualValues(t, 2000000000, stat("ownedlink").Uid)
		require.Len(t, attrs(t, at("capable")), 1)
		require.Len(t, attrs(t, at("trustedlink")), 1)
	}
}

// TestRoundTrip: a tree becomes a layer and the layer a tree that is the same, and so on, whatever the umask and the compression.
func TestRoundTrip(t *testing.T) {
	first, _ := cage(t)
	_, err := apply(t, layer.Unpack{}, first, everything(t)...)
	require.NoError(t, err)
	want := diff(t, layer.Pack{}, first)
	for _, c := range []layer.Compression{layer.Uncompressed, layer.Gzip, layer.Zstd} {
		for _, mask := range []int{0, 0o077, 0o777} {
			dst, _ := cage(t)
			packed := diff(t, layer.Pack{Compression: c}, first)
			require.Equal(t, packed, diff(t, layer.Pack{Compression: c}, first), "the same tree gives the same bytes")
			before := unix.Umask(mask)
			_, err := layer.Apply(ctx, dst, bytes.NewReader(packed))
			unix.Umask(before)
			require.NoError(t, err)
			require.Equal(t, state(t, first), state(t, dst))
			require.True(t, bytes.Equal(want, diff(t, layer.Pack{}, dst)))
		}
	}
}

// TestApplyOver: a layer replaces what is there, and never writes into it.
func TestApplyOver(t *testing.T) {
	dst, outside := cage(t)
	at := func(name string) string { return filepath.Join(dst, name) }
	write(t, at("file"), "old")
	require.NoError(t, os.Link(at("file"), filepath.Join(outside, "hardlink")))
	write(t, at("dir/sub/old"), "old")
	write(t, at("kept/old"), "old")
	if userAttrs(t) {
		require.NoError(t, unix.Setxattr(at("kept"), "user.old", []byte("x"), 0))
	}
	require.NoError(t, os.Symlink(outside, at("link")))
	require.NoError(t, os.Symlink(outside, at("dirlink")))
	require.NoError(t, unix.Mkfifo(at("fifo"), 0o600))
	_, err := apply(t, layer.Unpack{}, dst, file("file", "new"), file("dir", "now a file"), dir("kept"), file("kept/new", "new"), file("link", "new"),
		dir("dirlink"), file("dirlink/in", "in"), file("fifo", "new"), file("twice", "1"), file("twice", "2"), dir("turn"), file("turn/x", "x"), file("turn", "file"),
		file("turn2", "file"), dir("turn2"), file("turn2/x", "x"), symlink("turn3", "kept"), dir("turn3"), file("turn3/x", "x"))
	require.NoError(t, err)
	require.Equal(t, "old", read(t, filepath.Join(outside, "hardlink")))
	require.Equal(t, []string{"dir", "dirlink", "dirlink/in", "fifo", "file", "kept", "kept/new", "kept/old", "link", "turn", "turn2", "turn2/x", "turn3", "turn3/x", "twice"}, names(t, dst))
	require.Equal(t, "2", read(t, at("twice")))
	require.Equal(t, "new", read(t, at("fifo")))
	require.Empty(t, attrs(t, at("kept")))
	require.NoError(t, os.Remove(filepath.Join(outside, "hardlink")))
	require.Equal(t, []string{"secret"}, names(t, outside))
}

// TestSparse: zeros become holes, and a sparse file of an archive does not cost what it claims to hold.
func TestSparse(t *testing.T) {
	dst, _ := cage(t)
	body := make([]byte, 4<<20)
	copy(body[1<<20:], "middle")
	body[3<<20] = 1
	_, err := apply(t, layer.Unpack{}, dst, file("sparse", string(body)), file("zeros", string(make([]byte, 300_000))))
	require.NoError(t, err)
	require.Equal(t, string(body), read(t, filepath.Join(dst, "sparse")))
	require.Equal(t, string(make([]byte, 300_000)), read(t, filepath.Join(dst, "zeros")))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dst, "sparse"), &st))
	require.Less(t, st.Blocks*512, int64(1<<20))
}

func TestUnprivileged(t *testing.T) {
	needUserAttrs(t)
	dst, _ := cage(t)
	totals, err := apply(t, layer.Unpack{Unprivileged: true, Devices: layer.MakeDevices, Form: layer.UserOverlay}, dst,
		entry{tar.Header{Name: "setuid", Mode: 0o6755, Uid: 12, Gid: 34}, "x"}, kind("null", tar.TypeChar), entry{tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""},
		withAttr(file("capable", "x"), "security.capability", netRaw()), withAttr(file("trusted", "x"), "trusted.x", "x"))
	var refused *layer.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, layer.IsWhiteout, refused.Why, "a device 0:0")
	require.EqualValues(t, 2, totals.Entries)
	dst, _ = cage(t)
	totals, err = apply(t, layer.Unpack{Unprivileged: true, Form: layer.UserOverlay, Devices: layer.SkipDevices}, dst,
		entry{tar.Header{Name: "setuid", Mode: 0o6755, Uid: 12, Gid: 34}, "x"}, entry{tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""},
		withAttr(file("capable", "x"), "security.capability", netRaw()), withAttr(file("trusted", "x"), "trusted.x", "x"), file(".wh.gone", ""), dir("d"), file("d/.wh..wh..opq", ""),
		withAttr(file("label", "x"), "security.selinux", "system_u:object_r:etc_t:s0"))
	require.NoError(t, err)
	require.EqualValues(t, 4, totals.Skipped)
	require.EqualValues(t, 2, totals.Whiteouts)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dst, "setuid"), &st))
	require.EqualValues(t, unix.S_IFREG|0o755, st.Mode)
	require.EqualValues(t, os.Getuid(), st.Uid)
	require.NoFileExists(t, filepath.Join(dst, "null"))
	require.Empty(t, attrs(t, filepath.Join(dst, "capable")))
	require.Equal(t, []string{"user.overlay.opaque=79"}, attrs(t, filepath.Join(dst, "d")))
	require.NoError(t, unix.Lstat(filepath.Join(dst, "gone"), &st))
	require.EqualValues(t, unix.S_IFCHR, st.Mode&unix.S_IFMT)
}

// TestRefusedWithoutPrivilege: what an ordinary user may not do is an error that says so, and nothing is left out in silence.
func TestRefusedWithoutPrivilege(t *testing.T) {
	if root {
		t.Skip("needs an ordinary user; the user lane runs it")
	}
	dst, _ := cage(t)
	for _, e := range []entry{{tar.Header{Name: "owned", Uid: 1}, ""}, withAttr(file("trusted", ""), "trusted.x", "x"), withAttr(file("capable", ""), "security.capability", netRaw()),
		{tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""}} {
		_, err := apply(t, layer.Unpack{Devices: layer.MakeDevices}, dst, e)
		require.ErrorIs(t, err, syscall.EPERM, e.Name)
		require.ErrorContains(t, err, e.Name)
	}
	_, err := apply(t, layer.Unpack{Form: layer.Overlay}, dst, file(".wh..wh..opq", ""))
	require.ErrorIs(t, err, syscall.EPERM)
	_, err = layer.Diff(ctx, &bytes.Buffer{}, dst)
	require.ErrorIs(t, err, syscall.EPERM)
	require.ErrorContains(t, err, "CAP_SYS_ADMIN")
}

// TestOrdinaryUserOverClosed: directories of an earlier layer that are closed to their owner do not stop the next one, and are closed again.
func TestOrdinaryUserOverClosed(t *testing.T) {
	dst, _ := cage(t)
	_, err := apply(t, layer.Unpack{}, dst, entry{tar.Header{Name: "closed", Typeflag: tar.TypeDir, Mode: 0o500}, ""}, file("closed/a", "a"), file("closed/b", "b"))
	require.NoError(t, err)
	_, err = apply(t, layer.Unpack{}, dst, file("closed/.wh.a", ""), file("closed/c", "c"))
	require.NoError(t, err)
	require.Equal(t, []string{"closed", "closed/b", "closed/c"}, names(t, dst))
	var st unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dst, "closed"), &st))
	require.EqualValues(t, unix.S_IFDIR|0o500, st.Mode)
	require.NoError(t, os.Chmod(filepath.Join(dst, "closed"), 0o700))
}

// TestLinks: hard links to what is not there, and to themselves.
func TestLinks(t *testing.T) {
	dst, _ := cage(t)
	_, err := apply(t, layer.Unpack{}, dst, file("a", "a"), hardlink("a", "./a"), hardlink("b", "a"))
	require.NoError(t, err)
	require.Equal(t, "a", read(t, filepath.Join(dst, "b")))
	for _, e := range []entry{hardlink("c", "c"), hardlink("c", "no"), hardlink("c", "no/way")} {
		_, err = apply(t, layer.Unpack{}, dst, e)
		require.ErrorIs(t, err, syscall.ENOENT)
		require.ErrorContains(t, err, e.Linkname)
	}
	_, err = apply(t, layer.Unpack{}, dst, dir("d"), hardlink("c", "d"))
	require.ErrorIs(t, err, syscall.EPERM)
	require.Equal(t, []string{"a", "b", "d"}, names(t, dst))
}

func TestDevices(t *testing.T) {
	null := entry{tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
	disk := entry{tar.Header{Name: "disk", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 240, Devminor: 300, Gid: 6}, ""}
	dst, _ := cage(t)
	totals, err := apply(t, layer.Unpack{Devices: layer.SkipDevices}, dst, null, disk)
	require.NoError(t, err)
	require.EqualValues(t, 2, totals.Skipped)
	require.Empty(t, names(t, dst))
	if !root {
		t.Skip("needs root, to make devices")
	}
	_, err = apply(t, layer.Unpack{Devices: layer.MakeDevices}, dst, null, disk)
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dst, "disk"), &st))
	require.EqualValues(t, unix.S_IFBLK|0o660, st.Mode)
	require.Equal(t, unix.Mkdev(240, 300), uint64(st.Rdev))
	again, _ := cage(t)
	_, err = layer.Unpack{Devices: layer.MakeDevices}.Apply(ctx, again, bytes.NewReader(diff(t, layer.Pack{}, dst)))
	require.NoError(t, err)
	require.Equal(t, state(t, dst), state(t, again))
}
