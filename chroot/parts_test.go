package chroot_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// more asks for further namespaces.
func more(flags uint64) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error { p.Clone(flags); return nil })
}

// docker is Docker's default view of the file system, but for the root.
func docker() []plan.Primitive {
	return []plan.Primitive{more(unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP), chroot.Proc{}, chroot.Dev{Mqueue: true}, chroot.Sysfs{},
		chroot.Cgroupfs{}, chroot.DockerMasks(), chroot.DockerReadOnly()}
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN on the host; this is an ordinary user")
	}
}

func TestDockerView(t *testing.T) {
	parts := append([]plan.Primitive{chroot.Host{}}, docker()...)
	table := map[string]string{}
	for _, m := range reached(t, run(t, "cat /proc/self/mountinfo", parts...)) {
		table[m.Mountpoint] = m.Options + " " + m.FSType
	}
	for path, want := range map[string]string{"/proc": "rw,nosuid,nodev,noexec,relatime proc", "/sys": "ro,nosuid,nodev,noexec,relatime sysfs",
		"/dev": "rw,nosuid tmpfs", "/dev/pts": "rw,nosuid,noexec,relatime devpts", "/dev/shm": "rw,nosuid,nodev,noexec,relatime tmpfs",
		"/dev/mqueue": "rw,nosuid,nodev,noexec,relatime mqueue", "/proc/sys": "ro,nosuid,nodev,noexec,relatime proc",
		"/proc/bus": "ro,nosuid,nodev,noexec,relatime proc", "/proc/keys": "ro,nosuid,nodev,noexec,relatime tmpfs",
		"/proc/sysrq-trigger": "ro,nosuid,nodev,noexec,relatime proc", "/sys/firmware": "ro,nosuid,nodev,noexec,relatime tmpfs"} {
		if _, err := os.Lstat(path); err != nil && path != "/dev/mqueue" {
			continue // this kernel does not have it
		}
		require.Equal(t, want, table[path], path)
	}
	require.Contains(t, table["/sys/fs/cgroup"], "ro,nosuid,nodev,noexec")
	// Nothing that should be hidden says anything, to root inside.
	for _, name := range chroot.DockerMasks() {
		out := run(t, "if test -d "+name+"; then ls -A "+name+"; else cat "+name+" 2>/dev/null; fi; echo end", parts...)
		require.Equal(t, "end\n", out, name)
		if _, err := os.Lstat(name); err == nil {
			require.Contains(t, table, name)
		}
	}
	for _, script := range []string{"echo h > /proc/sys/kernel/hostname", "echo h > /proc/sysrq-trigger", "echo x > /proc/keys",
		"mkdir /sys/fs/cgroup/x", "mkdir /proc/asound/x /proc/acpi/x /sys/firmware/x", "echo x > /sys/kernel/uevent_seqnum"} {
		require.Equal(t, "no\n", run(t, "("+script+") 2>/dev/null && echo yes || echo no", parts...), script)
	}
}

// TestMasksComeFromPlan: masks hold in any order of the parts, and an unmasked path is one that is not in the list.
func TestMaskOrder(t *testing.T) {
	out := run(t, "cat /proc/version /tmp/f; ls -A /tmp/d; test -r /proc/uptime && cat /proc/loadavg | wc -w",
		chroot.Mask{"/proc/version", "/tmp/f", "/tmp/d", "/tmp/none", "/proc/none/x"}, chroot.Host{}, chroot.Tmpfs{Path: "/tmp"}, chroot.Proc{},
		chroot.File{Path: "/tmp/f", Data: []byte("secret")}, chroot.Dir{Path: "/tmp/d/e"})
	require.Equal(t, "5\n", out)
}

