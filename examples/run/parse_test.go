//go:build linux

package main

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/cgroups"
	"github.com/caisson-dev/caisson/chroot"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		args string
		want flags
	}{
		{"x", flags{command: []string{"x"}}},
		{"-- -x -- y", flags{command: []string{"-x", "--", "y"}}},
		{"-", flags{command: []string{"-"}}},
		{"x --help -it", flags{command: []string{"x", "--help", "-it"}}},
		{"-it x", flags{interactive: true, tty: true, command: []string{"x"}}},
		{"-ti=false x", flags{tty: true, command: []string{"x"}}},
		{"--tty=true -i x", flags{interactive: true, tty: true, command: []string{"x"}}},
		{"-iteA=1 x", flags{interactive: true, tty: true, env: []string{"A=1"}, command: []string{"x"}}},
		{"-e=A=1 -e A=2 --env A=3 --env=A=4 x", flags{env: []string{"A=1", "A=2", "A=3", "A=4"}, command: []string{"x"}}},
		{"-e -it x", flags{env: []string{"-it"}, command: []string{"x"}}}, // as docker run
		{"-hbox -uroot -w/x x", flags{hostname: "box", user: "root", workdir: "/x", command: []string{"x"}}},
		{"--rm --init --read-only --explain x", flags{rm: true, init: true, readOnly: true, explain: true, command: []string{"x"}}},
		{"--userns= --network= --timeout 1m30s x", flags{timeout: 90 * time.Second, command: []string{"x"}}},
		{"--network host --pid host --ipc host --uts host --cgroupns host --userns host x",
			flags{network: network{kind: "host"}, pid: "host", ipc: "host", uts: "host", cgroupns: "host", userns: "host", command: []string{"x"}}},
		{"-v /a:/b -v /c/:/d/../e:ro x", flags{command: []string{"x"},
			volumes: []volume{{Bind: chroot.Bind{Source: "/a", Target: "/b"}}, {Bind: chroot.Bind{Source: "/c", Target: "/e", ReadOnly: true}}}}},
		{"--tmpfs /a --tmpfs /b:size=1k,mode=1700 x", flags{command: []string{"x"},
			tmpfs: []chroot.Tmpfs{{Path: "/a"}, {Path: "/b", Size: 1024, Mode: 0o700 | os.ModeSticky}}}},
		{"-v /a:/b:rw,noexec,suid,dev,bind,rslave,Z x", flags{command: []string{"x"}, volumes: []volume{{relabel: 'Z', Bind: chroot.Bind{Source: "/a", Target: "/b",
			NoExec: true, SUID: true, Dev: true, NonRecursive: true, Propagation: chroot.Slave}}}}},
		{"--mount type=bind,src=/a,dst=/b,ro,bind-propagation=shared --mount type=tmpfs,target=/c,tmpfs-size=1k,tmpfs-mode=700 x", flags{command: []string{"x"},
			volumes: []volume{{Bind: chroot.Bind{Source: "/a", Target: "/b", ReadOnly: true, Propagation: chroot.Shared}}},
			tmpfs:   []chroot.Tmpfs{{Path: "/c", Size: 1024, Mode: 0o700}}}},
		{"--tmpfs /a:noexec,nr_inodes=7,rw,nosuid,nodev x", flags{command: []string{"x"}, tmpfs: []chroot.Tmpfs{{Path: "/a", NoExec: true, Inodes: 7}}}},
		{"--device /dev/a --device /dev/a:/dev/b --device /dev/a:r --device /dev/a:/dev/c:wm x", flags{command: []string{"x"}, devices: []device{
			{Device: chroot.Device{Path: "/dev/a", Target: "/dev/a"}}, {Device: chroot.Device{Path: "/dev/a", Target: "/dev/b"}},
			{Device: chroot.Device{Path: "/dev/a", Target: "/dev/a"}, access: "r"}, {Device: chroot.Device{Path: "/dev/a", Target: "/dev/c"}, access: "wm"}}}},
		{"--shm-size 1m --privileged --stats --oom-kill-disable x", flags{shmSize: 1 << 20, privileged: true, stats: true, oomKillDisable: true, command: []string{"x"}}},
		{"--cap-add net_admin --cap-add=CAP_SYS_TIME --cap-drop all x", flags{capAdd: caps.NetAdmin | caps.SysTime, capDrop: caps.All, command: []string{"x"}}},
		{"--security-opt seccomp=/p --security-opt no-new-privileges --security-opt mask=/a:/b/ --security-opt unmask=/proc/*:ALL --security-opt systempaths=unconfined x",
			flags{command: []string{"x"}, security: security{seccomp: "/p", noNewPrivs: true, masked: []string{"/a", "/b"}, unmasked: []string{"/proc/*", "ALL", "ALL"}}}},
		{"--security-opt apparmor=a//&b --security-opt label=type:t_t --security-opt label=level:s0:c1,c2 --security-opt landlock=ro:/a,connect:none x", flags{command: []string{"x"},
			security: security{apparmor: "a//&b", label: label{typ: "t_t", level: "s0:c1,c2"}, landlock: []landlockRule{{"ro", "/a"}, {"connect", "none"}}}}},
		{"-m 64m --memory-swap -1 --memory-reservation 32m --cpus 1.5 --cpu-shares 512 --cpuset-cpus 0-1 --cpuset-mems 0 --pids-limit -1 --blkio-weight 1000 --cgroup-parent /p x", flags{command: []string{"x"},
			resources: resources{limited: true, memorySwap: cgroups.NoLimit, Limits: cgroups.Limits{Memory: 64 << 20, MemoryLow: 32 << 20, CPUs: 1.5, CPUShares: 512, CPUSet: "0-1",
				MemoryNodes: "0", PIDs: cgroups.NoLimit, IOWeight: 10000, Parent: "/p"}}}},
		{"--cpu-period 50000 --cpu-quota 25000 --device-read-bps /dev/a:1m --device-write-bps /dev/a:1k --device-read-iops /dev/b:3 --device-write-iops /dev/a:4 x", flags{command: []string{"x"},
			resources: resources{limited: true, Limits: cgroups.Limits{CPUPeriod: 50 * time.Millisecond, CPUQuota: 25 * time.Millisecond,
				IO: []cgroups.IO{{Device: "/dev/a", ReadBPS: 1 << 20, WriteBPS: 1 << 10, WriteIOPS: 4}, {Device: "/dev/b", ReadIOPS: 3}}}}}},
		{"--ulimit core=0 x", flags{limits: []caisson.Rlimit{{Resource: caisson.RlimitCore}}, command: []string{"x"}}},
		{"--group-add a --group-add 7 x", flags{groups: []string{"a", "7"}, command: []string{"x"}}},
	} {
		got, err := parse(strings.Fields(test.args))
		if err != nil || !reflect.DeepEqual(*got, test.want) {
			t.Errorf("%s: %+v, %v; want %+v", test.args, *got, err, test.want)
		}
	}
}

