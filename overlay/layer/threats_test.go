package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// hostile are layers that are refused, with the name of the entry and the reason.
func hostile() map[string]struct {
	layer []entry
	why   layer.Refusal
} {
	type c = struct {
		layer []entry
		why   layer.Refusal
	}
	device := entry{tar.Header{Name: "bad", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, ""}
	global := entry{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax", PAXRecords: map[string]string{"comment": "x"}}, ""}
	return map[string]c{
		"dot dot":             {[]entry{file("../outside/bad", "x")}, layer.IsDotDot},
		"dot dot inside":      {[]entry{file("a/../bad", "x")}, layer.IsDotDot},
		"dot dot at the end":  {[]entry{dir("bad/..")}, layer.IsDotDot},
		"absolute":            {[]entry{file("/bad", "x")}, layer.IsAbsolute},
		"root as file":        {[]entry{file(".", "x")}, layer.IsRoot},
		"root as link":        {[]entry{symlink("./", "/")}, layer.IsRoot},
		"root as hard link":   {[]entry{hardlink("./", "x")}, layer.IsRoot},
		"file as parent":      {[]entry{file("a", "x"), file("a/bad", "x")}, layer.IsBelowFile},
		"fifo as parent":      {[]entry{kind("a", tar.TypeFifo), file("a/bad", "x")}, layer.IsBelowFile},
		"link to file":        {[]entry{file("a", "x"), symlink("l", "a"), file("l/bad", "x")}, layer.IsBelowFile},
		"loop":                {[]entry{symlink("a", "b"), symlink("b", "a"), file("a/bad", "x")}, layer.IsLoop},
		"link out":            {[]entry{hardlink("bad", "../outside/secret")}, layer.IsDotDot},
		"absolute link":       {[]entry{hardlink("bad", "/etc/passwd")}, layer.IsAbsolute},
		"link to root":        {[]entry{hardlink("bad", ".")}, layer.IsNoName},
		"link to whiteout":    {[]entry{hardlink("bad", ".wh.x")}, layer.IsWhiteout},
		"device":              {[]entry{device}, layer.IsDevice},
		"whiteout device":     {[]entry{kind("bad", tar.TypeChar)}, layer.IsWhiteout},
		"whiteout of nothing": {[]entry{file("a/.wh.", "")}, layer.IsBadWhiteout},
		"whiteout of dot":     {[]entry{file(".wh..", "")}, layer.IsBadWhiteout},
		"whiteout of dot dot": {[]entry{file(".wh...", "")}, layer.IsBadWhiteout},
		"unknown special":     {[]entry{file(".wh..wh.plnk", "")}, layer.IsBadWhiteout},
		"special in special":  {[]entry{file(".wh..wh..wh.x", "")}, layer.IsBadWhiteout},
		"below a whiteout":    {[]entry{file(".wh.x/bad", "")}, layer.IsBadWhiteout},
		"whiteout with text":  {[]entry{file(".wh.bad", "x")}, layer.IsBadWhiteout},
		"directory whiteout":  {[]entry{dir(".wh.bad")}, layer.IsBadWhiteout},
		"unknown type":        {[]entry{kind("bad", 'Q')}, layer.IsUnknown},
		"owner -1":            {[]entry{{tar.Header{Name: "bad", Uid: id(math.MaxUint32), Gid: 1}, ""}}, layer.IsBadOwner},
		"owner too large":     {[]entry{{tar.Header{Name: "bad", Uid: 1, Gid: id(math.MaxUint32 + 1)}, ""}}, layer.IsBadOwner},
		"overlay attribute":   {[]entry{withAttr(dir("bad"), "trusted.overlay.redirect", "/etc")}, layer.IsOverlayAttr},
		"user's overlay":      {[]entry{withAttr(file("bad", ""), "user.overlay.metacopy", "")}, layer.IsOverlayAttr},
		"attribute of no one": {[]entry{withAttr(file("bad", ""), "bad", "x")}, layer.IsBadAttr},
		"attribute no space":  {[]entry{withAttr(file("bad", ""), "odd.name", "x")}, layer.IsBadAttr},
		"access control list": {[]entry{{tar.Header{Name: "bad", PAXRecords: map[string]string{"SCHILY.acl.access": "user:root:rwx"}}, ""}}, layer.IsBadAttr},
		"after a global":      {[]entry{global, file("../bad", "x")}, layer.IsDotDot},
	}
}

func id(n int64) int { return int(n) }

// TestThreatsLayers is the row "layers" of what has gone wrong in this field.
func TestThreatsLayers(t *testing.T) {
	steady(t)
	for name, c := range hostile() {
		for _, form := range append(forms(t), layer.Plain) {
			t.Run(name+" "+form.String(), func(t *testing.T) {
				dst, outside := cage(t)
				require.NoError(t, os.Symlink(outside, filepath.Join(dst, "out")))
				_, err := apply(t, layer.Unpack{Form: form}, dst, c.layer...)
				var refused *layer.RefusedError
				require.ErrorAs(t, err, &refused)
				require.Equal(t, c.why, refused.Why, err)
				var e *layer.Error
				require.ErrorAs(t, err, &e)
				require.Equal(t, c.layer[len(c.layer)-1].Name, e.Entry)
				require.NotContains(t, err.Error(), "\n")
				var errno syscall.Errno
				require.ErrorAs(t, err, &errno)
				require.Equal(t, []string{"secret"}, names(t, outside))
			})
		}
	}
}

// TestThreatsInside: what is not refused, because images do it, stays inside.
func TestThreatsInside(t *testing.T) {
	for name, c := range map[string]struct {
		layer []entry
		want  string // where the file is
	}{
		"absolute link":      {[]entry{symlink("l", "/outside"), file("l/x", "x")}, "outside/x"},
		"dot dot link":       {[]entry{dir("a"), symlink("a/l", "../../../outside"), file("a/l/x", "x")}, "outside/x"},
		"link that was here": {[]entry{file("here/x", "x")}, "OUTSIDE/x"},
		"chain":              {[]entry{symlink("a", "/b"), symlink("b", "here"), file("a/x", "x")}, "OUTSIDE/x"},
		"root":               {[]entry{symlink("l", "/"), file("l/l/l/x", "x")}, "x"},
		"link to dot dot":    {[]entry{symlink("l", ".."), file("l/x", "x")}, "x"},
		"proc":               {[]entry{symlink("l", "/proc/self/root"), file("l/x", "x")}, "proc/self/root/x"},
		"late link":          {[]entry{dir("d"), file("d/y", "y"), symlink("d", "/outside"), file("d/x", "x")}, "outside/x"},
	} {
		t.Run(name, func(t *testing.T) {
			dst, outside := cage(t)
			require.NoError(t, os.Symlink(outside, filepath.Join(dst, "here")))
			_, err := apply(t, layer.Unpack{}, dst, c.layer...)
			require.NoError(t, err)
			require.Equal(t, "x", read(t, filepath.Join(dst, strings.Replace(c.want, "OUTSIDE", outside, 1))))
			require.Equal(t, []string{"secret"}, names(t, outside))
			require.Equal(t, "secret", read(t, filepath.Join(outside, "secret")))
		})
	}
	// The last word of a name is never followed, nor is what is there written to, nor does a whiteout reach through it.
	dst, outside := cage(t)
	for _, name := range []string{"f", "d", "l", "h", "w"} {
		require.NoError(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dst, name)))
	}
	require.NoError(t, os.Symlink(outside, filepath.Join(dst, "tree")))
	_, err := apply(t, layer.Unpack{}, dst, file("f", "new"), dir("d"), symlink("l", "x"), hardlink("h", "f"), file(".wh.w", ""), file(".wh.tree", ""))
	require.NoError(t, err)
	require.Equal(t, "new", read(t, filepath.Join(dst, "h")))
	require.Equal(t, "secret", read(t, filepath.Join(outside, "secret")))
	// A hard link to a symbolic link is one to the link itself.
	dst, outside = cage(t)
	_, err = apply(t, layer.Unpack{}, dst, symlink("l", filepath.Join(outside, "secret")), hardlink("h", "l"), file("h", "new"))
	require.NoError(t, err)
	require.Equal(t, "secret", read(t, filepath.Join(outside, "secret")))
}