func TestMaskRefused(t *testing.T) {
	for _, name := range []string{"/proc/self/environ", "/proc/1/root", "/proc/thread-self/x", "proc/x", "/", "/proc/../x", ""} {
		require.ErrorIs(t, plan.Build(chroot.Host{}, chroot.Mask{name}).Err(), syscall.EINVAL, name)
		require.ErrorIs(t, plan.Build(chroot.Host{}, chroot.ReadOnly{name}).Err(), syscall.EINVAL, name)
	}
	// Where /proc is the root's own, a link in it is not the real thing.
	dir, parts := rootfs(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "proc"), 0o755))
	require.NoError(t, os.Symlink("../etc", filepath.Join(dir, "proc/kcore")))
	for _, part := range []plan.Primitive{chroot.Mask{"/proc/kcore"}, chroot.ReadOnly{"/proc/kcore"}} {
		_, err := start(t, "true", append(parts, part)...)
		require.ErrorIs(t, err, syscall.ELOOP)
		require.ErrorContains(t, err, "/proc/kcore")
	}
}

func TestReadOnly(t *testing.T) {
	dir, parts := rootfs(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o777))
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "l")))
	out := run(t, "echo x > /a/b/f; echo x > /w && echo w; mkdir /a/b/tmp/y; echo end",
		append(parts, chroot.Tmpfs{Path: "/a/b/tmp"}, chroot.ReadOnly{"/l/b", "/none"})...)
	require.Equal(t, 2, strings.Count(out, "Read-only file system"), out)
	require.Contains(t, out, "w\nmkdir")
}

func TestBindOptions(t *testing.T) {
	src := t.TempDir()
	require.NoError(t, os.Chmod(src, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(src, "prog"), []byte("#!/bin/sh\necho runs\n"), 0o755))
	base := []plan.Primitive{chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"}}
	options := func(b chroot.Bind) string {
		b.Source, b.Target = src, "/tmp/b"
		out := run(t, "grep ' /tmp/b ' /proc/self/mountinfo | cut -d' ' -f6; /tmp/b/prog 2>/dev/null || echo refused", append(base, b)...)
		return strings.ReplaceAll(out, "\n", " ")
	}
	with := func(b chroot.Bind) map[string]bool {
		words := map[string]bool{}
		for _, w := range strings.FieldsFunc(options(b), func(r rune) bool { return r == ',' || r == ' ' }) {
			words[w] = true
		}
		return words
	}
	plain := with(chroot.Bind{})
	require.True(t, plain["rw"] && plain["nosuid"] && plain["nodev"] && plain["runs"] && !plain["noexec"], plain)
	require.True(t, with(chroot.Bind{NoExec: true})["refused"])
	if host := hostOptions(t, src); !strings.Contains(host, "nosuid") && !strings.Contains(host, "nodev") {
		loose := with(chroot.Bind{Dev: true, SUID: true})
		require.False(t, loose["nosuid"] || loose["nodev"], loose)
	}
}

// hostOptions gives the options of the mount on which a directory is.
func hostOptions(t *testing.T, dir string) string {
	t.Helper()
	var st unix.Statx_t
	require.NoError(t, unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_MNT_ID, &st))
	all, err := chroot.Mounts(os.Getpid())
	require.NoError(t, err)
	for _, m := range all {
		if uint64(m.ID) == st.Mnt_id {
			return m.Options
		}
	}
	t.Fatal("no mount of ", dir)
	return ""
}

