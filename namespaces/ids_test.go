package namespaces

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

func one(inside, outside uint32) []Range { return []Range{{inside, outside, 1}} }

func TestRangeText(t *testing.T) {
	r, err := ParseRange("0:100000:65536")
	require.NoError(t, err)
	require.Equal(t, Range{0, 100000, 65536}, r)
	require.Equal(t, "0:100000:65536", r.String())
	for text, reason := range map[string]string{
		"": "not three numbers", "1:2": "not three numbers", "1:2:3:4": "not three numbers",
		"0x0:1:1": "not a number", "-1:1:1": "not a number", "+1:1:1": "not a number", " 1:1:1": "not a number", "1::1": "not a number",
		"4294967296:1:1": "not a number", "4294967295:1:1": "4294967295 is no id", "1:4294967295:1": "4294967295 is no id",
		"1:2:0": "its size is 0", "4294967294:0:2": "beyond the last id", "0:1:4294967295": "beyond the last id",
	} {
		_, err := ParseRange(text)
		var e *RangeError
		require.ErrorAs(t, err, &e, text)
		require.ErrorIs(t, err, unix.EINVAL)
		require.Contains(t, e.Error(), reason, text)
		require.Equal(t, text, e.Text)
	}
	for _, text := range []string{"4294967294:0:1", "0:0:4294967295"} {
		_, err := ParseRange(text)
		require.NoError(t, err)
	}
}

func TestParseMap(t *testing.T) {
	m, err := ParseMap("         0       1000          1\n         1     100000      65536\n")
	require.NoError(t, err)
	require.Equal(t, []Range{{0, 1000, 1}, {1, 100000, 65536}}, m)
	m, err = ParseMap(readFile(t, "/proc/self/uid_map"))
	require.NoError(t, err)
	require.NotEmpty(t, m)
	_, err = ParseMap("0 0 1\n0 0\n")
	require.ErrorContains(t, err, `"0 0"`)
}

func FuzzParseMap(f *testing.F) {
	for _, s := range []string{"0 0 4294967295\n", "0 1000 1\n1 100000 65536", "", "\n", "0 0 0", "-1 0 1", "0x0 0 1", "1 2 3 4", "4294967296 1 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMap(text)
		if err != nil {
			require.ErrorIs(t, err, unix.EINVAL)
			return
		}
		for _, r := range m {
			require.Empty(t, r.fault())
			again, err := ParseRange(r.String())
			require.NoError(t, err)
			require.Equal(t, r, again)
		}
		again, err := ParseMap(mapText(m))
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}

func many(n int, size uint32) (m []Range) {
	for i := range uint32(n) {
		m = append(m, Range{i * size, i * size, size})
	}
	return m
}

func TestWrongMaps(t *testing.T) {
	good := one(0, 0)
	for name, c := range map[string]struct {
		m    IDs
		want string
	}{
		"empty":           {IDs{}, "uid map: it is empty"},
		"no gids":         {IDs{UIDs: good}, "gid map: it is empty"},
		"no size":         {IDs{UIDs: []Range{{5, 6, 0}}, GIDs: good}, "uid map: range 5:6:0: its size is 0"},
		"zero range":      {IDs{UIDs: []Range{{}}, GIDs: good}, "uid map: range 0:0:0: its size is 0"},
		"inside overflow": {IDs{UIDs: []Range{{4294967290, 1, 6}}, GIDs: good}, "uid map: range 4294967290:1:6: it goes beyond"},
		"outside":         {IDs{UIDs: good, GIDs: []Range{{1, 4294967290, 6}}}, "gid map: range 1:4294967290:6: it goes beyond"},
		"no id":           {IDs{UIDs: one(4294967295, 0), GIDs: good}, "4294967295 is no id"},
		"no outside id":   {IDs{UIDs: one(0, 4294967295), GIDs: good}, "4294967295 is no id"},
		"same inside":     {IDs{UIDs: []Range{{0, 0, 10}, {9, 100, 1}}, GIDs: good}, "uid map: range 9:100:1: its inside ids are also those of 0:0:10"},
		"same outside":    {IDs{UIDs: good, GIDs: []Range{{0, 0, 10}, {20, 5, 1}}}, "gid map: range 20:5:1: its outside ids are also those of 0:0:10"},
		"too many":        {IDs{UIDs: many(341, 1), GIDs: good}, "it has 341 ranges, the kernel takes 340"},
		"policy":          {IDs{UIDs: good, GIDs: good, Setgroups: 9}, "setgroups(9) is no policy"},
	} {
		t.Run(name, func(t *testing.T) {
			err := plan.Build(c.m).Err()
			require.ErrorIs(t, err, unix.EINVAL)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "namespaces.IDs")
		})
	}
}

