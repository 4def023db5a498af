package namespaces

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

func TestContract(t *testing.T) {
	here, err := Of(0, Net|UTS)
	require.NoError(t, err)
	defer here.Close()
	for _, part := range []plan.Primitive{
		All, Set(0), Set(1), MapRoot(), KeepIDs(), MapTo(7, 8), IDs{}, Hostname("a"), Hostname(""), Domainname("b"),
		TimeOffsets{}, TimeOffsets{Monotonic: time.Hour}, Join{}, Join{PID: os.Getpid()}, Join{Path: "/run/netns/x", Kinds: Net},
		Join{Path: "/run/ns/user", Kinds: User}, Join{File: here[0].File()}, here[0], here,
		Sysctl{"net.ipv4.ip_forward", "1"}, Sysctl{"kernel.hostname", "x"}, MaxUserNamespaces(0), MaxUserNamespaces(-1),
	} {
		plantest.Check(t, part)
	}
	plantest.Check(t, Sysctl{"net.ipv4.ip_forward", "1"}, Net)
	plantest.Check(t, MaxUserNamespaces(3), User|PID, KeepIDs())
	plantest.Check(t, Hostname("a"), Join{Path: "/run/ns/uts", Kinds: UTS})
	_, pidfd := sleeper(t)
	plantest.Check(t, Join{PIDFD: pidfd, Kinds: UTS})
}
