package namespaces

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

func TestGoldenNames(t *testing.T) {
	golden(t, "names", Hostname("web"), Domainname("example"))
}

func TestWrongNames(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("x", 65), "a\x00b"} {
		require.ErrorIs(t, plan.Build(Hostname(name)).Err(), unix.EINVAL, name)
		require.ErrorIs(t, plan.Build(Domainname(name)).Err(), unix.EINVAL, name)
	}
	var e *plan.ConflictError
	require.ErrorAs(t, plan.Build(Hostname("a"), Hostname("b")).Err(), &e)
	require.ErrorAs(t, plan.Build(Hostname("a"), Sysctl{"kernel.hostname", "b"}).Err(), &e)
	require.Equal(t, plan.Hostname, e.What)
}

func TestNames(t *testing.T) {
	asRoot(t)
	host, domain := readFile(t, "/proc/sys/kernel/hostname"), readFile(t, "/proc/sys/kernel/domainname")
	longest := strings.Repeat("n", 64)
	show := "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname"
	require.Equal(t, longest+"\n"+domain, says(t, show, Hostname(longest)))
	require.Equal(t, host+"\nnis.example", says(t, show, Domainname("nis.example")))
	require.Equal(t, "a\n(none)", says(t, show, User, Hostname("a"), Domainname("(none)")))
	require.Equal(t, "a\nb", says(t, show, Sysctl{"kernel.hostname", "a"}, Sysctl{"kernel/domainname", "b"}))
	require.Equal(t, host, readFile(t, "/proc/sys/kernel/hostname"))
	require.Equal(t, domain, readFile(t, "/proc/sys/kernel/domainname"))
}

func TestNameOfOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	require.Equal(t, "inside", says(t, "uname -n", User, Hostname("inside")))
	require.ErrorIs(t, refused(t, Hostname("inside")), unix.EPERM)
}

// A name goes to the joined uts namespace, and to no new one.
func TestNameOfJoined(t *testing.T) {
	asRoot(t)
	pid, pidfd := sleeper(t, Hostname("first"))
	require.Equal(t, "first", says(t, "uname -n", Join{PIDFD: pidfd, Kinds: UTS}))
	require.Equal(t, link(t, pid, UTS), says(t, "readlink /proc/self/ns/uts", Hostname("second"), Join{PIDFD: pidfd, Kinds: UTS}))
	require.Equal(t, "second", says(t, "uname -n", Join{PIDFD: pidfd, Kinds: UTS}))
	// Joining the caller's own and naming it would rename the host.
	err := plan.Build(Join{PID: os.Getpid(), Kinds: UTS}, Hostname("third")).Err()
	require.ErrorIs(t, err, unix.EINVAL)
	require.ErrorContains(t, err, "the caller's own")
}

func TestOffsetText(t *testing.T) {
	for _, c := range []struct {
		o    TimeOffsets
		want string
	}{
		{TimeOffsets{Monotonic: time.Hour}, "monotonic 3600 0\nboottime 0 0\n"},
		{TimeOffsets{Boottime: -1500 * time.Millisecond}, "monotonic 0 0\nboottime -2 500000000\n"},
		{TimeOffsets{Monotonic: -1, Boottime: 1}, "monotonic -1 999999999\nboottime 0 1\n"},
		{TimeOffsets{Monotonic: -time.Second, Boottime: 1<<63 - 1}, "monotonic -1 0\nboottime 9223372036 854775807\n"},
		{TimeOffsets{Monotonic: -1 << 63}, "monotonic -9223372037 145224192\nboottime 0 0\n"},
	} {
		require.Equal(t, c.want, c.o.text())
	}
}

func TestGoldenTime(t *testing.T) {
	golden(t, "time-offsets", Time, TimeOffsets{Monotonic: 24 * time.Hour, Boottime: -time.Millisecond})
	golden(t, "time-zero", TimeOffsets{})
	golden(t, "time-user", ids(IDs{UIDs: one(0, 0), GIDs: one(0, 0)}, rootCaller), TimeOffsets{Monotonic: 1})
	var e *plan.ConflictError
	require.ErrorAs(t, plan.Build(TimeOffsets{}, TimeOffsets{}).Err(), &e)
	// A further command in the sandbox does not set the clocks again.
	p := plan.Build(TimeOffsets{Monotonic: 1})
	require.NotContains(t, p.Again().String(), "time")
}

const clocks = "cat /proc/self/timens_offsets /proc/uptime; readlink /proc/self/ns/time"

// uptime reads the first number of /proc/uptime, in seconds.
func uptime(t *testing.T, text string) float64 {
	t.Helper()
	first, _, _ := strings.Cut(text, " ")
	s, err := strconv.ParseFloat(first, 64)
	require.NoError(t, err)
	return s
}

func TestTimeOffsets(t *testing.T) {
	asRoot(t)
	hasNamespace(t, Time)
	year := 365 * 24 * time.Hour
	for name, part := range map[string]plan.Primitive{
		"alone":           plan.Func(func(*plan.Plan) error { return nil }),
		"user":            User,
		"subordinate map": IDs{UIDs: []Range{{0, 100000, 10}}, GIDs: []Range{{0, 100000, 10}}},
		"pid":             PID | Mount,
	} {
		t.Run(name, func(t *testing.T) {
			for way, opt := range bothWays {
				out, err := startWith(t, opt, plan.Build(part, TimeOffsets{Monotonic: -time.Nanosecond, Boottime: year}), clocks)
				require.NoError(t, err, way)
				require.Regexp(t, `^monotonic +-1 +999999999\nboottime +31536000 +0\n`, out)
				require.InDelta(t, year.Seconds(), uptime(t, strings.Split(out, "\n")[2])-uptime(t, readFile(t, "/proc/uptime")), 60, way)
				require.NotContains(t, out, link(t, 0, Time), way)
			}
		})
	}
}

func TestTimeOfOrdinaryUser(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	hasUserNamespaces(t)
	hasNamespace(t, Time)
	out := says(t, "cat /proc/uptime", User, TimeOffsets{Boottime: 365 * 24 * time.Hour})
	require.Greater(t, uptime(t, out), uptime(t, readFile(t, "/proc/uptime"))+364*24*3600)
	require.NotContains(t, says(t, clocks, User|Time), link(t, 0, Time))
	require.ErrorIs(t, refused(t, TimeOffsets{Boottime: time.Hour}), unix.EPERM)
}

func TestImpossibleClock(t *testing.T) {
	asRoot(t)
	hasNamespace(t, Time)
	err := refused(t, TimeOffsets{Boottime: -100 * 365 * 24 * time.Hour})
	require.ErrorIs(t, err, unix.ERANGE)
	require.ErrorContains(t, err, "below zero")
}