func TestLongMap(t *testing.T) {
	var e *RangeError
	err := plan.Build(IDs{UIDs: many(340, 10000000), GIDs: one(0, 0)}).Err()
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Reason, "bytes")
}

func TestInside(t *testing.T) {
	require.Equal(t, uint32(0), inside([]Range{{1, 1000, 1}, {0, 5, 1}}, 1000))
	require.Equal(t, uint32(105), inside([]Range{{5, 1, 2}, {100, 1000, 10}}, 1005))
	require.Equal(t, uint32(5), inside([]Range{{5, 1, 2}, {100, 1000, 10}}, 7))
}

func TestGoldenIDs(t *testing.T) {
	big := IDs{UIDs: []Range{{0, 100000, 65536}}, GIDs: []Range{{0, 100000, 65536}}}
	rootless := IDs{UIDs: []Range{{0, 1000, 1}, {1, 100000, 65536}}, GIDs: []Range{{0, 100, 1}, {1, 100000, 65536}}}
	deny := big
	deny.Setgroups = DenySetgroups
	golden(t, "ids-root", ids(big, rootCaller))
	golden(t, "ids-root-deny", ids(deny, rootCaller))
	golden(t, "ids-ordinary", ids(IDs{UIDs: one(7, 1000), GIDs: one(8, 100)}, ordinaryCaller))
	golden(t, "ids-helpers", ids(rootless, ordinaryCaller))
	golden(t, "ids-gid-only", ids(IDs{UIDs: one(0, 1000), GIDs: rootless.GIDs}, ordinaryCaller))
	inDenied := rootCaller
	inDenied.deniesSetgroups = true
	golden(t, "ids-denied-above", ids(big, inDenied))
}

func TestGoldenDefaultMap(t *testing.T) {
	if !asUser(t, nobody) || os.Geteuid() != nobody {
		return
	}
	p := plan.Build(User).String()
	require.Contains(t, p, `write /proc/PID/uid_map "0 65534 1"`)
	require.Contains(t, p, `write /proc/PID/gid_map "0 65534 1"`)
	require.Contains(t, p, `write /proc/PID/setgroups "deny"`)
	require.Equal(t, 1, strings.Count(plan.Build(User, User|PID).String(), "uid_map"))
	require.NotContains(t, plan.Build(User, KeepIDs()).String(), `"0 65534 1"`)
	require.NotContains(t, plan.Build(KeepIDs(), User).String(), `"0 65534 1"`)
}

func TestTwoMaps(t *testing.T) {
	var e *plan.ConflictError
	require.ErrorAs(t, plan.Build(MapRoot(), KeepIDs()).Err(), &e)
	require.Equal(t, plan.IDMap, e.What)
}

func TestSetgroupsCannotBeAllowed(t *testing.T) {
	m := IDs{UIDs: one(0, 1000), GIDs: one(0, 100), Setgroups: AllowSetgroups}
	err := plan.Build(ids(m, ordinaryCaller)).Err()
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorContains(t, err, "needs CAP_SETGID")
	require.NoError(t, plan.Build(ids(m, rootCaller)).Err())
	denied := rootCaller
	denied.deniesSetgroups = true
	require.ErrorIs(t, plan.Build(ids(m, denied)).Err(), unix.EPERM)
}

func TestNoHelper(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	c := ordinaryCaller
	c.findUID = func() (string, error) { return findHelper("newuidmap") }
	err := plan.Build(ids(IDs{UIDs: []Range{{0, 100000, 65536}}, GIDs: one(0, 100)}, c)).Err()
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "uidmap")
}

