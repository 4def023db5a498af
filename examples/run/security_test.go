//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caisson-dev/caisson/lsm"
)

// status gives a line of /proc/self/status of a command with the flags.
func status(t *testing.T, try trial, field string, flags ...string) string {
	t.Helper()
	o := try(t, in(flags, "cat", "/proc/self/status")...)
	for line := range strings.Lines(o.stdout) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no %s in %v", field, o)
	return ""
}

func TestCapabilityFlags(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		for _, test := range []struct{ flags, want string }{
			{"", "00000000a00425fb"}, {"--cap-drop ALL", "0000000000000000"}, {"--cap-drop all --cap-add CAP_NET_BIND_SERVICE", "0000000000000400"},
			{"--cap-drop chown --cap-drop Kill", "00000000a00425da"}, {"--cap-add MKNOD", "00000000a80425fb"}, {"--cap-add sys_admin", "00000000a02425fb"},
		} {
			if got := status(t, try, "CapBnd", strings.Fields(test.flags)...); got != test.want {
				t.Errorf("%s: %s, want %s", test.flags, got, test.want)
			}
			if got := status(t, try, "CapEff", strings.Fields(test.flags)...); got != test.want {
				t.Errorf("%s: effective %s, want %s", test.flags, got, test.want)
			}
		}
		all, privileged := status(t, try, "CapBnd", "--cap-add", "ALL"), status(t, try, "CapBnd", "--privileged")
		if all != privileged || all == "00000000a00425fb" {
			t.Errorf("%s, and privileged %s", all, privileged)
		}
	})
}

// TestCapabilityOfUser: another user has no capabilities, and none to gain them by but files that have them.
func TestCapabilityOfUser(t *testing.T) {
	needRoot(t)
	for field, want := range map[string]string{"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapAmb": "0000000000000000", "CapInh": "0000000000000000",
		"CapBnd": "00000000a00425fb", "NoNewPrivs": "0", "Seccomp": "2"} {
		if got := status(t, try, field, "-u", "1000"); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
}

// TestFilter: there is a filter, without no_new_privs, and it follows the capabilities.
func TestFilter(t *testing.T) {
	profile := filepath.Join(t.TempDir(), "profile.json")
	must(t, os.Chmod(filepath.Dir(filepath.Dir(profile)), 0o755))
	must(t, os.Chmod(filepath.Dir(profile), 0o755))
	must(t, os.WriteFile(profile, []byte(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getsid"], "action": "SCMP_ACT_KILL_PROCESS"}]}`), 0o644))
	both(t, func(t *testing.T, try trial) {
		for _, test := range []struct{ flags, seccomp, nnp string }{
			{"", "2", "0"}, {"--init", "2", "0"}, {"--userns keep-id", "2", "0"}, {"--cap-drop ALL", "2", "0"}, {"--security-opt seccomp=builtin", "2", "0"},
			{"--security-opt no-new-privileges", "2", "1"}, {"--security-opt no-new-privileges=true", "2", "1"}, {"--security-opt no-new-privileges=false", "2", "0"}, {"--security-opt seccomp=unconfined", "0", "0"},
			{"--security-opt seccomp=unconfined --security-opt no-new-privileges", "0", "1"}, {"--privileged", "0", "0"}, {"--privileged --security-opt seccomp=builtin", "2", "0"},
			{"--security-opt seccomp=" + profile, "2", "0"},
		} {
			flags := strings.Fields(test.flags)
			if s, n := status(t, try, "Seccomp", flags...), status(t, try, "NoNewPrivs", flags...); s != test.seccomp || n != test.nnp {
				t.Errorf("%s: filter %s, no_new_privs %s; want %s, %s", test.flags, s, n, test.seccomp, test.nnp)
			}
		}
		try(t, in([]string{"--cap-add", "SYS_ADMIN"}, "unmount", "/tmp")...).has(t, 0, "", "") // the profile asks for the capability
		o := try(t, in([]string{"--init", "--security-opt", "seccomp=" + profile}, "session")...)
		if o.code != 159 {
			t.Error(o)
		}
		try(t, in([]string{"--security-opt", "seccomp=" + profile}, "session")...).fails(t, 159, "filter of system calls")
	})
}

// TestMaskedPaths: what docker run hides is hidden, and what it protects cannot be written to, unless it is unmasked.
func TestMaskedPaths(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		try(t, in(nil, "cat", "/proc/keys")...).has(t, 0, "", "")
		try(t, in(nil, "write", "/proc/sys/kernel/hostname")...).has(t, 1, "open /proc/sys/kernel/hostname: read-only file system", "")
		try(t, in([]string{"--security-opt", "mask=/etc/passwd:/usr/bin"}, "cat", "/etc/passwd")...).has(t, 0, "", "")
		try(t, in([]string{"--privileged", "--security-opt", "mask=/etc/passwd"}, "cat", "/etc/passwd")...).has(t, 0, "", "")
		for _, flag := range []string{"unmask=ALL", "unmask=/proc/*", "unmask=/proc/sys:/proc/acpi", "systempaths=unconfined"} {
			writable(t, try(t, in([]string{"--security-opt", flag}, "write", "/proc/sys/kernel/domainname")...))
		}
		writable(t, try(t, in([]string{"--privileged"}, "write", "/proc/sys/kernel/domainname")...))
	})
}

// writable: who may write to a file of /proc/sys is for the kernel to say; no mount forbids it.
func writable(t *testing.T, o outcome) {
	t.Helper()
	if o.code != 0 && !strings.Contains(o.stdout, "permission denied") {
		t.Error(o)
	}
}

// TestSys: /sys shows the sandbox's own network, read-only.
func TestSys(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		if f := new(flags); f.revealing() {
			t.Skip("the caller's own /sys is covered in parts: the kernel refuses a new one")
		}
		try(t, in(nil, "list", "/sys/class/net")...).has(t, 0, "[lo]", "")
		try(t, in(nil, "write", "/sys/class/net/lo/mtu")...).has(t, 1, "open /sys/class/net/lo/mtu: read-only file system", "")
		if o := try(t, in(nil, "list", "/sys/fs/cgroup")...); o.code != 0 || o.stdout == "[]\n" {
			t.Error(o)
		}
		if o := try(t, in([]string{"--network", "host"}, "write", "/sys/class/net/lo/mtu")...); o.code != 1 {
			t.Error(o)
		}
	})
}

