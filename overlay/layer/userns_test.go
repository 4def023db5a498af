package layer_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// TestMain lets the test binary be the process in a user namespace.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LAYER_TEST"); dir != "" {
		if err := inside(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestUserNamespace: an ordinary user mounts layers with userxattr, changes something, makes a layer of it, and mounts that: the same tree, by the
// real kernel and without privilege.
func TestUserNamespace(t *testing.T) {
	needUserAttrs(t)
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LAYER_TEST="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	var errno syscall.Errno
	if errors.As(err, &errno) && (errno == syscall.EPERM || errno == syscall.ENOSPC || errno == syscall.EACCES) {
		t.Skipf("no user namespaces here: %v", err)
	}
	require.NoError(t, err, string(out))
}

// inside is root of the namespaces.
func inside(dir string) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	for _, name := range []string{"lower/a/sub", "lower/b", "upper", "work", "merged", "second", "merged2", "plain"} {
		if err := os.MkdirAll(at(name), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"lower/a/1", "lower/a/sub/2", "lower/b/3", "lower/c"} {
		if err := os.WriteFile(at(name), []byte("lower"), 0o644); err != nil {
			return err
		}
	}
	overlay := func(to, data string) error {
		err := unix.Mount("overlay", at(to), "overlay", 0, "userxattr,"+data)
		if err != nil {
			err = fmt.Errorf("overlay %s: %w", data, err)
		}
		return err
	}
	if err := overlay("merged", "lowerdir="+at("lower")+",upperdir="+at("upper")+",workdir="+at("work")); err != nil {
		return err
	}
	err := errors.Join(os.RemoveAll(at("merged/a")), os.Mkdir(at("merged/a"), 0o700), os.WriteFile(at("merged/a/new"), []byte("new"), 0o600), os.Remove(at("merged/c")),
		os.WriteFile(at("merged/b/3"), []byte("changed"), 0o644), unix.Setxattr(at("merged/b/3"), "user.mine", []byte("x"), 0))
	if err != nil {
		return err
	}
	want, err := brief(at("merged"))
	if err != nil {
		return err
	}
	var packed, base bytes.Buffer
	if _, err := (layer.Pack{Form: layer.UserOverlay}).Diff(ctx, &packed, at("upper")); err != nil {
		return err
	}
	if _, err := (layer.Pack{}).Diff(ctx, &base, at("lower")); err != nil {
		return err
	}
	if _, err := (layer.Unpack{Form: layer.UserOverlay}).Apply(ctx, at("second"), bytes.NewReader(packed.Bytes())); err != nil {
		return err
	}
	if err := overlay("merged2", "lowerdir="+at("second")+":"+at("lower")); err != nil {
		return err
	}
	for _, b := range []*bytes.Buffer{&base, &packed} {
		if _, err := layer.Apply(ctx, at("plain"), b); err != nil {
			return err
		}
	}
	for _, name := range []string{"merged2", "plain"} {
		if got, err := brief(at(name)); err != nil || got != want {
			return fmt.Errorf("%s: %v\n%s\nand not\n%s", name, err, got, want)
		}
	}
	if _, err := layer.Diff(ctx, &bytes.Buffer{}, at("upper")); !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("trusted attributes are not visible here, and Diff says %v", err)
	}
	return nil
}

// brief describes a tree.
func brief(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir+"/.", func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		text := []byte{}
		if st.Mode().IsRegular() {
			text, err = os.ReadFile(name)
		}
		rel, _ := filepath.Rel(dir, name)
		value := make([]byte, 10)
		n, _ := unix.Lgetxattr(name, "user.mine", value)
		fmt.Fprintf(&b, "%s %s %d %s %q\n", rel, st.Mode(), st.ModTime().UnixNano(), text, value[:max(0, n)])
		return err
	})
	return b.String(), err
}