// TestThreatsMount: another file system that is mounted in the tree is not entered.
func TestThreatsMount(t *testing.T) {
	_, err := apply(t, layer.Unpack{}, "/", file("proc/sys/kernel/bad", "x"))
	var refused *layer.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, layer.IsMount, refused.Why)
	require.ErrorIs(t, err, syscall.EXDEV)
}

// TestThreatsSwap: somebody exchanges directories for links while a layer is unpacked.
func TestThreatsSwap(t *testing.T) {
	dst, outside := cage(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dst, "a/b"), 0o755))
	require.NoError(t, os.Symlink(outside, filepath.Join(dst, "evil")))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			unix.Renameat2(unix.AT_FDCWD, filepath.Join(dst, "a/b"), unix.AT_FDCWD, filepath.Join(dst, "evil"), unix.RENAME_EXCHANGE)
			unix.Renameat2(unix.AT_FDCWD, filepath.Join(dst, "a"), unix.AT_FDCWD, filepath.Join(dst, "evil"), unix.RENAME_EXCHANGE)
		}
	}()
	b := archive(t, dir("a"), dir("a/b"), file("a/b/x", "x"), file("a/b/secret", "stolen"), hardlink("a/b/y", "a/b/x"), symlink("a/b/z", "x"), file("a/b/.wh.old", ""), file("a/.wh.secret", ""),
		file("a/b/.wh..wh..opq", ""), kind("a/b/f", tar.TypeFifo), file("evil/secret", "stolen"), dir("a/b/d"), file("a/b/d/x", "x"))
	end := time.Now().Add(time.Second)
	if os.Getenv("CAISSON_SLOW") != "" && os.Getenv("VMRUN") == "" {
		end = time.Now().Add(20 * time.Second)
	}
	rounds := 0
	for ; time.Now().Before(end); rounds++ {
		layer.Apply(ctx, dst, bytes.NewReader(b)) // fails now and then, as it may
	}
	close(stop)
	<-done
	require.NotZero(t, rounds)
	require.Equal(t, []string{"secret"}, names(t, outside))
	require.Equal(t, "secret", read(t, filepath.Join(outside, "secret")))
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limits layer.Limits
		layer  []entry
		why    layer.Refusal
	}{
		"entries": {layer.Limits{Entries: 2}, []entry{file("a", ""), file("b", ""), file("bad", "")}, layer.IsTooMany},
		"bytes":   {layer.Limits{Bytes: 10}, []entry{file("a", "12345"), file("bad", "123456")}, layer.IsTooLarge},
		"implied": {layer.Limits{Entries: 9}, []entry{file("a/b", ""), file("c/d/e/f/g/h/i/bad", "")}, layer.IsTooMany},
		"depth":   {layer.Limits{Depth: 3}, []entry{dir("a/b/c"), file("a/b/c/d", ""), dir("a/b/c/bad")}, layer.IsTooDeep},
		"parents": {layer.Limits{Depth: 3}, []entry{file("a/b/c/d/bad", "")}, layer.IsTooDeep},
		"linked":  {layer.Limits{Depth: 3}, []entry{dir("a/b/c"), symlink("l", "a/b/c"), dir("l/bad")}, layer.IsTooDeep},
	} {
		dst, _ := cage(t)
		_, err := apply(t, layer.Unpack{Limits: c.limits}, dst, c.layer...)
		var refused *layer.RefusedError
		require.ErrorAs(t, err, &refused, name)
		require.Equal(t, c.why, refused.Why, name)
		require.ErrorContains(t, err, "bad")
	}
}

