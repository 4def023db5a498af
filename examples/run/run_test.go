//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eachUser runs a test as root and as an ordinary user.
func eachUser(t *testing.T, f func(t *testing.T, uid int)) {
	t.Run("root", func(t *testing.T) {
		needRoot(t)
		f(t, 0)
	})
	t.Run("user", func(t *testing.T) {
		needUser(t)
		f(t, ordinary())
	})
}

// both is eachUser for those who need no more than a way to try.
func both(t *testing.T, f func(t *testing.T, try trial)) {
	eachUser(t, func(t *testing.T, uid int) {
		f(t, func(t *testing.T, args ...string) outcome {
			t.Helper()
			return end(t, command(uid, args...))
		})
	})
}

type trial = func(t *testing.T, args ...string) outcome

func tryAsUser(t *testing.T, args ...string) outcome {
	t.Helper()
	return end(t, command(ordinary(), args...))
}

func TestPython(t *testing.T) {
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip(err)
	}
	both(t, func(t *testing.T, try trial) {
		try(t, "--", "python3", "-c", "print(6*7)").has(t, 0, "42", "")
	})
}

func TestExitCode(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		for _, init := range []string{"--init=false", "--init"} {
			flags := []string{init}
			try(t, in(flags, "true")...).has(t, 0, "", "")
			try(t, in(flags, "exit", "3")...).has(t, 3, "", "")
			try(t, in(flags, "exit", "255")...).has(t, 255, "", "")
		}
		for _, sig := range []int{1, 9, 15} {
			try(t, in([]string{"--init"}, "kill", strconv.Itoa(sig))...).has(t, 128+sig, "", "")
		}
		try(t, in([]string{"--pid", "host"}, "kill", "9")...).has(t, 137, "", "")
	})
}

func TestNotExecuted(t *testing.T) {
	dir := rootfs(t)
	for _, test := range []struct {
		name string
		code int
		text string
	}{
		{"/bin/missing", 127, "no such program"}, {"missing", 127, "no such program"}, {"/bin/lost", 127, "interpreter"},
		{"/bin/closed", 126, "permission denied"}, {"closed", 126, "permission denied"}, {"/etc", 126, "permission denied"},
		{"/bin/plain", 126, "exec format error"}, {"/bin/plain/x", 126, "not a directory"},
	} {
		try(t, "--rootfs", dir, test.name).fails(t, test.code, test.text)
		try(t, "--rootfs", dir, "--init", test.name).fails(t, test.code, test.text)
	}
}

