package lsm_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/plan"
)

// TestAppArmorRules: each kind of rule, in the kernel: what is allowed works, and what is not has its errno.
func TestAppArmorRules(t *testing.T) {
	needModule(t, "apparmor")
	cat, err := filepath.EvalSymlinks("/bin/cat")
	require.NoError(t, err)
	load(t, lsm.Profile{
		Name: "caisson-test-rules", AttachDisconnected: true, MediateDeleted: true,
		Files:        []lsm.FileRule{{}, {Path: cat, Perms: "rCx", To: "kid"}},
		Capabilities: []lsm.CapabilityRule{{}, {Deny: true, Names: []string{"chown"}}},
		Network:      []lsm.NetworkRule{{Family: "inet", Type: "stream"}, {Family: "unix"}},
		Mounts:       []lsm.MountRule{{FSType: "tmpfs", Target: "/mnt/"}},
		Signals:      []lsm.SignalRule{{Access: []string{"send"}, Signals: []string{"winch"}, Peer: "unconfined"}, {Access: []string{"receive"}}},
		Children:     []lsm.Profile{{Name: "kid", Files: []lsm.FileRule{{}, {Deny: true, Path: "/etc/passwd", Perms: "r"}}}},
	})
	self, err := os.Executable()
	require.NoError(t, err)
	other := exec.Command("/bin/sleep", "100")
	require.NoError(t, other.Start())
	defer other.Wait()
	defer other.Process.Kill()
	out, err := startCommand(t, helper(self, "rules", strconv.Itoa(other.Process.Pid), "/srv"),
		chroot.Host{}, chroot.Bind{Source: "/proc", Target: "/proc"}, chroot.Dev{}, chroot.Tmpfs{Path: "/srv"}, lsm.AppArmor("caisson-test-rules"))
	require.NoError(t, err)
	require.Equal(t, strings.Join([]string{
		"chown EPERM, inet ok, inet6 EACCES, datagram EACCES, alg EACCES",
		"tmpfs on /mnt ok, on /opt EACCES, umount EACCES",
		"winch ok, urgent EACCES, look at another EACCES",
		"child caisson-test-rules//kid (enforce)", "child's file EACCES, own ok", ""}, "\n"), out)
}

// tryRules does what the profile of TestAppArmorRules is about.
func tryRules(args []string) {
	pid, _ := strconv.Atoi(args[0])
	_, look := os.Readlink("/proc/" + args[0] + "/exe")
	fmt.Printf("chown %s, inet %s, inet6 %s, datagram %s, alg %s\n", name(os.Chown(args[1], 1, 1)), socket(unix.AF_INET, unix.SOCK_STREAM), socket(unix.AF_INET6, unix.SOCK_STREAM),
		socket(unix.AF_INET, unix.SOCK_DGRAM), socket(unix.AF_ALG, unix.SOCK_SEQPACKET))
	fmt.Printf("tmpfs on /mnt %s, on /opt %s, umount %s\n", name(unix.Mount("x", "/mnt", "tmpfs", 0, "")), name(unix.Mount("x", "/opt", "tmpfs", 0, "")), name(unix.Unmount("/mnt", 0)))
	fmt.Printf("winch %s, urgent %s, look at another %s\n", name(unix.Kill(pid, unix.SIGWINCH)), name(unix.Kill(pid, unix.SIGURG)), name(look))
	label, err := exec.Command("cat", "/proc/self/attr/apparmor/current").Output()
	fmt.Printf("child %s", label)
	out, denied := exec.Command("cat", "/etc/passwd").CombinedOutput()
	_, own := os.ReadFile("/etc/passwd")
	if denied != nil && strings.Contains(string(out), "Permission denied") {
		denied = unix.EACCES
	}
	fmt.Printf("child's file %s, own %s\n", name(denied), name(own))
	if err != nil {
		fmt.Println(err)
	}
}

func socket(family, kind int) string {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return name(err)
}

// TestInsideNamespace: a process that is in a policy namespace itself, with and without a user namespace, as in a container of LXD's: profiles are
// loaded, listed and given there, by their names there.
func TestInsideNamespace(t *testing.T) {
	needModule(t, "apparmor")
	load(t, lsm.Profile{Name: ":caisson-in:door", Files: []lsm.FileRule{{}}}) // makes the namespace
	dir := tree(t)
	self, err := os.Executable()
	require.NoError(t, err)
	for name, parts := range map[string][]plan.Primitive{
		"root":           {lsm.AppArmor(":caisson-in:unconfined")},
		"user namespace": {plan.Func(withUser), lsm.AppArmor(":caisson-in:unconfined")},
		"stack":          {plan.Func(withUser), lsm.AppArmor("unconfined//&:caisson-in:unconfined")},
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := os.ReadFile("/proc/sys/kernel/unprivileged_userns_apparmor_policy"); err == nil && name != "root" && strings.TrimSpace(string(b)) == "0" {
				t.Skip("the system has user namespaces load no profiles: kernel.unprivileged_userns_apparmor_policy=0")
			}
			out, err := startCommand(t, helper(self, "inside", dir), parts...)
			require.NoError(t, err)
			require.Equal(t, "load ok, listed true, label inside (enforce), refused true, remove ok\n", out)
		})
	}
}

// inside does in a policy namespace what TestAppArmor does outside.
func inside(args []string) {
	p := secret("inside", args[0]+"/no")
	loaded := p.Load(context.Background())
	all, err := lsm.Profiles()
	listed := err == nil
	for _, l := range all {
		listed = listed && (l.Name == "inside" || l.Name == "door")
	}
	out, err := caisson.New(lsm.AppArmor("inside")).Command("sh", "-c", "read l < /proc/self/attr/apparmor/current; echo $l; cat "+args[0]+"/no/f").CombinedOutput()
	if out == nil {
		fmt.Println(err)
	}
	label, rest, _ := strings.Cut(string(out), "\n")
	fmt.Printf("load %s, listed %t, label %s, refused %t, remove %s\n", name(loaded), listed && len(all) == 2, label, strings.Contains(rest, "Permission denied"), name(lsm.RemoveProfile("inside")))
}