// sparse is an archive with one file in the old form of GNU tar, which has no contents and claims to be large.
func sparse(size int64) []byte {
	b := make([]byte, 512)
	copy(b, "bad\x00")
	copy(b[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00        S")
	copy(b[257:], "ustar  \x00")
	put := func(at int, n int64) {
		b[at] = 0x80
		for i := range 8 {
			b[at+11-i] = byte(n >> (8 * i))
		}
	}
	put(386, size) // one piece of no bytes at the end
	put(398, 0)
	put(483, size)
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	for i := range 6 {
		b[148+5-i] = byte('0' + sum>>(3*i)&7)
	}
	b[154], b[155] = 0, ' '
	return append(b, make([]byte, 1024)...)
}

// TestHugeSparse: a kilobyte that claims to be exabytes is refused before anything is written, and within the limit costs no disk.
func TestHugeSparse(t *testing.T) {
	dst, _ := cage(t)
	began := time.Now()
	for _, size := range []int64{math.MaxInt64 - 1024, 1 << 50} {
		_, err := layer.Apply(ctx, dst, bytes.NewReader(sparse(size)))
		var refused *layer.RefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, layer.IsTooLarge, refused.Why)
		require.ErrorContains(t, err, "bad")
	}
	require.Less(t, time.Since(began), time.Second)
	require.Empty(t, names(t, dst))
	_, err := layer.Unpack{Unprivileged: !root}.Apply(ctx, dst, bytes.NewReader(sparse(64<<20)))
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dst, "bad"), &st))
	require.EqualValues(t, 64<<20, st.Size)
	require.Less(t, st.Blocks, int64(100))
}