func TestBadFlags(t *testing.T) {
	dir := t.TempDir()
	envFile := filepath.Join(dir, "env")
	must(t, os.WriteFile(envFile, []byte("GOOD=1\nnot good=2\n"), 0o644))
	tests := []struct{ args, text string }{
		{"", "no command"}, {"--", "no command"}, {"--init", "no command"},
		{"--nonsense x", "unknown flag --nonsense"}, {"--h x y", "unknown flag --h"}, {"-x y", "unknown flag -x"}, {"-ix y", "unknown flag -x in -x"},
		{"-d x", "unknown flag -d"}, {"--hostname", "--hostname needs a value"}, {"-e", "-e needs a value"}, {"-it=maybe x", "-t"},
		{"--init=2 x", `--init "2"`}, {"--rm=x x", "--rm"},
		{"-e= x", "needs a name"}, {"-e =a x", "needs a name"}, {"--env-file /no/such x", "no such file"}, {"--env-file " + envFile + " x", "line 2"},
		{"-v /tmp x", "SOURCE:TARGET"}, {"-v :/x y", "SOURCE:TARGET"}, {"-v name:/mnt x", "no named volumes"}, {"-v /a:/b:ro:z x", "SOURCE:TARGET"}, {"-v /tmp:/mnt:q x", `no option "q"`}, {"-v /tmp:/mnt: x", `no option ""`},
		{"-v /tmp:mnt x", "absolute"}, {"-v /tmp:/ x", "below /"}, {"-v /tmp:/mnt:ro,idmap x", "no option"}, {"-v /no/such:/mnt x", "no such file"},
		{"-v /tmp:/mnt -v /usr:/mnt/ x", "two mounts at /mnt"}, {"-v /tmp:/mnt --tmpfs /mnt x", "two mounts at /mnt"},
		{"--tmpfs x y", "absolute"}, {"--tmpfs /tmp:suid x", "suid"}, {"--tmpfs /tmp:nr_inodes=0 x", "above zero"}, {"--tmpfs /tmp:size=x y", "size"}, {"--tmpfs /tmp:size= y", "size"},
		{"--tmpfs /tmp:mode=8 y", "mode"}, {"--tmpfs /tmp: y", "option"},
		{"-w tmp x", "not an absolute path"}, {"-w /no/such/directory true", "working directory does not exist"},
		{"-u nosuchuser x", `no user "nosuchuser"`}, {"-u 0:nosuchgroup x", `no group "nosuchgroup"`}, {"--group-add nosuchgroup x", "no group"}, {"-u -1 x", "no user"}, {"-u 4294967295 x", "no user"},
		{"--userns 1000 x", "not one of host, keep-id, auto"}, {"--network nope x", "not one of none, host"}, {"--network macvlan x", "macvlan:PARENT"}, {"--network host:x y", "what is"}, {"-p 80 x", "goes with --network bridge"},
		{"--network bridge -p 1-2:3 x", "same length"}, {"--network bridge -p 1-2 x", "one of the host"}, {"--network bridge -p 080:1 x", "not a port"}, {"--network bridge -p 1/x y", "not one of tcp"},
		{"--network bridge -p x:1:1 y", "unable to parse"}, {"--ip 10.0.0.1 x", "go with --network bridge"}, {"--add-host x y", "NAME:ADDRESS"}, {"--bandwidth x y", "not a rate"}, {"--bandwidth up=1k y", "in=RATE"}, {"--bandwidth 1m x", "goes with --network bridge"},
		{"--rootfs / --layer /a x", "does not go with"}, {"--commit /a x", "goes with"}, {"--layer /a --read-only --commit /b x", "does not go with"}, {"--entrypoint /a x", "goes with --image"}, {"--layer /a --userns auto x", "nobody"}, {"--pid container:x y", "not one of"},
		{"--ipc x y", "not one of"}, {"--uts x y", "not one of"}, {"--cgroupns x y", "not one of"},
		{"--uts host -h x y", "--uts host"}, {"--uts host --domainname x y", "--uts host"}, {"-h " + strings.Repeat("x", 65) + " y", "64 bytes"},
		{"--ulimit nofile x", "nofile"}, {"--ulimit beer=3 x", "beer"}, {"--ulimit nofile=2:1 x", "above the hard limit"}, {"--ulimit nofile=1 --ulimit nofile=2 x", "twice"},
		{"--timeout 3 x", "missing unit"}, {"--timeout -1s x", "not above zero"}, {"--timeout 0s x", "not above zero"},
		{"--init --pid host true", "pid namespace"}, {"--rootfs /no/such x", "no such file"}, {"--rootfs /etc/passwd x", "not a directory"},
		{"-it x", "the input device is not a TTY"}, {"--explain --userns host --init --pid host true", "pid namespace"},
		{"-v /etc:/no/such/place true", "mount point does not exist"},
		{"--mount type=bind,src=/tmp x", "no target"}, {"--mount type=bind,dst=/mnt x", "no source"}, {"--mount type=volume,dst=/mnt x", "neither bind nor tmpfs"},
		{"--mount type=tmpfs,src=/tmp,dst=/mnt x", "not of this type"}, {"--mount type=bind,src=/tmp,dst=/mnt,tmpfs-size=1k x", "not of this type"},
		{"--mount type=bind,src=/tmp,dst=/mnt,nonsense x", "no key"}, {"--mount type=bind,src=/tmp,dst=/mnt,ro=maybe x", "maybe"}, {`--mount " x`, "quote"},
		{"--device x y", "absolute"}, {"--device /dev/null:/dev/a:rwm:x y", "HOST"}, {"--device /etc/passwd:/dev/x x", "not a device"}, {"--device /dev/no-such x", "no such file"},
		{"--device /dev/null:/dev/a -v /tmp:/dev/a x", "two mounts at /dev/a"}, {"--shm-size 0 x", "size"}, {"--shm-size 1m --ipc host x", "--shm-size"},
		{"--cap-add fly x", "fly"}, {"--cap-drop 0x1 x", "0x1"}, {"--cap-add none x", "none"}, {"--cap-add 12 x", "12"}, {"--cap-add chown,kill x", "chown,kill"},
		{"--security-opt x y", "needs a value"}, {"--security-opt x=y z", `no option "x"`}, {"--security-opt no-new-privileges=2 x", "2"}, {"--security-opt seccomp= x", "needs a value"},
		{"--security-opt seccomp=/no/such x", "no such file"}, {"--security-opt seccomp=" + envFile + " x", "line 1"}, {"--security-opt mask=x y", "absolute"},
		{"--security-opt unmask=x y", "ALL"}, {"--security-opt unmask=/[ y", "pattern"}, {"--security-opt systempaths=x y", "unconfined"}, {"--security-opt mask=/proc/self/fd true", "one process"},
		{"--security-opt label=x y", "type:TYPE"}, {"--security-opt label=type: y", "type:TYPE"}, {"--security-opt landlock=ro:x y", "absolute"}, {"--security-opt landlock=/usr y", "none of ro"},
		{"--security-opt landlock=bind:70000 y", "70000"}, {"--security-opt landlock=scope:all y", "all"}, {"--security-opt landlock=abi:x y", "x"}, {"--security-opt landlock=abi:0 true", "ABI"},
		{"-m x y", "bytes"}, {"-m -1 y", "negative"}, {"--cpus -1 x", "negative"}, {"--cpus nan x", "no such unit"}, {"--cpu-shares 0 x", "above zero"}, {"--cpu-quota -2 x", "above zero"}, {"--cpu-quota 99999999999 x", "too large"},
		{"--cpus 1 --cpu-quota 1000 x", "CPUs"}, {"--pids-limit -2 x", "above zero"}, {"--blkio-weight 9 x", "10 to 1000"}, {"--device-read-bps 1m x", "DEVICE:NUMBER"},
		{"--device-write-iops /dev/null:0 x", "above zero"}, {"--device-cgroup-rule q x", "device"}, {"--memory-swap 1m x", "--memory-swap"}, {"-m 2m --memory-swap 1m x", "cannot be less"},
		{"--cgroup-parent ../x -m 1m true", ".."}, {"--cgroup-parent= true", "empty"},
	}
	for _, test := range tests {
		try(t, strings.Fields(test.args)...).fails(t, 125, test.text)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-it", "--help"}, {"--rm", "--help", "x"}} {
		try(t, args...).has(t, 0, strings.TrimSpace(usage), "")
	}
	try(t, "--rootfs", "--help").fails(t, 125, "no command")
}