// onShared runs f with a mount namespace of its own, in which dir is a shared mount with another mount below it.
func submounted(t *testing.T) string {
	t.Helper()
	asRoot(t)
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	require.NoError(t, unix.Mount("tmpfs", filepath.Join(dir, "sub"), "tmpfs", 0, "size=64k"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sub", "f"), nil, 0o644))
	return dir
}

func TestBindRecursive(t *testing.T) {
	inPrivateNamespace(t, func(t *testing.T) {
		dir := submounted(t)
		base := []plan.Primitive{chroot.Host{}, chroot.Tmpfs{Path: "/tmp"}}
		script := "ls /tmp/b/sub; echo x > /tmp/b/sub/x || true"
		require.Contains(t, run(t, script, append(base, chroot.Bind{Source: dir, Target: "/tmp/b", ReadOnly: true})...), "f\n")
		require.Contains(t, run(t, script, append(base, chroot.Bind{Source: dir, Target: "/tmp/b", ReadOnly: true})...), "Read-only")
		require.NoFileExists(t, filepath.Join(dir, "sub", "x"))
		require.NotContains(t, run(t, script, append(base, chroot.Bind{Source: dir, Target: "/tmp/b", NonRecursive: true})...), "f\n")
	})
}

// inPrivateNamespace runs the test again in a process with a mount namespace of its own: the host's mounts are not touched.
func inPrivateNamespace(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	asRoot(t)
	const mark = "CAISSON_TEST_PRIVATE"
	if os.Getenv(mark) == t.Name() {
		f(t)
		return
	}
	c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	c.Env = append(os.Environ(), mark+"="+t.Name())
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // and all mounts private
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
}

func TestBindFile(t *testing.T) {
	src := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(src, "f"), []byte("data"), 0o644))
	base := []plan.Primitive{chroot.Host{}, chroot.Tmpfs{Path: "/tmp"}}
	dir, err := os.Open(src)
	require.NoError(t, err)
	defer dir.Close()
	fd, err := unix.Open(filepath.Join(src, "f"), unix.O_PATH|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	place := os.NewFile(uintptr(fd), "f")
	defer place.Close()
	// Whatever their names lead to now.
	require.NoError(t, os.Rename(src, src+"2"))
	require.NoError(t, os.Symlink("/etc", src))
	parts := append(base, chroot.Bind{File: dir, Target: "/tmp/d"}, chroot.Bind{File: place, Target: "/tmp/f", ReadOnly: true})
	if os.Geteuid() != 0 {
		_, err := start(t, "true", parts...)
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, "CAP_SYS_ADMIN on the host")
		return
	}
	require.Equal(t, "datadata", run(t, "cat /tmp/d/f /tmp/f", parts...))
	require.Equal(t, "datadata", run(t, "cat /tmp/d/f /tmp/f", append(parts, plan.Func(withUser))...), "with a user namespace")
	dir.Close()
	_, err = start(t, "true", base[0], base[1], chroot.Bind{File: place, Target: "/tmp/f"}, chroot.Bind{File: dir, Target: "/tmp/d"})
	require.ErrorIs(t, err, os.ErrClosed)
	link, err := unix.Open(src, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	l := os.NewFile(uintptr(link), "link")
	defer l.Close()
	require.ErrorIs(t, plan.Build(chroot.Host{}, chroot.Bind{File: l, Target: "/tmp/f"}).Err(), syscall.ELOOP)
}

// userNamespace makes one in which id 0 is the host's id first.
func userNamespace(t *testing.T, first int) *os.File {
	t.Helper()
	c := exec.Command("/bin/cat")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: 1000}}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	in, err := c.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	t.Cleanup(func() { in.Close(); c.Wait() })
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", c.Process.Pid))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestBindIDMap(t *testing.T) {
	asRoot(t)
	src := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(src, "f"), nil, 0o644))
	require.NoError(t, os.Chown(filepath.Join(src, "f"), 7, 8))
	base := []plan.Primitive{chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}}
	out, err := start(t, "stat -c %u:%g /tmp/b/f", append(base, chroot.Bind{Source: src, Target: "/tmp/b", IDMap: userNamespace(t, 100000)})...)
	if errors.Is(err, errors.ErrUnsupported) && !canIDMap(t, src) {
		t.Skipf("the file system of %s has no idmapped mounts: %v", src, err)
	}
	require.NoError(t, err)
	require.Equal(t, "100007:100008\n", out)
	_, err = start(t, "true", append(base, chroot.Bind{Source: "/proc/self", Target: "/tmp/b", IDMap: userNamespace(t, 100000)})...)
	require.ErrorContains(t, err, "cannot be mounted with other ids")
	own, err := os.Open("/proc/self/ns/user")
	require.NoError(t, err)
	defer own.Close()
	_, err = start(t, "true", append(base, chroot.Bind{Source: src, Target: "/tmp/b", IDMap: own})...)
	require.Error(t, err)
}

