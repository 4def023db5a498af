package namespaces

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launchtest"
	"github.com/caisson-dev/caisson/plan"
)

func TestSysctlNames(t *testing.T) {
	for name, want := range map[string]struct {
		path  string
		owner Set
	}{
		"net.ipv4.ip_forward":                {"net/ipv4/ip_forward", Net},
		"net/ipv4/conf/eth0.7/forwarding":    {"net/ipv4/conf/eth0.7/forwarding", Net},
		"net.ipv4.conf.eth0/7.forwarding":    {"net/ipv4/conf/eth0.7/forwarding", Net},
		"kernel.shmmax":                      {"kernel/shmmax", IPC},
		"kernel.shm_rmid_forced":             {"kernel/shm_rmid_forced", IPC},
		"kernel.msgmni":                      {"kernel/msgmni", IPC},
		"kernel.sem":                         {"kernel/sem", IPC},
		"fs.mqueue.msg_max":                  {"fs/mqueue/msg_max", IPC},
		"kernel.hostname":                    {"kernel/hostname", UTS},
		"user.max_net_namespaces":            {"user/max_net_namespaces", User},
		"net.ipv4.neigh.default.gc_thresh1":  {"net/ipv4/neigh/default/gc_thresh1", Net},
		"net.netfilter.nf_conntrack_buckets": {"net/netfilter/nf_conntrack_buckets", Net},
	} {
		path, owner, err := Sysctl{name, "1"}.parse()
		require.NoError(t, err, name)
		require.Equal(t, want.path, path)
		require.Equal(t, want.owner, owner)
	}
}

func TestSysctlRefused(t *testing.T) {
	var e *SysctlError
	for _, name := range []string{"", ".", "net", "net.", ".net.ipv4", "net..ipv4", "net/../kernel/core_pattern", "net/./x", "/net/ipv4/x",
		"net/ipv4//x", "../proc/sysrq-trigger", "net/ipv4/x/..", "net.ipv4.\x00", "net.ipv4.a\nb"} {
		require.ErrorAs(t, plan.Build(Net, Sysctl{name, "1"}).Err(), &e, name)
		require.Equal(t, name, e.Name)
		require.ErrorIs(t, e, unix.EINVAL)
	}
	for _, name := range []string{"kernel.core_pattern", "kernel.panic", "vm.swappiness", "fs.file-max", "kernel.pid_max", "kernel.shmmax.x",
		"kernel", "fs.mqueue", "kernel.semaphore", "dev.cdrom.info", "kernel.msg", "kernel.keys.maxkeys", "kernel.random.uuid"} {
		require.ErrorAs(t, plan.Build(All, Sysctl{name, "1"}).Err(), &e, name)
		require.Contains(t, e.Error(), "whole system")
		require.Contains(t, e.Error(), name)
	}
	for _, value := range []string{"", "1\n", "a\x00b"} {
		require.ErrorAs(t, plan.Build(Net, Sysctl{"net.ipv4.ip_forward", value}).Err(), &e)
	}
	var c *plan.ConflictError
	require.ErrorAs(t, plan.Build(Net, Sysctl{"net.ipv4.ip_forward", "1"}, Sysctl{"net/ipv4/ip_forward", "0"}).Err(), &c)
}

// A parameter of a namespace that is the host's would be the host's.
func TestSysctlNeedsNamespace(t *testing.T) {
	late := plan.Func(func(p *plan.Plan) error {
		p.Late(func() error { p.Clone(unix.CLONE_NEWNET); return nil })
		return nil
	})
	forward := Sysctl{"net.ipv4.ip_forward", "1"}
	require.NoError(t, plan.Build(forward, late).Err())
	require.NoError(t, plan.Build(forward, Net).Err())
	require.NoError(t, plan.Build(forward, Join{Path: "/run/netns/x", Kinds: Net}).Err())
	for name, parts := range map[string][]plan.Primitive{
		"net":  {forward, All &^ Net},
		"own":  {forward, Join{PID: os.Getpid(), Kinds: Net}},
		"ipc":  {Sysctl{"kernel.shmmax", "1"}, All &^ IPC},
		"user": {Sysctl{"user.max_net_namespaces", "1"}, All &^ User},
	} {
		var e *SysctlError
		require.ErrorAs(t, plan.Build(parts...).Err(), &e, name)
		require.Contains(t, e.Reason, "no "+map[string]string{"own": "net"}[name])
	}
}