var bothWays = map[string]launch.Options{"vfork": {}, "fork": {NoVfork: true}}

func TestMapsOfRoot(t *testing.T) {
	asRoot(t)
	all := []Range{{0, 100000, 65536}}
	for name, c := range map[string]struct {
		m    IDs
		want string
	}{
		"root":        {MapRoot(), "0 0 \nallow\n0 0 1 0 0 1"},
		"deny":        {IDs{UIDs: one(0, 0), GIDs: one(0, 0), Setgroups: DenySetgroups}, "0 0 0,65534\ndeny\n0 0 1 0 0 1"},
		"keep":        {KeepIDs(), "0 0 \nallow\n0 0 1 0 0 1"},
		"to":          {MapTo(7, 8), "7 8 \nallow\n7 0 1 8 0 1"},
		"without own": {IDs{UIDs: all, GIDs: all}, "0 0 \nallow\n0 100000 65536 0 100000 65536"},
		"without 0":   {IDs{UIDs: []Range{{5, 100000, 10}}, GIDs: []Range{{6, 100000, 10}}}, "5 6 \nallow\n5 100000 10 6 100000 10"},
		"several":     {IDs{UIDs: []Range{{1, 100000, 10}, {0, 5, 1}}, GIDs: all}, "0 0 \nallow\n1 100000 10 0 5 1 0 100000 65536"},
	} {
		for way, opt := range bothWays {
			t.Run(name+" "+way, func(t *testing.T) {
				extra := []int{0, 2} // supplementary groups, which the child must not keep
				runWithGroups(t, extra, func() {
					out, err := startWith(t, opt, plan.Build(c.m), whoami)
					require.NoError(t, err)
					require.Equal(t, c.want, who(t, out))
				})
			})
		}
	}
}

// runWithGroups calls f while the process has these supplementary groups.
func runWithGroups(t *testing.T, groups []int, f func()) {
	t.Helper()
	before, err := unix.Getgroups()
	require.NoError(t, err)
	require.NoError(t, syscall.Setgroups(groups))
	defer func() { require.NoError(t, syscall.Setgroups(before)) }()
	f()
}

func TestManyRanges(t *testing.T) {
	asRoot(t)
	m := IDs{UIDs: many(340, 2), GIDs: one(0, 0)}
	for i := range m.UIDs { // not next to each other, which the kernel would leave as they are all the same
		m.UIDs[i].Outside *= 2
	}
	require.Less(t, len(mapText(m.UIDs)), os.Getpagesize())
	require.Equal(t, "340", says(t, "wc -l < /proc/self/uid_map", m))
}

func TestCapabilitiesOfMaps(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	eff := func(m IDs) string { return field(says(t, "cat /proc/self/status", m), "CapEff") }
	require.Regexp(t, "^[0-9a-f]*f$", eff(MapRoot()))
	require.Equal(t, "0000000000000000", eff(KeepIDs()))
}

func TestMapsOfOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	uid, gid := os.Geteuid(), os.Getegid()
	for way, opt := range bothWays {
		t.Run(way, func(t *testing.T) {
			out, err := startWith(t, opt, plan.Build(MapRoot()), whoami)
			require.NoError(t, err)
			require.Regexp(t, fmt.Sprintf(`^0 0 [0-9,]*\ndeny\n0 %d 1 0 %d 1$`, uid, gid), who(t, out))
			out, err = startWith(t, opt, plan.Build(KeepIDs()), "id -u; id -g")
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("%d\n%d", uid, gid), out)
			out, err = startWith(t, opt, plan.Build(MapTo(7, 8)), "id -u; id -g")
			require.NoError(t, err)
			require.Equal(t, "7\n8", out)
		})
	}
}