// TestExplain: the plan is printed, and nothing is done.
func TestExplain(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		dir := t.TempDir()
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		must(t, os.Chmod(dir, 0o777))
		o := try(t, in([]string{"--explain", "-t", "--hostname", "box", "-v", dir + ":/tmp/out", "--timeout", "1ns"}, "write", "/tmp/out/file")...)
		for _, want := range []string{"pivot_root(", `sethostname("box", 3)`, "setsid()", "TIOCSCTTY", "PR_SET_PDEATHSIG", "CLONE_NEWNET", `fsopen("sysfs"`, "PR_CAPBSET_DROP", "SECCOMP_SET_MODE_FILTER",
			`execve("` + inside + `/tool", ["`} {
			if !strings.Contains(o.stdout, want) {
				t.Errorf("no %s in the plan:\n%s", want, o.stdout)
			}
		}
		if o.code != 0 || o.stderr != "" {
			t.Error(o.code, o.stderr)
		}
		if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
			t.Error("something was executed", entries, err)
		}
	})
}

func TestArguments(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		args := in(nil, "args", "-i", "--", "", "a b")
		try(t, args...).has(t, 0, `["-i" "--" "" "a b"]`, "")
		try(t, slices.DeleteFunc(args, func(a string) bool { return a == "--" })...).has(t, 0, `["-i" "" "a b"]`, "")
	})
}