func TestGoldenSysctl(t *testing.T) {
	golden(t, "sysctl", Net, Sysctl{"net.ipv4.ip_forward", "1"}, Sysctl{"kernel.hostname", "x"})
	require.NotContains(t, plan.Build(Net, Sysctl{"net.ipv4.ip_forward", "1"}).Again().String(), "ip_forward")
}

func TestSysctl(t *testing.T) {
	asRoot(t)
	host := map[string]string{}
	names := []string{"net/ipv4/ip_forward", "net/ipv4/ping_group_range", "net/ipv4/conf/lo/forwarding", "kernel/shmmax", "kernel/sem", "fs/mqueue/msg_max", "user/max_net_namespaces"}
	for _, name := range names {
		host[name] = readFile(t, "/proc/sys/"+name)
	}
	out := says(t, "cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/ping_group_range net/ipv4/conf/lo/forwarding kernel/shmmax kernel/sem fs/mqueue/msg_max",
		Net|IPC, Sysctl{"net.ipv4.ip_forward", "1"}, Sysctl{"net.ipv4.ping_group_range", "5 7"}, Sysctl{"net/ipv4/conf/lo/forwarding", "0"}, Sysctl{"kernel.shmmax", "123456"},
		Sysctl{"kernel.sem", "250 32000 32 100"}, Sysctl{"fs.mqueue.msg_max", "7"})
	require.Equal(t, "1\n5\t7\n0\n123456\n250\t32000\t32\t100\n7", out)
	for _, name := range names {
		require.Equal(t, host[name], readFile(t, "/proc/sys/"+name), name)
	}
}

func TestSysctlInUserNamespace(t *testing.T) {
	asRoot(t)
	m := IDs{UIDs: []Range{{0, 100000, 10}}, GIDs: []Range{{0, 100000, 10}}}
	for name, ids := range map[string]plan.Primitive{"other user": m, "root": MapRoot()} {
		t.Run(name, func(t *testing.T) { sysctlsInside(t, ids) })
	}
}

func sysctlsInside(t *testing.T, ids plan.Primitive) {
	require.Equal(t, "1", says(t, "cat /proc/sys/net/ipv4/ip_forward", ids, Net, Sysctl{"net.ipv4.ip_forward", "1"}))
	require.Equal(t, "3", says(t, "cat /proc/sys/user/max_net_namespaces", ids, Sysctl{"user.max_net_namespaces", "3"}))
	out, err := start(t, plan.Build(ids, IPC, Sysctl{"kernel.shmmax", "123456"}), "cat /proc/sys/kernel/shmmax")
	if launchtest.KernelAtLeast(t, 6, 10) {
		require.NoError(t, err)
		require.Equal(t, "123456", out)
	} else if err != nil {
		require.ErrorIs(t, err, unix.EACCES)
	}
}

func TestSysctlOfOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	sysctlsInside(t, User)
	require.ErrorIs(t, refused(t, Net, Sysctl{"net.ipv4.ip_forward", "1"}), unix.EPERM)
}

// The kernel says what it does not take; what it takes only in part, we say.
func TestSysctlValues(t *testing.T) {
	asRoot(t)
	err := refused(t, Net, Sysctl{"net.ipv4.ip_forward", "yes"})
	require.ErrorIs(t, err, unix.EINVAL)
	require.ErrorContains(t, err, "does not take this value")
	err = refused(t, IPC, Sysctl{"kernel.shmmni", "5 6 7"})
	require.ErrorIs(t, err, unix.EAGAIN)
	require.ErrorContains(t, err, "only a part")
	err = refused(t, Net, Sysctl{"net.ipv4.no_such_thing", "1"})
	require.ErrorIs(t, err, unix.ENOENT)
	require.ErrorContains(t, err, "no such parameter")
}

