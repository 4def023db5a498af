package chroot_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// attackEnv makes the test binary the program that tries to leave something in the /dev of its sandbox.
const attackEnv = "CAISSON_TEST_DEVTREE"

// attack is what root in a sandbox tries: to write, to make the mount, the file system or a copy writable and write then, and all that once more in a
// user and a mount namespace of its own.
func attack(where string) {
	writes("/dev as it is", "/dev")
	for _, way := range []struct {
		name string
		do   func(dir string) error
	}{{"remount", func(dir string) error { return unix.Mount("", dir, "", unix.MS_REMOUNT, "") }},
		{"remount with options", func(dir string) error { return unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "mode=777,size=1m") }},
		{"remount of the mount", func(dir string) error { return unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND, "") }},
		{"mount_setattr", func(dir string) error {
			return unix.MountSetattr(unix.AT_FDCWD, dir, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
		}},
		{"fsconfig", reconfigure}} {
		said(where, way.name, way.do("/dev"))
		writes(way.name, "/dev")
	}
	os.MkdirAll("/tmp/copy", 0o755)
	err := unix.Mount("/dev", "/tmp/copy", "", unix.MS_BIND|unix.MS_REC, "")
	if said(where, "bind", err); err == nil {
		said(where, "remount of the copy", unix.Mount("", "/tmp/copy", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
		writes("a copy", "/tmp/copy")
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/dev", unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
	if said(where, "open_tree", err); err == nil {
		writes("a detached copy", fmt.Sprintf("/proc/self/fd/%d", tree))
	}
	if where == "nested" {
		return
	}
	c := exec.Command("/tmp/attack")
	c.Env = []string{attackEnv + "=nested"}
	ids := []syscall.SysProcIDMap{{Size: 1}}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids}
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	said(where, "user and mount namespace", c.Run())
}

func reconfigure(dir string) error {
	fs, err := unix.Fspick(unix.AT_FDCWD, dir, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	return errors.Join(unix.FsconfigSetFlag(fs, "rw"), unix.FsconfigReconfigure(fs))
}

func said(where, what string, err error) { fmt.Printf("%s: %s: %v\n", where, what, err) }

// writes tries all that would change something in a directory like /dev, and says what has succeeded. Were it ever the host's, little harm would come of it.
func writes(when, dir string) {
	at := func(name string) string { return filepath.Join(dir, name) }
	d, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		fmt.Println(when, "open", err)
		return
	}
	defer unix.Close(d)
	flags := uint32(0x80) // FS_NOATIME_FL
	for name, f := range map[string]func() error{
		"mkdir":        func() error { return unix.Mkdir(at("made"), 0o755) },
		"create":       func() error { return touch(at("file"), unix.O_CREAT) },
		"no name":      func() error { return touch(dir, unix.O_TMPFILE) },
		"fifo":         func() error { return unix.Mknod(at("fifo"), unix.S_IFIFO|0o644, 0) },
		"node":         func() error { return unix.Mknod(at("node"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))) },
		"whiteout":     func() error { return unix.Mknod(at("white"), unix.S_IFCHR, 0) },
		"symlink":      func() error { return unix.Symlink("x", at("symlink")) },
		"link":         func() error { return unix.Link(at("null"), at("link")) },
		"rename":       func() error { return unix.Rename(at("stdin"), at("renamed")) },
		"unlink":       func() error { return unix.Unlink(at("stdout")) },
		"rmdir":        func() error { return unix.Rmdir(at("shm")) },
		"chmod":        func() error { return unix.Chmod(at("null"), 0o666) },
		"chmod dir":    func() error { return unix.Fchmod(d, 0o755) },
		"chown":        func() error { return unix.Chown(at("zero"), 0, 0) },
		"chown link":   func() error { return unix.Lchown(at("fd"), 0, 0) },
		"times":        func() error { return unix.Utimes(at("null"), nil) },
		"times dir":    func() error { return unix.Futimes(d, now()) },
		"user xattr":   func() error { return unix.Fsetxattr(d, "user.x", []byte("x"), 0) },
		"trusted":      func() error { return unix.Fsetxattr(d, "trusted.x", []byte("x"), 0) },
		"security":     func() error { return unix.Setxattr(at("null"), "security.x", []byte("x"), 0) },
		"capabilities": func() error { return unix.Setxattr(at("null"), "security.capability", make([]byte, 20), 0) },
		"acl":          func() error { return unix.Fsetxattr(d, "system.posix_acl_access", []byte{2, 0, 0, 0}, 0) },
		"flags":        func() error { return ioctl(d, unix.FS_IOC_SETFLAGS, unsafe.Pointer(&flags)) },
		"freeze":       func() error { return ioctl(d, 0xc0045877, unsafe.Pointer(&flags)) }, // FIFREEZE
	} {
		if err := f(); err == nil {
			fmt.Println("succeeded:", name, when)
		} else if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EPERM) && !slices.Contains([]string{"freeze", "acl", "rmdir"}, name) {
			fmt.Println("otherwise:", name, when, err)
		}
	}
}

