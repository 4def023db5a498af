package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
	"github.com/caisson-dev/caisson/overlay/store"
)

// TestMain lets the test binary be the other process of a test.
func TestMain(m *testing.M) {
	switch os.Getenv("STORE_TEST") {
	case "add":
		os.Exit(addForEver(os.Getenv("STORE_DIR")))
	case "lease":
		os.Exit(leaseForEver(os.Getenv("STORE_DIR")))
	}
	os.Exit(m.Run())
}

func TestAdd(t *testing.T) {
	var last store.Progress
	s := open(t, store.Dir{Progress: func(p store.Progress) { last = p }})
	b := pack(t, "a/", "a/x=hello", ".wh.gone")
	for _, c := range []layer.Compression{layer.Zstd, layer.Gzip, layer.Uncompressed} {
		packed := compress(t, c, b)
		l, err := s.Add(ctx, reading(packed), store.Expect{DiffID: digest.FromBytes(b), Digest: digest.FromBytes(packed), Size: int64(len(packed))})
		require.NoError(t, err)
		require.Equal(t, digest.FromBytes(b), l.DiffID)
		require.EqualValues(t, 4, l.Totals.Entries)
		require.NotZero(t, l.Bytes)
		require.True(t, last.Done)
		require.Equal(t, c != layer.Zstd, last.Known)
		layers, err := s.Layers()
		require.NoError(t, err)
		require.Len(t, layers, 1)
	}
	// Known: nothing is read. Unknown digest: it is unpacked and found to be there.
	_, err := s.Add(ctx, never, store.Expect{DiffID: digest.FromBytes(b)})
	require.NoError(t, err)
	_, err = s.Add(ctx, reading(b), store.Expect{})
	require.NoError(t, err)
	clean(t, s)
	lease, err := s.Lease(ctx, digest.FromBytes(b))
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(lease.Lowers()[0], "a/x"))
	require.NoError(t, err)
	require.Equal(t, "hello", string(text))
	require.NoError(t, lease.Release())
	require.NoError(t, lease.Release())
	clean(t, s)
}

// TestNotAsExpected: what is not what it should be leaves nothing behind.
func TestNotAsExpected(t *testing.T) {
	s := open(t, store.Dir{})
	b := pack(t, "x=1")
	packed := compress(t, layer.Gzip, b)
	wrong := digest.FromString("wrong")
	for name, c := range map[string]struct {
		data []byte
		want store.Expect
		err  error
	}{
		"diff id":    {packed, store.Expect{DiffID: wrong}, syscall.EBADMSG},
		"digest":     {packed, store.Expect{Digest: wrong}, syscall.EBADMSG},
		"too short":  {packed, store.Expect{Size: int64(len(packed) + 1)}, syscall.EBADMSG},
		"too long":   {packed, store.Expect{Size: int64(len(packed) - 1)}, syscall.EBADMSG},
		"no digest":  {packed, store.Expect{Digest: "../../x"}, syscall.EINVAL},
		"no diff id": {packed, store.Expect{DiffID: "sha256:../../../x"}, syscall.EINVAL},
		"sha512":     {packed, store.Expect{DiffID: digest.SHA512.FromString("x")}, syscall.EINVAL},
		"truncated":  {packed[:len(packed)-3], store.Expect{}, layer.ErrCorrupt},
		"corrupt":    {append([]byte{packed[0], packed[1]}, make([]byte, 100)...), store.Expect{}, layer.ErrCorrupt},
		"hostile":    {pack(t, "../x=1"), store.Expect{}, syscall.EINVAL},
	} {
		_, err := s.Add(ctx, reading(c.data), c.want)
		require.ErrorIs(t, err, c.err, name)
		layers, err := s.Layers()
		require.NoError(t, err)
		require.Empty(t, layers, name)
		clean(t, s)
	}
	_, err := s.Add(ctx, func() (io.ReadCloser, error) { return nil, syscall.EIO }, store.Expect{})
	require.ErrorIs(t, err, syscall.EIO)
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Add(stopped, reading(b), store.Expect{})
	require.ErrorIs(t, err, context.Canceled)
	clean(t, s)
}