// canIDMap asks the kernel itself.
func canIDMap(t *testing.T, dir string) bool {
	t.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userNamespace(t, 100000).Fd())}
	return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &a) == nil
}

func TestOptional(t *testing.T) {
	base := []plan.Primitive{chroot.Host{}, chroot.Tmpfs{Path: "/tmp"}}
	with := func(b chroot.Bind) *plan.Plan { return plan.Build(append(base, chroot.Optional(b))...) }
	require.Equal(t, plan.Build(base...).String(), with(chroot.Bind{Source: "/no/such", Target: "/tmp/x"}).String())
	require.Equal(t, strings.ReplaceAll(plan.Build(append(base, chroot.Bind{Source: "/etc", Target: "/tmp/x"})...).String(), "chroot.Bind", "chroot.Optional"),
		with(chroot.Bind{Source: "/etc", Target: "/tmp/x"}).String())
	require.ErrorIs(t, with(chroot.Bind{Source: "/no/such", Target: "x"}).Err(), syscall.EINVAL)
	require.ErrorIs(t, with(chroot.Bind{Source: "/etc/passwd/x", Target: "/tmp/x"}).Err(), syscall.ENOTDIR)
	require.ErrorIs(t, with(chroot.Bind{Target: "/tmp/x"}).Err(), syscall.EINVAL)
}

func TestProcOptions(t *testing.T) {
	base := []plan.Primitive{chroot.Host{}, chroot.Dev{}}
	require.Equal(t, "none\n", run(t, "ls -d /proc/sys /proc/kcore /proc/version 2>/dev/null || echo none; test -d /proc/self", append(base, chroot.Proc{PIDOnly: true})...))
	require.Contains(t, run(t, "cat /proc/self/mounts", append(base, chroot.Proc{HidePID: chroot.Invisible})...), "hidepid=invisible")
	require.Contains(t, run(t, "cat /proc/self/mounts", append(base, chroot.Proc{HidePID: chroot.NoAccess})...), "hidepid=noaccess")
	require.Contains(t, run(t, "cat /proc/self/mounts", append(base, chroot.Proc{HidePID: chroot.Ptraceable})...), "hidepid=ptraceable")
	require.ErrorIs(t, plan.Build(append(base, chroot.Proc{HidePID: "2"})...).Err(), syscall.EINVAL)
}

func TestTmpfsOptions(t *testing.T) {
	out := run(t, "for i in 1 2 3 4 5 6; do echo > /tmp/$i; done 2>&1; cp /bin/true /dev/shm/true; grep ' /tmp ' /proc/self/mountinfo", chroot.Host{},
		chroot.Proc{}, chroot.Dev{ShmSize: 4096}, chroot.Tmpfs{Path: "/tmp", Inodes: 5, NoExec: true})
	require.Contains(t, out, "No space left on device")
	require.Contains(t, out, "noexec")
	require.Contains(t, out, "error writing '/dev/shm/true'")
	for _, bad := range []chroot.Tmpfs{{Path: "/tmp", Inodes: -1}, {Path: "/tmp", Mode: fs.ModeSetuid | 0o755}, {Path: "/tmp", Mode: fs.ModeDir | 0o755}} {
		require.ErrorIs(t, plan.Build(chroot.Host{}, bad).Err(), syscall.EINVAL)
	}
}

