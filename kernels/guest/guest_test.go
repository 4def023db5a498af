//go:build linux

package guest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// expect returns what the lane says of its machine, and skips where no lane runs us.
func expect(t *testing.T, variable string) string {
	t.Helper()
	if os.Getenv("VMRUN") != "1" {
		t.Skip("only in the kernel lane's machines")
	}
	v := os.Getenv(variable)
	if v == "" {
		t.Skipf("%s is unset: not started by the kernel lane", variable)
	}
	return v
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	return strings.TrimSpace(string(b))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}

func contains(t *testing.T, what string, list []string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !slices.Contains(list, w) {
			t.Errorf("%s is %q, without %q", what, list, w)
		}
	}
}

func TestKernel(t *testing.T) {
	want := expect(t, "CAISSON_GUEST_KERNEL")
	equal(t, "GOARCH", runtime.GOARCH, expect(t, "CAISSON_GUEST_ARCH"))
	if release := read(t, "/proc/sys/kernel/osrelease"); !strings.HasPrefix(release, want) {
		t.Errorf("this is kernel %s, not %s", release, want)
	}
}

// A test of what an old kernel lacks is worth something only while the kernel lacks it.
func TestOldKernelIsOld(t *testing.T) {
	if expect(t, "CAISSON_GUEST_KERNEL") != "6.1." {
		t.Skip("another machine has the old kernel")
	}
	const statmount = 457 // Linux 6.8
	if _, _, errno := unix.Syscall(statmount, 0, 0, 0); errno != unix.ENOSYS {
		t.Errorf("statmount: %v, want %v", errno, unix.ENOSYS)
	}
}

func TestCgroup2Alone(t *testing.T) {
	expect(t, "CAISSON_GUEST_KERNEL")
	var fs unix.Statfs_t
	must(t, unix.Statfs("/sys/fs/cgroup", &fs))
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Errorf("/sys/fs/cgroup has the magic number %#x", fs.Type)
	}
	have := strings.Fields(read(t, "/sys/fs/cgroup/cgroup.controllers"))
	contains(t, "cgroup.controllers", have, "cpu", "cpuset", "io", "memory", "pids")
}

func TestAllCapabilities(t *testing.T) {
	expect(t, "CAISSON_GUEST_KERNEL")
	_, caps, _ := strings.Cut(read(t, "/proc/self/status"), "CapEff:")
	equal(t, "CapEff", strings.Fields(caps)[0], "000001ffffffffff")
}

func TestLoopbackIsUp(t *testing.T) {
	expect(t, "CAISSON_GUEST_KERNEL")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
}

func TestFiles(t *testing.T) {
	expect(t, "CAISSON_GUEST_KERNEL")
	must(t, os.WriteFile(filepath.Join(t.TempDir(), "f"), nil, 0o600))
	equal(t, "testdata", read(t, "testdata/seen"), "a file of the host")
	must(t, os.WriteFile("testdata/not-for-the-host", nil, 0o600))
}

func TestProgramsAndModules(t *testing.T) {
	expect(t, "CAISSON_GUEST_KERNEL")
	if out, err := exec.Command("/bin/sh", "-c", "modprobe veth && sleep 0").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAppArmorEnforces(t *testing.T) {
	if expect(t, "CAISSON_GUEST_LSM") != "apparmor" {
		t.Skip("another machine's security module")
	}
	contains(t, "lsm", strings.Split(read(t, "/sys/kernel/security/lsm"), ","), "apparmor", "landlock")
	equal(t, "enabled", read(t, "/sys/module/apparmor/parameters/enabled"), "Y")
	equal(t, "mode", read(t, "/sys/module/apparmor/parameters/mode"), "enforce")
	equal(t, "current", read(t, "/proc/self/attr/apparmor/current"), "unconfined")
}

// In enforcing mode a container_t process may read what has the system's label, and change none of it.
func TestSELinuxEnforces(t *testing.T) {
	if expect(t, "CAISSON_GUEST_LSM") != "selinux" {
		t.Skip("another machine's security module")
	}
	contains(t, "lsm", strings.Split(read(t, "/sys/kernel/security/lsm"), ","), "selinux", "landlock")
	equal(t, "enforce", read(t, "/sys/fs/selinux/enforce"), "1")
	dir := filepath.Join(t.TempDir(), "new")
	must(t, exec.Command("mkdir", dir).Run())
	must(t, os.Remove(dir))
	if out, err := asContainer("cat", "testdata/seen"); err != nil {
		t.Errorf("cat: %v: %s", err, out)
	}
	if out, err := asContainer("mkdir", dir); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("mkdir: %v: %s", err, out)
	}
}

// asContainer runs a command with a container's label. The label is the thread's, and so is the fork.
func asContainer(args ...string) (string, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const file, label = "/proc/thread-self/attr/exec", "system_u:system_r:container_t:s0:c1,c2"
	// No newline: SELinux would return a short write, and the rest would clear the label.
	if err := os.WriteFile(file, []byte(label), 0); err != nil {
		return "", err
	}
	if b, err := os.ReadFile(file); err != nil || strings.TrimRight(string(b), "\x00\n") != label {
		return "", errors.Join(err, errors.New("the label reads "+string(b)))
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	return string(out), errors.Join(err, os.WriteFile(file, []byte("\n"), 0))
}