// The lesson of writes to /proc that land elsewhere: something is mounted over /proc, or below it.
func TestProcRedirected(t *testing.T) {
	asRoot(t)
	cases := map[string]struct {
		over string
		make func(dir string) error
		want error
	}{
		"tmpfs on /proc":         {"/proc", nil, unix.EINVAL},
		"part of proc on /proc":  {"/proc", bind("/proc/sys"), unix.EINVAL},
		"tmpfs on /proc/sys/net": {"/proc/sys/net", nil, unix.EXDEV},
		"other on /proc/sys":     {"/proc/sys", bind("/proc/self"), unix.EXDEV},
		"tmpfs on kernel":        {"/proc/sys/kernel", nil, unix.EXDEV},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := plan.Build(Net|IPC, Sysctl{"net.ipv4.ip_forward", "1"}, Sysctl{"kernel.shmmax", "4096"})
			var err error
			require.NoError(t, Do(Mount, func() error {
				mount := c.make
				if mount == nil {
					mount = func(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") }
				}
				if err := mount(c.over); err != nil {
					return err
				}
				if c.over == "/proc" {
					if err := os.MkdirAll("/proc/sys/net/ipv4", 0o755); err == nil {
						os.WriteFile("/proc/sys/net/ipv4/ip_forward", nil, 0o644)
					}
				}
				_, err = start(t, p, "echo started")
				return nil
			}))
			require.ErrorIs(t, err, c.want)
		})
	}
}

func bind(source string) func(string) error {
	return func(dir string) error { return unix.Mount(source, dir, "", unix.MS_BIND, "") }
}

// Id maps are not written into a directory that only looks like a process.
func TestMapRedirected(t *testing.T) {
	asRoot(t)
	var err error
	require.NoError(t, Do(Mount, func() error {
		if err := unix.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
			return err
		}
		for _, name := range []string{"uid_map", "gid_map"} { // of our own pid, as good as any
			if err := os.MkdirAll(filepath.Join("/proc", strconv.Itoa(os.Getpid())), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(os.Getpid()), name), nil, 0o644); err != nil {
				return err
			}
		}
		err = writeOwn("uid_map", "0 0 1")
		return nil
	}))
	require.ErrorIs(t, err, unix.EINVAL)

}

// A procfs of another pid namespace would show somebody else under the number.
func TestOtherProc(t *testing.T) {
	asRoot(t)
	hasCommand(t, "mount", "Debian's package mount")
	var err error
	require.NoError(t, Do(Mount|PID, func() error {
		if out, err := exec.Command("mount", "-t", "proc", "proc", "/proc").CombinedOutput(); err != nil {
			t.Error(string(out))
			return err
		}
		err = writeOwn("uid_map", "0 0 1")
		return nil
	}))
	require.ErrorContains(t, err, "another pid namespace")
}

func TestMaxUserNamespaces(t *testing.T) {
	asRoot(t)
	hasCommand(t, "unshare", "util-linux")
	before := readFile(t, "/proc/sys/user/max_user_namespaces")
	nest := "cat /proc/sys/user/max_user_namespaces; unshare -U echo nested 2>&1"
	out := says(t, nest, MaxUserNamespaces(0))
	require.Regexp(t, "^0\n.*No space left on device", out)
	require.Equal(t, "1\nnested", says(t, nest, MaxUserNamespaces(1)))
	require.Regexp(t, "^1\n.*No space left on device", says(t, "cat /proc/sys/user/max_user_namespaces; unshare -U sh -c 'unshare -U echo nested' 2>&1", MaxUserNamespaces(1)))
	require.Equal(t, before, readFile(t, "/proc/sys/user/max_user_namespaces"))
	require.ErrorIs(t, plan.Build(MaxUserNamespaces(-1)).Err(), unix.EINVAL)
}

func TestMaxUserNamespacesOfOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	hasCommand(t, "unshare", "util-linux")
	require.Contains(t, says(t, "unshare -U true 2>&1", MaxUserNamespaces(0)), "No space left on device")
	require.Contains(t, says(t, "unshare -U true 2>&1", User|PID, KeepIDs(), MaxUserNamespaces(0)), "No space left on device")
}

// writeOwn writes a file of this process in /proc.
func writeOwn(name, text string) error {
	proc, err := openOwnProc()
	if err != nil {
		return err
	}
	defer proc.Close()
	return writeProc(proc, os.Getpid(), name, text)
}