func TestDevOptions(t *testing.T) {
	out := run(t, "ls /dev; stat -f -c %T /dev/mqueue", chroot.Host{}, chroot.Proc{}, chroot.Dev{Nodes: []string{"null"}, Mqueue: true})
	require.Equal(t, "fd\nmqueue\nnull\nptmx\npts\nshm\nstderr\nstdin\nstdout\nmqueue\n", out)
	for _, bad := range []chroot.Dev{{Nodes: []string{"kmem"}}, {Nodes: []string{"null", "null"}}, {ShmSize: -1}} {
		require.ErrorIs(t, plan.Build(chroot.Host{}, bad).Err(), syscall.EINVAL)
	}
	require.ErrorIs(t, plan.Build(chroot.Host{}, chroot.Dev{}, chroot.Devpts{}).Err(), syscall.EINVAL)
	dir, parts := rootfs(t)
	out = run(t, "ls /dev /dev/pts; test -d /dev/mqueue && echo mqueue", append(parts, chroot.Devpts{}, chroot.Mqueue{})...)
	require.Equal(t, "/dev:\nmqueue\npts\n\n/dev/pts:\nptmx\nmqueue\n", out)
	require.DirExists(t, filepath.Join(dir, "dev"))
}

func TestDevice(t *testing.T) {
	dir, parts := rootfs(t)
	parts = append(parts, chroot.Device{Path: "/dev/null"}, chroot.Device{Path: "/dev/zero", Target: "/dev/a/b"}, chroot.Device{Path: "/dev/full", Target: "/full"},
		chroot.Dev{Nodes: []string{}})
	out := run(t, "test -c /dev/null && echo x > /dev/null && head -c 2 /dev/a/b | od -An -tx1; head -c 1 /dev/a/b > /full", parts...)
	require.Contains(t, out, " 00 00\n")
	require.Contains(t, out, "No space left on device")
	st, err := os.Lstat(filepath.Join(dir, "full"))
	require.NoError(t, err)
	require.True(t, st.Mode().IsRegular(), "the mount point is a plain file")
	require.ErrorIs(t, plan.Build(chroot.Host{}, chroot.Device{Path: "/etc/passwd"}).Err(), syscall.EINVAL)
	require.ErrorIs(t, plan.Build(chroot.Host{}, chroot.Device{Path: "/dev/nosuch"}).Err(), syscall.ENOENT)
}

func TestFiles(t *testing.T) {
	dir, parts := rootfs(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "etc/hosts"), []byte("image\n"), 0o644))
	require.NoError(t, os.Symlink("hosts", filepath.Join(dir, "etc/link")))
	large := strings.Repeat("0123456789abcdef", 1<<16)
	parts = append(parts, chroot.File{Path: "/etc/hosts", Data: []byte("ours\n")}, chroot.File{Path: "/x/y", Data: []byte("secret\n"), Mode: 0o400, ReadOnly: true},
		chroot.File{Path: "/large", Data: []byte(large)}, chroot.File{Path: "/empty"},
		chroot.Dir{Path: "/d/e", Mode: fs.ModeSticky | 0o777}, chroot.Dir{Path: "/etc"}, chroot.Symlink{Path: "/s/link", Target: "/etc/hosts"})
	out := run(t, `cat /etc/link /x/y; stat -c "%a %s" /x/y /large /empty /d/e /d; echo more >> /etc/hosts; cat /s/link
		echo z > /x/y || true`, parts...)
	require.Contains(t, out, "ours\nsecret\n400 7\n644 1048576\n644 0\n1777 ")
	require.Contains(t, out, "ours\nmore\n")
	require.Contains(t, out, "Read-only file system")
	b, err := os.ReadFile(filepath.Join(dir, "etc/hosts"))
	require.NoError(t, err)
	require.Equal(t, "image\n", string(b), "the image's own file is covered, not written")
	parts = parts[:len(parts)-1] // the link is there
	_, err = start(t, "true", append(parts, chroot.Symlink{Path: "/etc/hosts", Target: "x"})...)
	require.ErrorIs(t, err, syscall.EEXIST)
	_, err = start(t, "true", append(parts, chroot.Dir{Path: "/etc/hosts"})...)
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = start(t, "true", append(parts, chroot.Dir{Path: "/etc/hosts/x"})...)
	require.ErrorIs(t, err, syscall.ENOTDIR)
	for _, bad := range []plan.Primitive{chroot.File{Path: "x"}, chroot.File{Path: "/x", Mode: fs.ModeSetuid}, chroot.Dir{Path: "/"}, chroot.Dir{Path: "/x", Mode: fs.ModeSetgid},
		chroot.Symlink{Path: "/x"}, chroot.Symlink{Path: "x", Target: "y"}} {
		require.ErrorIs(t, plan.Build(chroot.Host{}, bad).Err(), syscall.EINVAL, "%v", bad)
	}
}