// TestHeaderBombs: an entry with more header than any needs.
func TestHeaderBombs(t *testing.T) {
	pax := func(typ byte, body []byte) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: int64(len(body)), Mode: 0o644}))
		w.Write(body)
		w.Flush()
		out := b.Bytes()
		out[156] = typ
		copy(out[148:156], "        ")
		sum := 0
		for _, c := range out[:512] {
			sum += int(c)
		}
		for i := range 6 {
			out[148+5-i] = byte('0' + sum>>(3*i)&7)
		}
		out[154], out[155] = 0, ' '
		return out
	}
	record := []byte("20 comment=aaaaaaaa\n")
	for name, r := range map[string]io.Reader{
		"large record":   bytes.NewReader(pax('x', bytes.Repeat(record, 1<<18))),
		"large name":     bytes.NewReader(pax('L', bytes.Repeat([]byte("x"), 2<<20))),
		"endless record": &endless{piece: pax('x', bytes.Repeat(record, 50_000))},
		"endless names":  &endless{piece: pax('L', bytes.Repeat([]byte("x"), 1000))},
	} {
		dst, _ := cage(t)
		_, err := layer.Apply(ctx, dst, r)
		var refused *layer.RefusedError
		require.ErrorAs(t, err, &refused, name)
		require.Equal(t, layer.IsHeader, refused.Why, name)
	}
}

// TestHeadersAreNotKept: of thousands of entries with large headers little stays in memory, though all directories are remembered until the end.
func TestHeadersAreNotKept(t *testing.T) {
	pad := strings.Repeat(strings.Repeat("p", 250)+"/", 1600) // all in one directory, whose name is long
	records := map[string]string{"comment": strings.Repeat("x", 400<<10), "SCHILY.xattr.user.a": "v"}
	headers := func(name string, typ byte) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: pad + name, Typeflag: typ, Mode: 0o755, PAXRecords: records}))
		require.NoError(t, w.Flush())
		return b.Bytes()
	}
	r, w := io.Pipe()
	go func() {
		for i := range 30 {
			w.Write(headers(fmt.Sprintf("d%d/", i), tar.TypeDir))
			w.Write(headers(fmt.Sprintf("d%d/f", i), tar.TypeReg))
		}
		w.Write(make([]byte, 1024))
		w.Close()
	}()
	dst, _ := cage(t)
	var most uint64
	_, err := layer.Unpack{Unprivileged: true, Progress: func(layer.Totals) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
	}}.Apply(ctx, dst, r)
	if !errors.Is(err, errors.ErrUnsupported) { // the file system may have no attributes; those of directories come last
		require.NoError(t, err)
	}
	require.Less(t, most, uint64(20<<20), "of 48 MiB of headers")
}

// TestAttributeBombs: attributes of directories are remembered, so they have a limit.
func TestAttributeBombs(t *testing.T) {
	records := map[string]string{}
	for i := range 10 {
		records[fmt.Sprintf("SCHILY.xattr.user.%d", i)] = strings.Repeat("x", 60<<10)
	}
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		for i := 0; tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/", i), Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: records}) == nil; i++ {
		}
	}()
	dst, _ := cage(t)
	_, err := layer.Unpack{Unprivileged: true}.Apply(ctx, dst, r)
	r.Close()
	var refused *layer.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, layer.IsBadAttr, refused.Why)
	for name, value := range map[string]string{"user." + strings.Repeat("n", 251): "v", "user.v": strings.Repeat("v", 64<<10+1)} {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr." + name: value}}))
		require.NoError(t, tw.Close())
		_, err := layer.Unpack{Unprivileged: true}.Apply(ctx, dst, &b)
		require.ErrorAs(t, err, &refused)
		require.Equal(t, layer.IsBadAttr, refused.Why)
	}
}

// endless gives the same bytes for ever.
type endless struct {
	piece []byte
	at    int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.piece[e.at:])
	e.at = (e.at + n) % len(e.piece)
	return n, nil
}

// TestEndlessEnd: what follows an archive is read for checksums, but not for ever.
func TestEndlessEnd(t *testing.T) {
	dst, _ := cage(t)
	r := io.MultiReader(bytes.NewReader(archive(t, file("a", ""))), &endless{piece: make([]byte, 4096)})
	_, err := layer.Unpack{Limits: layer.Limits{Bytes: 1 << 20}}.Apply(ctx, dst, r)
	var refused *layer.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, layer.IsTooLarge, refused.Why)
}

// TestHoleCancelled: a hole of a terabyte is not read from anywhere, and ends with the context all the same.
func TestHoleCancelled(t *testing.T) {
	dst, _ := cage(t)
	stopped, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := layer.Unpack{Unprivileged: !root}.Apply(stopped, dst, bytes.NewReader(sparse(1<<40)))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestRefusalStrings(t *testing.T) {
	for why := layer.IsAbsolute; why <= layer.IsBusy; why++ {
		e := &layer.RefusedError{Why: why, Detail: "x"}
		require.NotContains(t, e.Error(), "refused: refused")
		require.NotZero(t, e.Unwrap())
	}
	require.True(t, errors.Is(&layer.RefusedError{Why: 200}, syscall.EPERM))
	e := &layer.Error{Op: "apply", Entry: strings.Repeat("x\n", 5000), Err: syscall.EIO}
	require.Less(t, len(e.Error()), 1000)
}