func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	must(t, os.WriteFile(file, []byte("# comment\n\n  A=file \"quoted\"\nB=file\nOUTSIDE\nUNSET\n"), 0o644))
	const standard = "PATH=" + defaultPath + "\nHOSTNAME=box\nHOME=/root"
	try(t, in([]string{"-h", "box"}, "env")...).has(t, 0, standard, "")
	try(t, in([]string{"-h", "box", "-e", "B=flag", "--env-file", file, "-eC=", "-e", "D=x=y", "--env=HOME=/h", "-e", "UNSET", "-e", "PATH=/p"}, "env")...).
		has(t, 0, "HOSTNAME=box\nA=file \"quoted\"\nOUTSIDE=yes\nB=flag\nC=\nD=x=y\nHOME=/h\nPATH=/p", "")
}

func TestHostname(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		o := try(t, in(nil, "names")...)
		if name, domain, _ := strings.Cut(o.stdout, " "); len(name) != 12 || strings.Trim(name, "0123456789abcdef") != "" || domain == "" {
			t.Errorf("%q is not a name of 12 hexadecimal digits", o.stdout)
		}
		if again := try(t, in(nil, "names")...); again.stdout == o.stdout {
			t.Errorf("%q twice", o.stdout)
		}
		for _, flags := range [][]string{{"-h", "box"}, {"-hbox"}, {"--hostname=box"}} {
			try(t, in(append(flags, "--domainname", "dom"), "names")...).has(t, 0, "box dom", "")
		}
		var u unix.Utsname
		unix.Uname(&u)
		host := unix.ByteSliceToString(u.Nodename[:])
		try(t, in([]string{"--uts", "host"}, "names")...).has(t, 0, strings.TrimSpace(host+" "+unix.ByteSliceToString(u.Domainname[:])), "")
		if o := try(t, in([]string{"--uts=host"}, "env")...); !strings.Contains(o.stdout, "HOSTNAME="+host+"\n") {
			t.Errorf("no host name %s in %q", host, o.stdout)
		}
	})
}

func TestWorkdir(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		try(t, in(nil, "cwd")...).has(t, 0, "/ <nil>", "")
		try(t, in([]string{"-w", "/usr"}, "cwd")...).has(t, 0, "/usr <nil>", "")
		try(t, in([]string{"--workdir", inside}, "cwd")...).has(t, 0, inside+" <nil>", "")
	})
}

func TestUser(t *testing.T) {
	needRoot(t)
	dir := rootfs(t)
	for _, test := range []struct {
		flags, id, home string
	}{
		{"", "0 0 []", "/root"}, {"-u alice", "1234 1235 [50]", "/home/alice"}, {"-u 1234", "1234 1235 [50]", "/home/alice"}, {"-u bob", "1236 1236 [50]", "/"},
		{"-u alice:staff", "1234 50 []", "/home/alice"}, {"-u alice:9", "1234 9 []", "/home/alice"}, {"-u 77", "77 0 []", "/"}, {"-u 77:video", "77 44 []", "/"},
		{"-u :staff", "0 50 []", "/root"}, {"-u alice --group-add video --group-add 9", "1234 1235 [9 44 50]", "/home/alice"}, {"--group-add video", "0 0 [44]", "/root"},
	} {
		flags := append([]string{"--rootfs", dir}, strings.Fields(test.flags)...)
		try(t, append(flags, "tool", "id")...).has(t, 0, test.id, "")
		if o := try(t, append(flags, "tool", "env")...); !strings.Contains(o.stdout, "HOME="+test.home+"\n") {
			t.Errorf("%s: no HOME=%s in %q", test.flags, test.home, o.stdout)
		}
	}
}

// TestUserFiles: a root directory cannot make us read files of the host's.
func TestUserFiles(t *testing.T) {
	needRoot(t)
	dir := rootfs(t)
	must(t, os.Remove(filepath.Join(dir, "etc/passwd")))
	try(t, "--rootfs", dir, "-u", "3:4", "tool", "id").has(t, 0, "3 4 []", "")
	try(t, "--rootfs", dir, "-u", "alice", "tool", "id").fails(t, 125, `no user "alice"`)
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "etc/passwd")))
	try(t, "--rootfs", dir, "-u", "root", "tool", "id").fails(t, 125, "escapes")
}