// A map that only privilege allows, and whose caller believes to have it, is the kernel's EPERM with a hint.
func TestForbiddenMap(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	c, err := currentCaller()
	require.NoError(t, err)
	c.setuid, c.setgid = true, true
	err = refused(t, ids(IDs{UIDs: one(0, 1), GIDs: one(0, 1)}, c))
	require.ErrorIs(t, err, unix.EPERM)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "write gid_map", e.Op)
	require.NotEmpty(t, e.Hint)
}

// Starts that change their user clear the dumpable flag of the memory that all starts share, and with it the way to
// /proc/PID/uid_map of the others.
func TestManyAtOnce(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range loops(10) {
				out, err := start(t, plan.Build(User), "id -u")
				if err != nil || out != "0" {
					t.Errorf("%q %v", out, err)
				}
			}
		})
	}
	wg.Wait()
}

// helpers skips where newuidmap is not there, and lets /etc/subuid and /etc/subgid grant ids to the test's user:
// in a mount namespace of the test's own.
func withGrants(t *testing.T, id uint32, grants string) bool {
	t.Helper()
	if os.Getenv("CAISSON_TEST_GRANTED") != "" {
		return true
	}
	asRoot(t)
	for _, name := range []string{"newuidmap", "newgidmap"} {
		hasCommand(t, name, "Debian's package uidmap")
	}
	dir := t.TempDir()
	passwd := fmt.Sprintf("%s\ncaisson:x:%d:%d::/:/bin/sh\n", readFile(t, "/etc/passwd"), id, id)
	require.NoError(t, os.WriteFile(dir+"/grants", []byte(grants), 0o644))
	require.NoError(t, os.WriteFile(dir+"/passwd", []byte(passwd), 0o644))
	require.NoError(t, Do(Mount, func() error {
		for etc, file := range map[string]string{"/etc/subuid": "grants", "/etc/subgid": "grants", "/etc/passwd": "passwd"} {
			if err := unix.Mount(dir+"/"+file, etc, "", unix.MS_BIND, ""); err != nil {
				return err
			}
		}
		asUser(t, id, "CAISSON_TEST_GRANTED=1")
		return nil
	}))
	return false
}

func TestHelpers(t *testing.T) {
	if !withGrants(t, 12345, "# test\nroot:1:2\ncaisson:200000:1000\n12345:300000:500\n") {
		return
	}
	m, err := SubordinateIDs("")
	require.NoError(t, err)
	want := []Range{{0, 12345, 1}, {1, 200000, 1000}, {1001, 300000, 500}}
	require.Equal(t, IDs{UIDs: want, GIDs: want}, m)
	require.Equal(t, "0 0 \nallow\n0 12345 1 1 200000 1000 1001 300000 500 0 12345 1 1 200000 1000 1001 300000 500", who(t, says(t, whoami, m)))

	m.Setgroups = DenySetgroups
	require.Contains(t, says(t, whoami, m), "\ndeny\n")

	m.Setgroups = AllowSetgroups
	m.UIDs[2].Size++
	err = refused(t, m)
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorContains(t, err, "newuidmap")

	root, err := SubordinateIDs("root")
	require.NoError(t, err)
	require.Equal(t, []Range{{0, 1, 2}}, root.UIDs)
	err = refused(t, root)
	require.ErrorIs(t, err, unix.EPERM)

	var wg sync.WaitGroup // the helper looks at who owns /proc/PID
	for range 4 {
		wg.Go(func() {
			for range loops(5) {
				m, err := SubordinateIDs("")
				if err != nil {
					t.Error(err)
				}
				m.UIDs[0].Inside, m.UIDs[1].Inside, m.UIDs[2].Inside = 5000, 1000, 0 // the child becomes a subordinate user
				out, err := start(t, plan.Build(m), "id -u")
				if err != nil || out != "0" {
					t.Errorf("%q %v", out, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestCancelledWrite(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, patiently(ctx, func() error { return unix.EACCES }), context.Canceled)
	n := 0
	require.ErrorIs(t, patiently(context.Background(), func() error { n++; return unix.EPERM }), unix.EPERM)
	require.Equal(t, 1, n)
	n = 0
	require.NoError(t, patiently(context.Background(), func() error {
		if n++; n < 3 {
			return unix.EACCES
		}
		return nil
	}))
}