// TestDiskFull: in the middle of a layer nothing half is stored.
func TestDiskFull(t *testing.T) {
	if !root {
		t.Skip("needs root, to mount a small file system")
	}
	s := open(t, store.Dir{Path: filepath.Join(small(t), "store")})
	var files []string
	for i := range 100 {
		files = append(files, fmt.Sprintf("f%d=%s", i, strings.Repeat("x", 50_000)))
	}
	_, err := s.Add(ctx, reading(pack(t, files...)), store.Expect{})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, `"f`)
	layers, err := s.Layers()
	require.NoError(t, err)
	require.Empty(t, layers)
	clean(t, s)
	add(t, s, pack(t, "x=fits"))
}

func small(t *testing.T) string {
	fsfd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fsfd)
	require.NoError(t, unix.FsconfigSetString(fsfd, "size", "2m"))
	require.NoError(t, unix.FsconfigCreate(fsfd))
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d", fd)
}

func TestLeaseAndDelete(t *testing.T) {
	s := open(t, store.Dir{})
	base, top := add(t, s, pack(t, "base=1")).DiffID, add(t, s, pack(t, "top=1")).DiffID
	gone := digest.FromString("gone")
	_, err := s.Lease(ctx, base, gone)
	var missing *store.MissingError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, string(gone), missing.What)
	require.ErrorIs(t, err, fs.ErrNotExist)
	lease, err := s.Lease(ctx, base, top)
	require.NoError(t, err)
	lowers := lease.Lowers()
	require.FileExists(t, filepath.Join(lowers[0], "top"), "the topmost comes first")
	require.FileExists(t, filepath.Join(lowers[1], "base"))

	err = s.Delete(ctx, base)
	var used *store.InUseError
	require.ErrorAs(t, err, &used)
	require.Equal(t, store.InUseError{DiffID: base, By: "a lease"}, *used)
	require.ErrorIs(t, err, syscall.EBUSY)
	removed, err := s.Collect(ctx)
	require.NoError(t, err)
	require.Empty(t, removed)
	require.NoError(t, lease.Release())

	require.NoError(t, s.Tag(ctx, store.Image{Name: "image:1", Layers: []digest.Digest{base}}))
	require.ErrorAs(t, s.Delete(ctx, base), &used)
	require.Equal(t, `image "image:1"`, used.By)
	removed, err = s.Collect(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{string(top)}, ids(removed))
	_, err = s.Layer(top)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, s.Untag("image:1"))
	require.ErrorIs(t, s.Untag("image:1"), fs.ErrNotExist)
	require.NoError(t, s.Delete(ctx, base))
	require.ErrorIs(t, s.Delete(ctx, base), fs.ErrNotExist)
	require.ErrorIs(t, s.Delete(ctx, "sha256:.."), syscall.EINVAL)
	clean(t, s)
}

func TestTag(t *testing.T) {
	s := open(t, store.Dir{})
	base := add(t, s, pack(t, "base=1")).DiffID
	require.ErrorIs(t, s.Tag(ctx, store.Image{Name: "x", Layers: []digest.Digest{digest.FromString("no")}}), fs.ErrNotExist)
	for _, name := range []string{"", "a\nb", strings.Repeat("x", 2000)} {
		require.ErrorIs(t, s.Tag(ctx, store.Image{Name: name}), syscall.EINVAL)
	}
	for _, name := range []string{"../../../etc/x", "b/c:1", "日本", "."} {
		require.NoError(t, s.Tag(ctx, store.Image{Name: name, Layers: []digest.Digest{base}, Config: v1.Image{Author: "me"}}))
		i, err := s.Image(name)
		require.NoError(t, err)
		require.Equal(t, "me", i.Config.Author)
	}
	images, err := s.Images()
	require.NoError(t, err)
	require.Len(t, images, 4)
	_, err = s.Image("no")
	require.ErrorIs(t, err, fs.ErrNotExist)
	clean(t, s)
}