// TestLandlockABI: what the kernel cannot enforce is an error, unless it is left out by name.
func TestLandlockABI(t *testing.T) {
	needStatic(t)
	have := lsm.LandlockABI()
	if have == 0 {
		try(t, in([]string{"--security-opt", "landlock=ro:/"}, "true")...).fails(t, 125, "Landlock")
		return
	}
	both(t, func(t *testing.T, try trial) {
		only := fmt.Sprintf("landlock=abi:%d,rx:%s", min(have, 5), inside)
		try(t, in([]string{"--security-opt", only}, "cat", "/etc/group")...).has(t, 1, "open /etc/group: permission denied", "")
		try(t, in([]string{"--security-opt", only + ",ro:/no/such/file"}, "true")...).fails(t, 125, "/no/such/file")
		if have < 5 {
			try(t, in([]string{"--security-opt", "landlock=rx:/"}, "true")...).fails(t, 125, "needs Landlock ABI 5")
		}
	})
}

func TestLandlock(t *testing.T) {
	needStatic(t)
	if lsm.LandlockABI() < 5 {
		t.Skipf("Landlock has version %d", lsm.LandlockABI())
	}
	both(t, func(t *testing.T, try trial) {
		flags := []string{"--security-opt", "landlock=rx:" + inside + ",ro:/etc/passwd,rw:/tmp", "--security-opt", "landlock=connect:none,bind:80"}
		try(t, in(flags, "cat", "/etc/group")...).has(t, 1, "open /etc/group: permission denied", "")
		if o := try(t, in(flags, "cat", "/etc/passwd")...); o.code != 0 || o.stdout == "" {
			t.Error(o)
		}
		try(t, in(flags, "write", "/tmp/x")...).has(t, 0, "", "")
		try(t, in(flags, "write", "/run/x")...).has(t, 1, "open /run/x: permission denied", "")
		try(t, in([]string{"--security-opt", "landlock=ro:/"}, "true")...).fails(t, 126, "permission denied")
	})
}

// TestNoModule: what the kernel lacks is an error; labels of volumes are passed over, as docker run does.
func TestNoModule(t *testing.T) {
	active, err := lsm.Active()
	if err != nil || active.Has("apparmor") || active.Has("selinux") {
		t.Skip(active, err)
	}
	both(t, func(t *testing.T, try trial) {
		try(t, in([]string{"--security-opt", "apparmor=caisson"}, "true")...).fails(t, 125, "AppArmor")
		try(t, in([]string{"--security-opt", "label=type:container_t"}, "true")...).fails(t, 125, "SELinux")
		try(t, in([]string{"--security-opt", "label=disable", "--security-opt", "apparmor=unconfined", "-v", "/usr:/tmp/u:ro,Z", "-v", "/usr:/tmp/v:z"}, "true")...).has(t, 0, "", "")
	})
}

// TestSELinux: the command has the label that is asked for, with categories of its own.
func TestSELinux(t *testing.T) {
	active, err := lsm.Active()
	if err != nil || !active.Has("selinux") {
		t.Skip(active, err)
	}
	needRoot(t)
	labeled := []string{"--security-opt", "label=user:system_u", "--security-opt", "label=role:system_r", "--security-opt", "label=type:container_t"}
	o := try(t, in(labeled, "cat", "/proc/self/attr/current")...)
	if o.code != 0 || !strings.HasPrefix(o.stdout, "system_u:system_r:container_t:s0:c") {
		t.Error(o)
	}
	if again := try(t, in(labeled, "cat", "/proc/self/attr/current")...); again.code != 0 {
		t.Error(again)
	}
	o = try(t, in(append(labeled, "--security-opt", "label=level:s0:c1,c2"), "cat", "/proc/self/attr/current")...)
	if o.code != 0 || strings.Trim(o.stdout, "\x00\n") != "system_u:system_r:container_t:s0:c1,c2" {
		t.Error(o)
	}
	try(t, in([]string{"--security-opt", "label=user:no", "--security-opt", "label=role:no", "--security-opt", "label=type:no"}, "true")...).fails(t, 125, "invalid argument")
	o = try(t, in([]string{"--security-opt", "label=disable"}, "cat", "/proc/self/attr/current")...)
	if o.code != 0 || strings.Contains(o.stdout, "container_t") {
		t.Error(o)
	}
}