func TestUserNamespace(t *testing.T) {
	t.Run("root", func(t *testing.T) {
		needRoot(t)
		own, err := os.Readlink("/proc/self/ns/user")
		must(t, err)
		try(t, in(nil, "namespace", "user")...).has(t, 0, own, "")
		try(t, in([]string{"--userns="}, "namespace", "user")...).has(t, 0, own, "")
		try(t, in([]string{"--userns", "host"}, "namespace", "user")...).has(t, 0, own, "")
		try(t, in([]string{"--userns=keep-id"}, "cat", "/proc/self/uid_map")...).has(t, 0, "0          0          1", "")
		if o := try(t, in([]string{"--userns=keep-id"}, "namespace", "user")...); o.code != 0 || strings.TrimSpace(o.stdout) == own {
			t.Error(o)
		}
	})
	t.Run("user", func(t *testing.T) {
		needUser(t)
		uid, gid := ordinary(), ordinary()
		if uid == os.Geteuid() {
			gid = os.Getegid()
		}
		tryAsUser(t, in(nil, "id")...).has(t, 0, "0 0 []", "")
		tryAsUser(t, in(nil, "cat", "/proc/self/uid_map")...).has(t, 0, fmt.Sprintf("0 %10d          1", uid), "")
		tryAsUser(t, in([]string{"--userns", "keep-id"}, "id")...).has(t, 0, fmt.Sprint(uid, gid, []int{}), "")
		tryAsUser(t, in([]string{"--userns", "keep-id"}, "cat", "/proc/self/uid_map")...).has(t, 0, fmt.Sprintf("%d %10d          1", uid, uid), "")
		tryAsUser(t, in([]string{"-u", "root"}, "id")...).has(t, 0, "0 0 []", "")
		tryAsUser(t, in([]string{"-u", "1000"}, "id")...).fails(t, 125, "id map")
		tryAsUser(t, in([]string{"--group-add", "0"}, "id")...).fails(t, 125, "setgroups")
		tryAsUser(t, in([]string{"--userns", "keep-id", "-u", "root"}, "id")...).fails(t, 125, "id map")
		tryAsUser(t, in([]string{"--userns", "host"}, "id")...).fails(t, 125, "CAP_SYS_ADMIN")
	})
}

// TestAuto also shows that run works in run: the inner one has the subordinate ids of the outer one's root directory.
func TestAuto(t *testing.T) {
	needRoot(t)
	dir := rootfs(t)
	inner := func(flags ...string) []string {
		return append([]string{"--rootfs", dir, "--security-opt", "seccomp=unconfined", "--security-opt", "unmask=ALL", "--", "run", "--userns", "auto"}, flags...)
	}
	try(t, inner("tool", "cat", "/proc/self/uid_map")...).has(t, 0, "0     200000      65536", "")
	try(t, inner("tool", "cat", "/proc/self/gid_map")...).has(t, 0, "0     300000      65536", "")
	try(t, inner("tool", "id")...).has(t, 0, "0 0 []", "")
	try(t, inner("-u", "alice", "--group-add", "video", "tool", "id")...).has(t, 0, "1234 1235 [44 50]", "")
	try(t, inner("-u", "70000", "tool", "id")...).fails(t, 125, "id map")
	must(t, os.Remove(filepath.Join(dir, "etc/subuid")))
	try(t, inner("tool", "id")...).fails(t, 125, "/etc/subuid")
}