func now() []unix.Timeval {
	var t unix.Timeval
	unix.Gettimeofday(&t)
	return []unix.Timeval{t, t}
}

func touch(name string, flags int) error {
	fd, err := unix.Open(name, flags|unix.O_RDWR, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// stateOf is all that can be seen of the files in a directory: no bit of it may change.
func stateOf(t *testing.T, dir *os.File) (all []string) {
	t.Helper()
	name := fmt.Sprintf("/proc/self/fd/%d", dir.Fd())
	list, err := os.ReadDir(name + "/.")
	require.NoError(t, err)
	names := []string{"."}
	for _, e := range list {
		names = append(names, e.Name())
	}
	for _, n := range names {
		var st unix.Stat_t
		require.NoError(t, unix.Fstatat(int(dir.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW))
		attrs := make([]byte, 1000)
		size, err := unix.Llistxattr(filepath.Join(name, n), attrs)
		if err != nil {
			require.ErrorIs(t, err, unix.EOPNOTSUPP)
		}
		all = append(all, fmt.Sprintf("%s %+v %q", n, st, attrs[:max(0, size)]))
	}
	return all
}

// underAttack lets the attacker into a sandbox.
func underAttack(t *testing.T, dev plan.Primitive, more ...plan.Primitive) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	out := run(t, "ls -lR /dev > /dev/null; cat /dev/null; head -c 1 /dev/zero > /dev/null; "+attackEnv+"=first /tmp/attack", append([]plan.Primitive{chroot.Host{}, chroot.Proc{}, dev,
		chroot.Tmpfs{Path: "/tmp"}, chroot.Bind{Source: self, Target: "/tmp/attack"}}, more...)...)
	require.Contains(t, out, "nested: open_tree: <nil>")
	return out
}

// TestDevTreeHolds: whatever root of a sandbox does, nothing in the tree that others see changes.
func TestDevTreeHolds(t *testing.T) {
	tree := cloned(t, chroot.Dev{})
	before := stateOf(t, tree.Tree())
	for name, more := range map[string][]plan.Primitive{"own user namespace": {plan.Func(withUser)}, "without CAP_SYS_ADMIN": {withoutAdmin}} {
		out := underAttack(t, tree, more...)
		require.NotContains(t, out, "succeeded: ", name)
		require.NotContains(t, out, "otherwise: ", name)
		require.Contains(t, out, "nested: fsconfig: operation not permitted", name)
		require.Equal(t, before, stateOf(t, tree.Tree()), name)
	}
}

// TestDevTreeOwnIsOwn: who has CAP_SYS_ADMIN where the tree was made never gets at it. Its own /dev it can write to, and so the attack can succeed.
func TestDevTreeOwnIsOwn(t *testing.T) {
	tree := cloned(t, chroot.Dev{})
	before := stateOf(t, tree.Tree())
	out := underAttack(t, tree)
	first, _, _ := strings.Cut(out, "first: remount: <nil>")
	require.NotContains(t, first, "succeeded: ", "before it is made writable")
	for _, what := range []string{"mkdir", "create", "chmod dir", "chmod", "times", "link", "unlink", "rename", "trusted", "node"} {
		require.Contains(t, out, "succeeded: "+what+" ")
	}
	require.Equal(t, before, stateOf(t, tree.Tree()))
}
