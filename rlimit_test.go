package caisson_test

import (
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
)

func TestParseRlimit(t *testing.T) {
	for text, want := range map[string]caisson.Rlimit{
		"nofile=1024":               {Resource: caisson.RlimitNofile, Soft: 1024, Hard: 1024},
		"nofile=1024:2048":          {Resource: caisson.RlimitNofile, Soft: 1024, Hard: 2048},
		"core=0":                    {Resource: caisson.RlimitCore},
		"core=-1":                   {Resource: caisson.RlimitCore, Soft: caisson.Unlimited, Hard: caisson.Unlimited},
		"stack=unlimited":           {Resource: caisson.RlimitStack, Soft: caisson.Unlimited, Hard: caisson.Unlimited},
		"cpu=5:-1":                  {Resource: caisson.RlimitCPU, Soft: 5, Hard: caisson.Unlimited},
		"as=9223372036854775807":    {Resource: caisson.RlimitAS, Soft: math.MaxInt64, Hard: math.MaxInt64},
		"rttime=1:2":                {Resource: caisson.RlimitRttime, Soft: 1, Hard: 2},
		"memlock=8388608:unlimited": {Resource: caisson.RlimitMemlock, Soft: 8 << 20, Hard: caisson.Unlimited},
	} {
		got, err := caisson.ParseRlimit(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "=", "nofile", "nofile=", "=1", "nofile=1:", "nofile=:1", "nofile=1:2:3", "nofile=2:1", "nofile=-1:5",
		"nofile=-2", "nofile=+1", "nofile=01", "nofile= 1", "nofile=1 ", "nofile=0x10", "nofile=1k", "NOFILE=1", "RLIMIT_NOFILE=1", "files=1",
		"as=9223372036854775808", "as=18446744073709551616", "nofile=1=2", "nofile=1\x00"} {
		got, err := caisson.ParseRlimit(text)
		require.ErrorIs(t, err, syscall.EINVAL, text)
		require.Zero(t, got, text)
	}
}

func TestResourceString(t *testing.T) {
	seen := map[string]bool{}
	for r := range caisson.RlimitRttime + 1 {
		l, err := caisson.ParseRlimit(r.String() + "=1")
		require.NoError(t, err)
		require.Equal(t, r, l.Resource)
		seen[r.String()] = true
	}
	require.Len(t, seen, 16)
	require.Equal(t, "resource 16", caisson.Resource(16).String())
	require.Equal(t, "resource -1", caisson.Resource(-1).String())
}

// FuzzParseRlimit: what is accepted is valid, and printed again it is the same.
func FuzzParseRlimit(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		l, err := caisson.ParseRlimit(text)
		if err != nil {
			require.ErrorIs(t, err, syscall.EINVAL)
			return
		}
		require.NoError(t, caisson.New(l).Err())
		again, err := caisson.ParseRlimit(fmt.Sprintf("%v=%s:%s", l.Resource, limit(l.Soft), limit(l.Hard)))
		require.NoError(t, err)
		require.Equal(t, l, again)
	})
}

func limit(n uint64) string {
	if n == caisson.Unlimited {
		return "-1"
	}
	return strconv.FormatUint(n, 10)
}

// limits gives a line of /proc/self/limits, with its fields.
func limits(t *testing.T, c *caisson.Cmd, name string) (soft, hard string) {
	t.Helper()
	out, err := c.Output()
	require.NoError(t, err)
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			f := strings.Fields(rest)
			return f[0], f[1]
		}
	}
	t.Fatalf("no limit %q in %s", name, out)
	return "", ""
}

type limitRow struct {
	resource caisson.Resource
	name     string
	soft     uint64
}