func TestCgroupfsNeedsNamespace(t *testing.T) {
	err := plan.Build(chroot.Host{}, chroot.Sysfs{}, chroot.Cgroupfs{}).Err()
	require.ErrorIs(t, err, syscall.EINVAL)
	require.ErrorContains(t, err, "namespaces.Cgroup")
}

// TestCVE_2023_25809: no group of the host can be written to, with the control groups as part of /sys or not.
func TestCVE_2023_25809(t *testing.T) {
	for _, user := range []bool{false, true} {
		parts := []plan.Primitive{chroot.Host{}, more(unix.CLONE_NEWCGROUP | unix.CLONE_NEWNET), chroot.Proc{}, chroot.Dev{}, chroot.Sysfs{}, chroot.Cgroupfs{}}
		if user && os.Geteuid() == 0 {
			parts = append(parts, plan.Func(withUser))
		}
		out := run(t, `ls /sys/fs/cgroup | head -1 | wc -l
			for d in $(find /sys/fs/cgroup -maxdepth 2 -type d); do mkdir $d/caisson-test 2>/dev/null && echo made $d; done
			for f in $(find /sys/fs/cgroup -maxdepth 3 -name release_agent -o -name notify_on_release -o -name cgroup.procs); do
				(echo 1 > $f) 2>/dev/null && echo wrote $f; done; echo end`, parts...)
		require.Equal(t, "1\nend\n", out)
	}
}

func TestPropagation(t *testing.T) {
	require.ErrorIs(t, plan.Build(chroot.Host{Propagation: 9}).Err(), syscall.EINVAL)
	require.ErrorIs(t, plan.Build(chroot.Host{}, chroot.Bind{Source: "/etc", Target: "/x", Propagation: 9}).Err(), syscall.EINVAL)
	for k, want := range map[chroot.Propagation]string{chroot.Private: "private", chroot.Slave: "slave", chroot.Shared: "shared", 7: "propagation 7"} {
		require.Equal(t, want, k.String())
	}
	out := run(t, "cat /proc/self/mountinfo", chroot.Host{Propagation: chroot.Shared}, chroot.Proc{})
	require.Contains(t, out, " shared:")
	require.NotContains(t, run(t, "cat /proc/self/mountinfo", chroot.Host{}, chroot.Proc{}), " shared:")
}

