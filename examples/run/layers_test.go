//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// layer makes a directory with files.
func layer(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layer")
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.MkdirAll(d, 0o755)
		os.Chmod(d, 0o755)
	}
	for name, text := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

// needOverlay skips where the kernel has no overlay mounts for whoever runs the tests: in a user namespace a scratch upper needs Linux 6.6.
func needOverlay(t *testing.T) {
	t.Helper()
	needStatic(t)
	if os.Geteuid() != 0 {
		needUser(t)
	}
	o := try(t, in([]string{"--layer", layer(t, nil)}, "true")...)
	if strings.Contains(o.stderr, "unsupported") || strings.Contains(o.stderr, "needs Linux") {
		t.Skip("no overlay mounts here: ", o.stderr)
	}
	o.has(t, 0, "", "")
}

// TestLayers: the last layer is on top, and nothing is ever written to one.
func TestLayers(t *testing.T) {
	needOverlay(t)
	base := layer(t, map[string]string{"a": "base a", "b": "base b", "etc/passwd": "alice:x:0:0::/home/alice:\n"})
	top := layer(t, map[string]string{"b": "top b"})
	flags := []string{"--layer", base, "--layer", top}
	try(t, in(flags, "cat", "/a")...).has(t, 0, "base a", "")
	try(t, in(flags, "cat", "/b")...).has(t, 0, "top b", "")
	try(t, in(append(flags, "-u", "alice"), "id")...).has(t, 0, "0 0 []", "")
	try(t, in(flags, "write", "/a")...).has(t, 0, "", "")
	try(t, in(append(flags, "--read-only"), "write", "/a")...).has(t, 1, "open /a: read-only file system", "")
	if b, _ := os.ReadFile(filepath.Join(base, "a")); string(b) != "base a" {
		t.Fatal("the layer was written to: ", string(b))
	}
	try(t, in([]string{"--layer", base + "/none"}, "true")...).fails(t, 125, "none")
}

// TestCommit: what a command has written is a layer, and the next one finds it.
func TestCommit(t *testing.T) {
	needOverlay(t)
	base := layer(t, map[string]string{"a": "base"})
	made := filepath.Join(filepath.Dir(base), "made")
	try(t, in([]string{"--layer", base, "--commit", made}, "write", "/new")...).has(t, 0, "", "")
	try(t, in([]string{"--layer", base, "--layer", made}, "cat", "/new")...).has(t, 0, "written", "")
	try(t, in([]string{"--layer", base}, "cat", "/new")...).has(t, 1, "open /new: no such file or directory", "")
	try(t, in([]string{"--layer", base, "--commit", made}, "true")...).fails(t, 125, "there already")
	// Nothing was written where nothing was started.
	try(t, "--layer", base, "--commit", made+"2", "/none").fails(t, 127, "no such program")
	if o := try(t, "--layer", base, "--commit", made+"2", "--explain", "/none"); o.code != 0 {
		t.Fatal(o)
	}
	left, err := os.ReadDir(filepath.Dir(base))
	must(t, err)
	for _, e := range left {
		if name := e.Name(); name != "layer" && name != "made" {
			t.Error("left behind: ", name)
		}
	}
}

// TestImage: the tarball of a root file system is an image; the second time its layer is known.
// TestStorageDriver: copies, and whatever works first, do the same as the kernel's overlay mounts.
func TestStorageDriver(t *testing.T) {
	needOverlay(t)
	for _, name := range []string{"vfs", "auto"} {
		base := layer(t, map[string]string{"a": "base a", "b": "base b"})
		top := layer(t, map[string]string{"b": "top b"})
		made := filepath.Join(filepath.Dir(base), "made")
		flags := []string{"--storage-driver", name, "--layer", base, "--layer", top}
		try(t, in(flags, "cat", "/b")...).has(t, 0, "top b", "")
		try(t, in(append(flags, "--read-only"), "write", "/a")...).has(t, 1, "open /a: read-only file system", "")
		try(t, in(append(flags, "--commit", made), "write", "/new")...).has(t, 0, "", "")
		try(t, in(append(flags, "--layer", made), "cat", "/new")...).has(t, 0, "written", "")
		left, err := os.ReadDir(filepath.Dir(base))
		must(t, err)
		if len(left) != 2 {
			t.Error("left behind: ", left)
		}
	}
	try(t, "--storage-driver", "zfs2", "--layer", "/", "true").fails(t, 125, "none of auto")
	try(t, "--storage-driver", "vfs", "true").fails(t, 125, "--storage-driver goes with")
}

func TestImage(t *testing.T) {
	needOverlay(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}))
	must(t, w.WriteHeader(&tar.Header{Name: "etc/motd", Typeflag: tar.TypeReg, Mode: 0o644, Size: 2}))
	w.Write([]byte("hi"))
	must(t, w.Close())
	dir := layer(t, nil)
	image := filepath.Join(dir, "root.tar")
	must(t, os.WriteFile(image, b.Bytes(), 0o644))
	show := func(args ...string) outcome {
		c := command(os.Geteuid(), args...)
		c.Env = append(c.Env, "HOME="+dir)
		return end(t, c)
	}
	for range 2 {
		show(in([]string{"--image", image}, "cat", "/etc/motd")...).has(t, 0, "hi", "")
	}
	show("--image", image).fails(t, 125, "the image has none")
	show("--image", image, "--entrypoint", inside+"/tool", "-v", programs()+":"+inside+":ro", "--", "cat", "/etc/motd").has(t, 0, "hi", "")
	must(t, os.WriteFile(image, b.Bytes()[:700], 0o644))
	show(in([]string{"--image", image}, "true")...).fails(t, 125, "root.tar")
	if out, err := exec.Command("chmod", "-R", "u+rwX", dir).CombinedOutput(); err != nil {
		t.Log(string(out))
	}
}