func limitRows() []limitRow {
	return []limitRow{
		{caisson.RlimitCore, "Max core file size", 0}, {caisson.RlimitCPU, "Max cpu time", 100}, {caisson.RlimitFSize, "Max file size", 4096},
		{caisson.RlimitNofile, "Max open files", 40}, {caisson.RlimitNproc, "Max processes", 50}, {caisson.RlimitStack, "Max stack size", 1 << 20},
		{caisson.RlimitMemlock, "Max locked memory", 4096}, {caisson.RlimitSigpending, "Max pending signals", 7},
		{caisson.RlimitMsgqueue, "Max msgqueue size", 100}, {caisson.RlimitData, "Max data size", 1 << 30}, {caisson.RlimitAS, "Max address space", 1<<32 - 4096},
		{caisson.RlimitRSS, "Max resident set", 1 << 20}, {caisson.RlimitLocks, "Max file locks", 9}, {caisson.RlimitRttime, "Max realtime timeout", 12345},
		{caisson.RlimitNice, "Max nice priority", 0}, {caisson.RlimitRtprio, "Max realtime priority", 0},
	}
}

func TestRlimit(t *testing.T) {
	for _, l := range limitRows() {
		t.Run(l.resource.String(), func(t *testing.T) {
			var before, after unix.Rlimit
			require.NoError(t, unix.Getrlimit(int(l.resource), &before))
			want := caisson.Rlimit{Resource: l.resource, Soft: l.soft, Hard: min(l.soft*2, before.Max)}
			soft, hard := limits(t, caisson.New(want).Command("/bin/cat", "/proc/self/limits"), l.name)
			require.Equal(t, fmt.Sprint(want.Soft, want.Hard), soft+" "+hard)
			require.NoError(t, unix.Getrlimit(int(l.resource), &after))
			require.Equal(t, before, after, "of the caller")
		})
	}
}

func TestRlimitRefused(t *testing.T) {
	if !asNobody(t) {
		return
	}
	// Core is limited first, so that there is something to raise.
	var now unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_CORE, &now))
	low := unix.Rlimit{Cur: 0, Max: min(now.Max, 1<<30)}
	require.NoError(t, syscall.Setrlimit(unix.RLIMIT_CORE, &syscall.Rlimit{Cur: low.Cur, Max: low.Max}))
	refuse(t, caisson.Rlimit{Resource: caisson.RlimitCore, Soft: 0, Hard: low.Max + 1}, fs.ErrPermission,
		"prlimit64(0, RLIMIT_CORE", "to raise a hard limit needs CAP_SYS_RESOURCE")
	needUserNamespace(t)
	err := caisson.New(userNamespace(), caisson.Rlimit{Resource: caisson.RlimitCore, Soft: 0, Hard: low.Max + 1}).Command("/bin/true").Run()
	require.ErrorIs(t, err, fs.ErrPermission)
	require.ErrorContains(t, err, "prlimit(<child>, RLIMIT_CORE")
	require.ErrorContains(t, err, "to raise a hard limit needs CAP_SYS_RESOURCE")
}

// TestRlimitRaised: root of the host may raise a limit also for a sandbox with a user namespace, where the child may not.
func TestRlimitRaised(t *testing.T) {
	needRoot(t)
	var now unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_MSGQUEUE, &now))
	if now.Max == caisson.Unlimited {
		t.Skip("RLIMIT_MSGQUEUE has no limit to raise")
	}
	l := caisson.Rlimit{Resource: caisson.RlimitMsgqueue, Soft: now.Cur, Hard: now.Max + 1}
	s := caisson.New(userNamespace(), l)
	require.Contains(t, strings.Join(golden(s), "\n"), "waited prlimit(<child>, RLIMIT_MSGQUEUE")
	c := s.Command("/bin/cat", "/proc/self/limits")
	if !mayRaise() {
		require.ErrorIs(t, c.Run(), fs.ErrPermission)
		return
	}
	_, hard := limits(t, c, "Max msgqueue size")
	require.Equal(t, strconv.FormatUint(now.Max+1, 10), hard)
}

// mayRaise reports whether we have CAP_SYS_RESOURCE.
func mayRaise() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// TestRlimitReplacesNofile: a limit of descriptors counts more than that with which the caller was started.
func TestRlimitReplacesNofile(t *testing.T) {
	out, err := caisson.New(caisson.Rlimit{Resource: caisson.RlimitNofile, Soft: 33, Hard: 44}).Command("sh", "-c", "ulimit -Sn; ulimit -Hn").Output()
	require.NoError(t, err)
	require.Equal(t, "33\n44\n", string(out))
}