func TestVolumes(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		dir := t.TempDir()
		must(t, os.Chmod(filepath.Dir(dir), 0o755))
		must(t, os.Chmod(dir, 0o777))
		must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o666))
		must(t, os.Chmod(filepath.Join(dir, "file"), 0o666))
		try(t, in([]string{"-v", dir + ":/tmp/d:ro"}, "cat", "/tmp/d/file")...).has(t, 0, "content", "")
		try(t, in([]string{"-v", dir + ":/tmp/d:ro"}, "write", "/tmp/d/file")...).has(t, 1, "open /tmp/d/file: read-only file system", "")
		try(t, in([]string{"-v", dir + "/file:/tmp/f:ro"}, "write", "/tmp/f")...).has(t, 1, "open /tmp/f: read-only file system", "")
		try(t, in([]string{"-v", dir + "/file:/run/x/f:ro"}, "cat", "/run/x/f")...).has(t, 0, "content", "")
		try(t, in([]string{"--volume=" + dir + ":/tmp/d/:rw"}, "write", "/tmp/d/file")...).has(t, 0, "", "")
		if b, err := os.ReadFile(filepath.Join(dir, "file")); string(b) != "written" || err != nil {
			t.Error(string(b), err)
		}
		// Whatever the order of the flags, what is mounted lower down is not covered.
		try(t, in([]string{"-v", dir + ":/tmp/a/b/c:ro", "--tmpfs", "/tmp/a"}, "cat", "/tmp/a/b/c/file")...).has(t, 0, "written", "")
		c := command(os.Geteuid(), in([]string{"-v", "./:/tmp/rel"}, "cat", "/tmp/rel/file")...)
		c.Dir = dir
		end(t, c).has(t, 0, "written", "")
	})
}

func TestHostRoot(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		try(t, in(nil, "write", "/etc/written-by-run")...).has(t, 1, "open /etc/written-by-run: read-only file system", "")
		try(t, in([]string{"--read-only"}, "write", "/etc/written-by-run")...).has(t, 1, "open /etc/written-by-run: read-only file system", "")
		try(t, in(nil, "write", "/tmp/file")...).has(t, 0, "", "")
		try(t, in(nil, "write", "/run/file")...).has(t, 0, "", "")
	})
}

// TestCapabilities: what is read-only stays so for root inside, also for one who makes user namespaces, and what is covered
// stays covered.
func TestCapabilities(t *testing.T) {
	needUser(t)
	both(t, func(t *testing.T, try trial) {
		for _, flags := range [][]string{nil, {"--init"}, {"--userns", "keep-id"}} {
			o := try(t, in(flags, "cat", "/proc/self/status")...)
			if !strings.Contains(o.stdout, "CapBnd:\t00000000a00425fb\n") {
				t.Errorf("%v: another bounding set in %v", flags, o)
			}
			try(t, in(flags, "remount")...).has(t, 1, "operation not permitted", "")
			try(t, in(flags, "unmount", "/run")...).has(t, 1, "operation not permitted", "")
			try(t, in(flags, "mknod")...).has(t, 1, "operation not permitted", "")
			try(t, in(flags, "newuser")...).has(t, 1, "fork/exec /proc/self/exe: operation not permitted", "")
			flags = append(flags, "--security-opt", "seccomp=unconfined")
			try(t, in(flags, "newuser")...).has(t, 0, "", "")
			try(t, in(flags, "newuser", "remount")...).has(t, 1, "operation not permitted", "")
			try(t, in(flags, "newuser", "unmount")...).has(t, 1, "invalid argument", "") // locked, mount_namespaces(7)
		}
	})
}

func TestRootfs(t *testing.T) {
	needRoot(t)
	dir := rootfs(t)
	written := filepath.Join(dir, "written")
	try(t, "--rootfs", dir, "--read-only", "tool", "write", "/written").has(t, 1, "open /written: read-only file system", "")
	try(t, "--rootfs", dir, "--read-only", "--tmpfs", "/mnt/new", "tool", "write", "/mnt/new/x").has(t, 0, "", "")
	if _, err := os.Stat(written); err == nil {
		t.Error("written nevertheless")
	}
	try(t, "--rootfs", dir, "tool", "write", "/written").has(t, 0, "", "")
	if _, err := os.Stat(written); err != nil {
		t.Error(err)
	}
	c := command(0, "--rootfs", "./"+filepath.Base(dir), "tool", "pid")
	c.Dir = filepath.Dir(dir)
	end(t, c).has(t, 0, "1", "")
}

