package driver_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launchtest"
	"github.com/caisson-dev/caisson/overlay"
	"github.com/caisson-dev/caisson/overlay/driver"
	"github.com/caisson-dev/caisson/overlay/layer"
	"github.com/caisson-dev/caisson/plan"
)

// twoLayers: the upper one deletes a file, and covers a directory.
func twoLayers(t *testing.T) driver.Layers {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	l := driver.Layers{Lower: []string{dir + "/top, of : \"two\"", dir + "/base"}, Unprivileged: os.Geteuid() != 0 || !inFirst(t)}
	u := layer.Unpack{Form: layer.Overlay}
	if l.Unprivileged {
		u = layer.Unpack{Form: layer.UserOverlay, Unprivileged: true}
	}
	for i, names := range [][]string{
		{"d/", "d/.wh..wh..opq", "d/new", "f", ".wh.gone"},
		{"usr/", "lib/", "lib64/", "bin/", "d/", "d/old", "e/", "e/keep", "f", "gone", "late", "x/", "x/y"},
	} {
		require.NoError(t, os.Mkdir(l.Lower[i], 0o755))
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range names {
			h := &tar.Header{Name: name, Mode: 0o755, Uid: os.Geteuid(), Gid: os.Getegid()}
			if name[len(name)-1] == '/' {
				h.Typeflag = tar.TypeDir
			}
			require.NoError(t, w.WriteHeader(h))
		}
		require.NoError(t, w.Close())
		_, err := u.Apply(context.Background(), l.Lower[i], &b)
		require.NoError(t, err)
	}
	return l
}

const inside = "for i in d/* e/* f gone late x/*; do test -e $i && echo $i; done; rm late; rm -r x; mkdir x; echo z > x/z; rm -r e; echo e > e; echo more >> f; ln f g; chmod 2751 d"

const found = "d/new\ne/keep\nf\nlate\nx/y\n"

// changed is what is there in the end, with whichever driver.
const changed = "d/new\ne\nf\ng\nx/z\n"

// shell runs a script in the root that has been put together.
func shell(t *testing.T, a *driver.Assembled, script string) string {
	t.Helper()
	parts := []plan.Primitive{chroot.Pivot{Dir: a.Path}}
	if a.Path == "" {
		parts[0] = overlay.Root(a.Stack)
	}
	for _, d := range []string{"/usr", "/lib", "/lib64", "/bin"} {
		if _, err := os.Stat(d); err == nil {
			parts = append(parts, chroot.Bind{Source: d, Target: d, ReadOnly: true})
		}
	}
	return launchtest.Run(t, script, parts...)
}

// TestLayers: what is seen, and what is committed, is the same with each driver.
func TestLayers(t *testing.T) {
	l := twoLayers(t)
	top := t.TempDir()
	for _, name := range driver.Names() {
		t.Run(name, func(t *testing.T) { throughLayers(t, l, name, filepath.Join(top, name)) })
	}
}