func TestUsage(t *testing.T) {
	s := open(t, store.Dir{})
	base, one, two := add(t, s, pack(t, "base="+strings.Repeat("b", 100_000))), add(t, s, pack(t, "one=1")), add(t, s, pack(t, "two=2"))
	require.NoError(t, s.Tag(ctx, store.Image{Name: "one", Layers: []digest.Digest{base.DiffID, one.DiffID}}))
	u, err := s.Usage("one")
	require.NoError(t, err)
	require.Equal(t, store.Usage{Own: base.Bytes + one.Bytes}, u)
	require.Greater(t, u.Own, int64(100_000))
	require.NoError(t, s.Tag(ctx, store.Image{Name: "two", Layers: []digest.Digest{base.DiffID, two.DiffID}}))
	u, err = s.Usage("one")
	require.NoError(t, err)
	require.Equal(t, store.Usage{Own: one.Bytes, Shared: base.Bytes}, u)
	_, err = s.Usage("no")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestVerify(t *testing.T) {
	s := open(t, store.Dir{Verifiable: true})
	id := add(t, s, pack(t, "x=1")).DiffID
	require.NoError(t, s.Verify(ctx, id))
	lease, err := s.Lease(ctx, id)
	require.NoError(t, err)
	defer lease.Release()
	require.NoError(t, os.WriteFile(filepath.Join(lease.Lowers()[0], "x"), []byte("2"), 0o644))
	err = s.Verify(ctx, id)
	var mismatch *store.MismatchError
	require.ErrorAs(t, err, &mismatch)
	require.Equal(t, "tree", mismatch.What)
	require.ErrorIs(t, s.Verify(ctx, digest.FromString("no")), fs.ErrNotExist)
	plain := open(t, store.Dir{})
	require.ErrorIs(t, plain.Verify(ctx, add(t, plain, pack(t, "x=1")).DiffID), errors.ErrUnsupported)
}

func TestOpenRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, os.Mkdir(dir, 0o755))
	require.NoError(t, os.Chmod(dir, 0o755))
	_, err := store.Dir{Path: dir}.Open()
	require.ErrorIs(t, err, syscall.EPERM, "open to others")
	_, err = store.Dir{Path: "/dev/null"}.Open()
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = store.Dir{Path: "/no/such/store"}.Open()
	require.Error(t, err)
	_, err = store.Dir{}.Open()
	require.ErrorIs(t, err, syscall.EINVAL)
	_, err = store.Dir{Path: dir, Devices: 9}.Open()
	require.ErrorIs(t, err, syscall.EINVAL)
	require.NoError(t, os.Chmod(dir, 0o700))
	_, err = store.Dir{Path: dir, Unprivileged: true}.Open()
	require.NoError(t, err)
	_, err = store.Dir{Path: dir}.Open()
	require.ErrorIs(t, err, syscall.EINVAL, "for other mounts")
}

// TestAtOnce: many want the same layers at the same time, each is read once.
func TestAtOnce(t *testing.T) {
	s := open(t, store.Dir{})
	var layers [][]byte
	for i := range 5 {
		layers = append(layers, pack(t, fmt.Sprintf("f=%d", i)))
	}
	var opened atomic.Int32
	var all sync.WaitGroup
	for range 6 {
		for _, b := range layers {
			all.Go(func() {
				_, err := s.Add(ctx, func() (io.ReadCloser, error) { opened.Add(1); return reading(b)() }, store.Expect{DiffID: digest.FromBytes(b)})
				require.NoError(t, err)
			})
		}
	}
	all.Wait()
	require.EqualValues(t, len(layers), opened.Load())
	clean(t, s)
}

// addForEver is a process that adds, leases, deletes and collects until it is killed.
func addForEver(dir string) int {
	s, err := store.Dir{Path: dir, Unprivileged: !root, Verifiable: true}.Open()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	t := &testing.T{}
	for i := 0; ; i++ {
		var files []string
		for n := range 30 {
			files = append(files, fmt.Sprintf("d%d/f%d=%s", n%5, n, strings.Repeat("x", 1000*n)))
		}
		b := pack(t, append(files, fmt.Sprintf("round=%d", i%4))...)
		id := digest.FromBytes(b)
		lease, err := s.Reserve(ctx, id)
		if err == nil {
			_, err = s.Add(ctx, reading(b), store.Expect{DiffID: id})
		}
		if err == nil {
			err = s.Verify(ctx, id)
		}
		if err == nil {
			err = s.Tag(ctx, store.Image{Name: fmt.Sprint(i % 2), Layers: []digest.Digest{id}})
		}
		if err == nil {
			err = lease.Release()
		}
		if err == nil {
			_, err = s.Collect(ctx)
		}
		if err != nil {
			fmt.Println("ERROR", err)
			return 1
		}
	}
}