// TestUsage: each flag is in the usage text.
func TestUsage(t *testing.T) {
	new(flags).define().VisitAll(func(f *flag.Flag) {
		dashes := strings.Repeat("-", min(len(f.Name), 2))
		if !strings.Contains(usage, " "+dashes+f.Name) && f.Name != "net" { // docker run does not mention its --net either
			t.Errorf("no %s%s in the usage text", dashes, f.Name)
		}
	})
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "4096b": 4096, "64k": 64 << 10, "64K": 64 << 10, "2m": 2 << 20, "3GB": 3 << 30,
		"": 0, "k": 0, "-1": 0, "0": 0, "1x": 0, "1bk": 0, "1 k": 0, "50%": 0, "9223372036854775807": 1<<63 - 1, "9223372036854775807k": 0, "8589934592g": 0} {
		if got, err := parseSize(s); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
}

func TestParseEnvLine(t *testing.T) {
	for line, want := range map[string]string{"A=1\n": "A=1", "A=1\r\n": "A=1", " \tA= 1 ": "A= 1 ", "A": "A", "#A=1": "", "  # x": "", "\n": "", "A=#": "A=#", "A=\"x\"": "A=\"x\""} {
		if got, err := parseEnvLine(line); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{"=x", "A B=1", "A =1"} {
		if got, err := parseEnvLine(line); err == nil {
			t.Errorf("%q: %q", line, got)
		}
	}
}

// FuzzParse: no command line makes it panic, and what is behind "--" is the command.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"-it\x00x", "-v\x00/a:/b:ro", "--tmpfs=/x:size=1k", "--ulimit\x00nofile=1:2", "-e=", "--", "-", "--=",
		"--cap-add\x00ALL\x00--cap-drop=cap_x", "--security-opt=landlock=ro:/,bind:1,scope:signals", "--security-opt=label=level:s0:c1", "--security-opt\x00unmask=/[a:ALL",
		"--mount=type=bind,src=/a,\"dst=/b\"", "--device=/dev/a:/b:rw", "-m1.5g", "--cpus=1e3", "--cpu-quota=-1", "--device-read-bps=/dev/a:1:1m", "--device-cgroup-rule=c *:* r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "env-file") {
			return // reads files
		}
		args := strings.Split(s, "\x00")
		parse(args)
		got, err := parse(append([]string{"-i", "--"}, args...))
		if err != nil || !reflect.DeepEqual(got.command, args) {
			t.Errorf("%q: %q, %v", args, got.command, err)
		}
	})
}

// FuzzAccount: no passwd and group file makes it panic, and an id is never the one that means "none".
func FuzzAccount(f *testing.F) {
	f.Add("root:x:0:0::/root:/bin/sh\n", "wheel:x:10:root\n", "root:wheel")
	f.Add(":::::::\n", ":::\n", ":")
	f.Fuzz(func(t *testing.T, passwd, group, user string) {
		fl := flags{user: user, groups: []string{"wheel"}}
		a, err := fl.account(func(name string) (string, error) {
			return map[string]string{"etc/passwd": passwd, "etc/group": group}[name], nil
		})
		if err == nil && (a.uid == 1<<32-1 || a.gid == 1<<32-1 || a.home == "") {
			t.Errorf("%+v", a)
		}
	})
}