func TestRootfsOfUser(t *testing.T) {
	needRoot(t) // to make a directory that is not the user's
	needUser(t)
	dir := rootfs(t)
	try := tryAsUser
	try(t, "--rootfs", dir, "tool", "pid").fails(t, 125, "mount point") // has no /proc, and is root's
	must(t, os.Mkdir(filepath.Join(dir, "proc"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "dev"), 0o755))
	try(t, "--rootfs", dir, "tool", "id").has(t, 0, "0 0 []", "")
	try(t, "--rootfs", dir, "tool", "write", "/written").has(t, 1, "open /written: permission denied", "")
	must(t, os.Chown(dir, ordinary(), ordinary()))
	try(t, "--rootfs", dir, "tool", "write", "/written").has(t, 0, "", "")
	try(t, "--rootfs", dir, "--read-only", "tool", "write", "/written").has(t, 1, "open /written: read-only file system", "")
}

func TestTmpfs(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		try(t, in([]string{"--tmpfs", "/tmp/s:size=64k,mode=700"}, "stat", "/tmp/s")...).has(t, 0, "drwx------ 65536 true", "")
		try(t, in([]string{"--tmpfs", "/tmp/s:mode=1755,size=1M"}, "stat", "/tmp/s")...).has(t, 0, "dtrwxr-xr-x 1048576 true", "")
		try(t, in([]string{"--tmpfs", "/tmp:size=128k"}, "stat", "/tmp")...).has(t, 0, "dtrwxrwxrwx 131072 true", "")
		try(t, in([]string{"--tmpfs", "/run/m", "--tmpfs", "/run/m/x"}, "write", "/run/m/x/y")...).has(t, 0, "", "")
	})
}

func TestNetwork(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		try(t, in(nil, "interfaces")...).has(t, 0, "[lo]", "")
		try(t, in([]string{"--network", "none"}, "interfaces")...).has(t, 0, "[lo]", "")
		own, err := os.Readlink("/proc/self/ns/net")
		must(t, err)
		try(t, in([]string{"--network", "host"}, "namespace", "net")...).has(t, 0, own, "")
		dev, err := os.ReadFile("/proc/self/net/dev")
		must(t, err)
		o := try(t, in([]string{"--net=host"}, "interfaces")...)
		if n := strings.Count(string(dev), ":"); len(strings.Fields(o.stdout)) != n {
			t.Errorf("%s are not the host's %d", o.stdout, n)
		}
	})
}

// TestNamespaces: each is the sandbox's own unless --... host.
func TestNamespaces(t *testing.T) {
	flag := map[string]string{"net": "network", "cgroup": "cgroupns", "pid": "pid", "ipc": "ipc", "uts": "uts"}
	both(t, func(t *testing.T, try trial) {
		for _, kind := range []string{"pid", "ipc", "uts", "cgroup", "net", "mnt"} {
			own, err := os.Readlink("/proc/self/ns/" + kind)
			must(t, err)
			if o := try(t, in(nil, "namespace", kind)...); o.code != 0 || strings.TrimSpace(o.stdout) == own || !strings.Contains(o.stdout, "[") {
				t.Errorf("%s: %v; the host's is %s", kind, o, own)
			}
			if f := flag[kind]; f != "" {
				try(t, in([]string{"--" + f, "host"}, "namespace", kind)...).has(t, 0, own, "")
			}
		}
	})
}

func TestPID(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		try(t, in(nil, "pid")...).has(t, 0, "1", "")
		try(t, in(nil, "processes")...).has(t, 0, "1", "")
		try(t, in([]string{"--init"}, "pid")...).has(t, 0, "2", "")
		for _, what := range []string{"pid", "processes"} {
			if o := try(t, in([]string{"--pid=host"}, what)...); o.code != 0 || len(strings.TrimSpace(o.stdout)) < 2 {
				t.Errorf("--pid host %s: %v", what, o)
			}
		}
	})
}

// TestIPC: --ipc host also shares what shm_open(3) makes.
func TestIPC(t *testing.T) {
	if st, err := os.Stat("/dev/shm"); err != nil || !st.IsDir() {
		t.Skip("the machine has no /dev/shm:", err)
	}
	f, err := os.CreateTemp("/dev/shm", "caisson-run")
	must(t, err)
	defer os.Remove(f.Name())
	must(t, f.Chmod(0o644))
	both(t, func(t *testing.T, try trial) {
		try(t, in([]string{"--ipc", "host"}, "cat", f.Name())...).has(t, 0, "", "")
		if o := try(t, in(nil, "cat", f.Name())...); o.code != 1 {
			t.Error(o)
		}
	})
}