func other(t *testing.T, dir, what string) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "STORE_TEST="+what, "STORE_DIR="+dir)
	var out strings.Builder
	cmd.Stdout = &out
	require.NoError(t, cmd.Start())
	return cmd, &out
}

// TestKilled: processes that share a store are killed at any point, and what is there is complete.
func TestKilled(t *testing.T) {
	s := open(t, store.Dir{Verifiable: true})
	rounds := 8
	if os.Getenv("CAISSON_SLOW") != "" && os.Getenv("VMRUN") == "" {
		rounds = 100
	}
	seen := 0
	for i := range rounds {
		var others []*exec.Cmd
		var outs []*strings.Builder
		for range 2 {
			cmd, out := other(t, s.Path, "add")
			others, outs = append(others, cmd), append(outs, out)
		}
		if i == 0 { // how long it takes until something is there
			require.Eventually(t, func() bool { l, err := s.Layers(); return err == nil && len(l) > 0 }, time.Minute, 5*time.Millisecond)
		}
		time.Sleep(time.Duration(i*37%200) * time.Millisecond)
		for n, cmd := range others {
			require.NoError(t, cmd.Process.Kill())
			cmd.Wait()
			require.Empty(t, outs[n].String())
		}
		layers, err := s.Layers()
		require.NoError(t, err)
		for _, l := range layers {
			seen++
			require.NoError(t, s.Verify(ctx, l.DiffID))
		}
		images, err := s.Images()
		require.NoError(t, err)
		for _, i := range images {
			for _, id := range i.Layers {
				require.NoError(t, s.Verify(ctx, id), "an image's layer is there")
			}
		}
		_, err = s.Collect(ctx)
		require.NoError(t, err)
		clean(t, s)
	}
	require.NotZero(t, seen)
}

func leaseForEver(dir string) int {
	s, err := store.Dir{Path: dir, Unprivileged: !root}.Open()
	if err != nil {
		return 1
	}
	layers, err := s.Layers()
	if err != nil {
		return 1
	}
	if _, err := s.Lease(ctx, layers[0].DiffID); err != nil {
		return 1
	}
	os.WriteFile(filepath.Join(dir, "leased"), nil, 0o600)
	time.Sleep(time.Minute)
	return 0
}

// TestLeaseEndsWithItsProcess, however it ends.
func TestLeaseEndsWithItsProcess(t *testing.T) {
	s := open(t, store.Dir{})
	id := add(t, s, pack(t, "x=1")).DiffID
	cmd, _ := other(t, s.Path, "lease")
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(s.Path, "leased")); return err == nil }, 20*time.Second, 5*time.Millisecond)
	require.ErrorIs(t, s.Delete(ctx, id), syscall.EBUSY)
	require.NoError(t, cmd.Process.Kill())
	cmd.Wait()
	require.NoError(t, s.Delete(ctx, id))
	clean(t, s)
}

// TestMounts: what a lease gives is what the kernel mounts.
func TestMounts(t *testing.T) {
	if !root {
		t.Skip("needs root, to mount")
	}
	s := open(t, store.Dir{})
	base, top := add(t, s, pack(t, "old=1", "both=base", "d/", "d/x=1")), add(t, s, pack(t, ".wh.old", "both=top", "d/", "d/.wh..wh..opq", "d/y=2"))
	lease, err := s.Lease(ctx, base.DiffID, top.DiffID)
	require.NoError(t, err)
	defer lease.Release()
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fsfd)
	require.NoError(t, unix.FsconfigSetString(fsfd, "lowerdir", strings.Join(lease.Lowers(), ":")))
	require.NoError(t, unix.FsconfigCreate(fsfd))
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	at := fmt.Sprintf("/proc/self/fd/%d/", fd)
	text, err := os.ReadFile(at + "both")
	require.NoError(t, err)
	require.Equal(t, "top", string(text))
	list, err := os.ReadDir(at)
	require.NoError(t, err)
	require.Len(t, list, 2)
	list, err = os.ReadDir(at + "d")
	require.NoError(t, err)
	require.Len(t, list, 1)
}
