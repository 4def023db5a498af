package chroot_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// TestHostNodesStay: root inside owns the host's nodes where it is the host's root, and an owner needs no capability to change a mode. The devices work.
func TestHostNodesStay(t *testing.T) {
	asRoot(t)
	var before, after unix.Stat_t
	require.NoError(t, unix.Stat("/dev/full", &before))
	for name, parts := range map[string][]plan.Primitive{
		"nodes":               {chroot.Dev{}, plan.Func(withUser)},
		"device":              {chroot.Dev{Nodes: []string{"zero"}}, chroot.Device{Path: "/dev/full"}, plan.Func(withUser)},
		"device without user": {chroot.Dev{Nodes: []string{"zero"}}, chroot.Device{Path: "/dev/full"}},
	} {
		for _, c := range []plan.Primitive{caps.Drop(caps.All), caps.Drop(caps.SysAdmin)} {
			if os.Getenv("VMRUN") != "" && name == "device" { // emulated: half a second for each
				continue
			}
			out := run(t, "chmod 666 /dev/full; chown 0:0 /dev/full; touch -c /dev/full; head -c 1 /dev/full | od -An -tx1; head -c 1 /dev/zero > /dev/full",
				append([]plan.Primitive{chroot.Host{}, chroot.Proc{}, c}, parts...)...)
			require.Equal(t, 3, strings.Count(out, "Read-only file system"), "%s: %s", name, out)
			require.Contains(t, out, " 00\n", name)
			require.Contains(t, out, "No space left on device", name)
		}
	}
	require.NoError(t, unix.Stat("/dev/full", &after))
	before.Atim, after.Atim = unix.Timespec{}, unix.Timespec{}
	require.Equal(t, before, after)
}

// TestHostNodesOfOthers: who is nobody to the host could not change them anyhow.
func TestHostNodesOfOthers(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user; the user lane runs it")
	}
	out := run(t, "chmod 666 /dev/full; head -c 1 /dev/full | od -An -tx1", chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Device{Path: "/dev/null", Target: "/dev/x"})
	require.Contains(t, out, "Read-only file system")
	require.Contains(t, out, " 00\n")
}