func TestInit(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		try(t, in([]string{"--init"}, "family")...).has(t, 0, "parent 1\nreaped", "")
	})
}

func TestSession(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		try(t, in(nil, "session")...).has(t, 0, "true", "")
	})
}

func TestUlimit(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		try(t, in([]string{"--ulimit", "nofile=64:64"}, "limit", strconv.Itoa(unix.RLIMIT_NOFILE))...).has(t, 0, "64 64", "")
		flags := []string{"--ulimit=cpu=10:20", "--ulimit", "fsize=4096:8192"}
		try(t, in(flags, "limit", strconv.Itoa(unix.RLIMIT_CPU))...).has(t, 0, "10 20", "")
		try(t, in(flags, "limit", strconv.Itoa(unix.RLIMIT_FSIZE))...).has(t, 0, "4096 8192", "")
	})
}

func TestTimeout(t *testing.T) {
	both(t, func(t *testing.T, try trial) {
		for _, flags := range [][]string{nil, {"--init"}, {"--pid", "host"}} {
			begin := time.Now()
			try(t, in(append(flags, "--timeout=1s"), "sleep")...).has(t, 137, "ready", "run: killed after 1s, as --timeout says")
			if d := time.Since(begin); d < time.Second || d > 20*time.Second {
				t.Errorf("it took %v", d)
			}
		}
		try(t, in([]string{"--timeout", "1h"}, "exit", "4")...).has(t, 4, "", "")
		try(t, in([]string{"--timeout", "1ns"}, "exit", "4")...).has(t, 137, "", "run: killed after 1ns, as --timeout says")
	})
}

func TestInput(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		for flag, want := range map[string]string{"--rm": "", "-i": "typed", "--interactive": "typed", "-i=false": ""} {
			c := command(uid, in([]string{flag}, "cat")...)
			c.Stdin = strings.NewReader("typed")
			end(t, c).has(t, 0, want, "")
		}
	})
}

func TestSignals(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		for _, flag := range []string{"--rm", "--init"} {
			c := command(uid, in([]string{flag}, "signals")...)
			out, err := c.StdoutPipe()
			must(t, err)
			must(t, c.Start())
			wait(t, out, "ready\n")
			for _, s := range append(slices.DeleteFunc(forwarded(), func(s os.Signal) bool { return s == syscall.SIGINT }), syscall.SIGINT) {
				must(t, c.Process.Signal(s))
				wait(t, out, fmt.Sprintln("got", int(s.(syscall.Signal))))
			}
			if c.Wait(); c.ProcessState.ExitCode() != 5 {
				t.Error(c.ProcessState)
			}
		}
	})
}

// TestSignalKills: with --init there is a default action.
func TestSignalKills(t *testing.T) {
	c := command(os.Geteuid(), in([]string{"--init"}, "sleep")...)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	wait(t, out, "ready\n")
	must(t, c.Process.Signal(syscall.SIGTERM))
	if c.Wait(); c.ProcessState.ExitCode() != 143 {
		t.Error(c.ProcessState)
	}
}

// TestKilled: nothing survives run, not even when it cannot do anything about it.
func TestKilled(t *testing.T) {
	eachUser(t, func(t *testing.T, uid int) {
		for _, flags := range [][]string{nil, {"--init"}, {"--pid", "host"}} {
			c := command(uid, in(flags, "sleep")...)
			r, w, err := os.Pipe()
			must(t, err)
			c.Stdout = w
			must(t, c.Start())
			w.Close()
			wait(t, r, "ready\n")
			must(t, c.Process.Kill())
			c.Wait()
			must(t, r.SetReadDeadline(time.Now().Add(20*time.Second)))
			if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
				t.Errorf("%v: somebody still has the standard output: %d, %v", flags, n, err)
			}
			r.Close()
		}
	})
}