// flow starts a sandbox that waits, mounts on the one side, and looks on the other.
func TestPropagationFlows(t *testing.T) {
	inPrivateNamespace(t, func(t *testing.T) {
		dir := submounted(t)
		base := []plan.Primitive{chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}}
		bind := chroot.Bind{Source: dir, Target: "/tmp/b", Propagation: chroot.Slave}
		_, err := start(t, "true", append(base, bind)...)
		require.ErrorIs(t, err, syscall.EINVAL)
		require.ErrorContains(t, err, "shared")
		require.NoError(t, unix.Mount("", dir, "", unix.MS_SHARED, ""))
		require.NoError(t, os.Mkdir(filepath.Join(dir, "late"), 0o755))

		later := func(parts ...plan.Primitive) string {
			in, out := pipes(t)
			p := startWaiting(t, in, out, "echo ready; read x; ls /tmp/b/late", append(base, parts...)...)
			require.Equal(t, "ready\n", firstBytes(t, out, 6))
			require.NoError(t, unix.Mount("tmpfs", filepath.Join(dir, "late"), "tmpfs", 0, ""))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "late", "seen"), nil, 0o644))
			in.W.WriteString("go\n")
			b, err := io.ReadAll(out.R)
			require.NoError(t, err)
			p()
			require.NoError(t, unix.Unmount(filepath.Join(dir, "late"), 0))
			return string(b)
		}
		require.Equal(t, "seen\n", later(bind))
		require.Equal(t, "", later(chroot.Bind{Source: dir, Target: "/tmp/b"}))
		mounts := "mount -t tmpfs x /tmp/b/late"
		run(t, mounts, append(base, bind)...)
		mounted, err := mountinfo.Mounted(filepath.Join(dir, "late"))
		require.NoError(t, err)
		require.False(t, mounted, "a slave's mount reaches the host")
		bind.Propagation = chroot.Shared
		run(t, mounts, append(base, bind)...)
		mounted, err = mountinfo.Mounted(filepath.Join(dir, "late"))
		require.NoError(t, err)
		require.True(t, mounted)
		require.NoError(t, unix.Unmount(filepath.Join(dir, "late"), 0))
	})
}

func TestMounts(t *testing.T) {
	in, out := pipes(t)
	var pid int
	end := startWaiting(t, in, out, "echo ready; read x", plan.Func(func(p *plan.Plan) error {
		p.While(plan.Action{Name: "note the pid", Do: func(r *plan.Run) error { pid = r.PID; return nil }})
		return nil
	}), chroot.Host{}, chroot.Proc{}, chroot.Tmpfs{Path: "/tmp"}, chroot.Dir{Path: "/tmp/a b\n,:"}, chroot.Tmpfs{Path: "/tmp/a b\n,:"})
	require.Equal(t, "ready\n", firstBytes(t, out, 6))
	all, err := chroot.Mounts(pid)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(all, func(m mountinfo.Info) bool { return m.Mountpoint == "/" }))
	require.True(t, slices.ContainsFunc(all, func(m mountinfo.Info) bool { return m.Mountpoint == "/tmp/a b\n,:" && m.FSType == "tmpfs" }))
	in.W.WriteString("go\n")
	end()
	for _, bad := range []int{0, -1, 1 << 30} {
		_, err := chroot.Mounts(bad)
		var e *chroot.Error
		require.ErrorAs(t, err, &e, strconv.Itoa(bad))
	}
}

// TestWritableCgroupfs: without a group of the sandbox's own the caller's would be handed out.
func TestWritableCgroupfs(t *testing.T) {
	err := plan.Build(chroot.Host{}, chroot.Sysfs{}, chroot.Cgroupfs{Writable: true}, more(unix.CLONE_NEWCGROUP|unix.CLONE_NEWNET)).Err()
	b, readErr := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, readErr)
	if strings.HasPrefix(string(b), "0::") { // version 2 alone
		require.ErrorIs(t, err, syscall.EINVAL)
	} else {
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
}

// TestReadOnlyOfLaterMounts: what the host mounts later has its own flags, so read-only would be a promise that is not kept.
func TestReadOnlyOfLaterMounts(t *testing.T) {
	dir := t.TempDir()
	for _, part := range []plan.Primitive{chroot.Host{Propagation: chroot.Slave}, chroot.Pivot{Dir: dir, ReadOnly: true, Propagation: chroot.Slave},
		chroot.Bind{Source: dir, Target: "/tmp/b", ReadOnly: true, Propagation: chroot.Slave},
		chroot.Bind{Source: dir, Target: "/tmp/b", NoExec: true, Propagation: chroot.Shared}} {
		require.ErrorIs(t, plan.Build(part).Err(), errors.ErrUnsupported, "%+v", part)
	}
}