func throughLayers(t *testing.T, l driver.Layers, name, dir string) {
	ctx := context.Background()
	exec.Command("modprobe", "fuse").Run() // where it is a module
	require.NoError(t, os.Mkdir(dir, 0o755))
	l.Dir = dir
	a, err := l.Open(ctx, name)
	if errors.Is(err, errors.ErrUnsupported) {
		left, e := os.ReadDir(dir)
		require.NoError(t, e)
		require.Empty(t, left)
		if name == "btrfs" || name == "zfs" { // TestLayersOnBtrfs and TestZfsLayers are where they work
			require.ErrorContains(t, err, "is not on "+name)
			return
		}
		t.Skipf("%v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { a.Close() }) // when the test fails
	require.Equal(t, name, a.Driver)
	require.Equal(t, found, shell(t, a, inside))
	made := dir + "-made"
	require.NoError(t, a.Commit(ctx, made))
	require.ErrorIs(t, a.Commit(ctx, made+"2"), syscall.EINVAL, "once")
	require.NoError(t, a.Close())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	checks := []string{name}
	if name != "vfs" && os.Getenv("VMRUN") == "" { // also by another driver than the one that made it
		checks = append(checks, "vfs")
	}
	for _, check := range checks {
		next := l
		next.Lower = append([]string{made}, l.Lower...)
		a, err = next.Open(ctx, check)
		require.NoError(t, err)
		require.Equal(t, changed+"more\nmore\ne\n2751 2\n", shell(t, a, "for i in d/* e f g gone late x/*; do test -e $i && echo $i; done; cat f g e; stat -c %a d | tr '\\n' ' '; stat -c %h f"), check)
		require.NoError(t, a.Close())
	}
	names, err := filepath.Glob(filepath.Dir(dir) + "/*.part-*")
	require.NoError(t, err)
	require.Empty(t, names)
}

// TestLayersOnBtrfs: a snapshot, and layers as on any other file system.
func TestLayersOnBtrfs(t *testing.T) {
	private(t, func(dir string) {
		at := onLoop(t, dir, "btrfs", "mkfs.btrfs", "-q")
		l := twoLayers(t)
		throughLayers(t, l, "btrfs", filepath.Join(at, "run"))
	})
}

// TestLayersProbed: the first driver with which it can be done is taken.
func TestLayersProbed(t *testing.T) {
	l := twoLayers(t)
	l.Dir = t.TempDir()
	a, err := l.Open(context.Background(), "")
	require.NoError(t, err)
	require.Equal(t, found, shell(t, a, inside), a.Driver)
	if os.Geteuid() == 0 && inFirst(t) {
		require.Equal(t, "overlay2", a.Driver)
	}
	require.NoError(t, a.Close())
}

// TestLayersInMemory: without a directory only the kernel can do it.
func TestLayersInMemory(t *testing.T) {
	ctx := context.Background()
	l := twoLayers(t)
	a, err := l.Open(ctx, "overlay2")
	require.NoError(t, err)
	require.ErrorIs(t, a.Commit(ctx, t.TempDir()+"/layer"), syscall.EINVAL)
	require.NoError(t, a.Close())
	_, err = l.Open(ctx, "vfs")
	require.ErrorIs(t, err, syscall.EINVAL)
}

func TestLayersRefused(t *testing.T) {
	ctx := context.Background()
	good := twoLayers(t)
	good.Dir = t.TempDir()
	link, full := filepath.Join(t.TempDir(), "link"), t.TempDir()
	require.NoError(t, errors.Join(os.Symlink("/", link), os.WriteFile(full+"/mine", nil, 0o600)))
	for _, test := range []struct {
		name   string
		lower  []string
		dir    string
		want   error
		driver string
	}{
		{"no layer", nil, good.Dir, syscall.EINVAL, ""},
		{"a missing layer", []string{"/no/such"}, good.Dir, syscall.ENOENT, "vfs"},
		{"a link", []string{link}, good.Dir, syscall.ENOTDIR, "fuse-overlayfs"},
		{"a relative path", []string{"."}, good.Dir, syscall.EINVAL, ""},
		{"a directory that is used", good.Lower, full, syscall.ENOTEMPTY, "vfs"},
		{"a directory that is missing", good.Lower, full + "/no", syscall.ENOENT, "vfs"},
		{"no driver", good.Lower, good.Dir, syscall.EINVAL, "zfs2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := driver.Layers{Lower: test.lower, Dir: test.dir, Unprivileged: good.Unprivileged}.Open(ctx, test.driver)
			require.ErrorIs(t, err, test.want)
			var e *driver.Error
			require.ErrorAs(t, err, &e)
		})
	}
	require.FileExists(t, full+"/mine")
}

// The user of a program chooses how layers are put together; "" is the first way that works.
func ExampleLayers() {
	ctx := context.Background()
	root, err := driver.Layers{Lower: []string{"/layers/python", "/layers/debian"}, Dir: "/srv/job"}.Open(ctx, "fuse-overlayfs")
	if err != nil {
		return
	}
	defer root.Close()
	var part plan.Primitive = chroot.Pivot{Dir: root.Path}
	if root.Path == "" {
		part = overlay.Root(root.Stack)
	}
	_ = part // a part of the sandbox; and when that has ended:
	_ = root.Commit(ctx, "/layers/job")
}
