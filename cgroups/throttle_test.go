package cgroups_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/cgroups"
)

// disk makes a block device of a file: a loop device, which is throttled as any other one.
func disk(t *testing.T, size int64) string {
	t.Helper()
	exec.Command("modprobe", "loop").Run() // where it is a module
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		require.Empty(t, os.Getenv("VMRUN"), "the machine of the kernel lane has loop devices: %v", err)
		t.Skipf("needs a loop device: %v", err)
	}
	defer control.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(size))
	for range 10 { // another one may take the free one before us
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		require.NoError(t, err)
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			require.Empty(t, os.Getenv("VMRUN"))
			t.Skipf("needs a loop device: %v", err)
		}
		if unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(f.Fd())) == nil {
			t.Cleanup(func() {
				require.NoError(t, unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0))
				loop.Close()
			})
			return loop.Name()
		}
		loop.Close()
	}
	t.Fatal("no free loop device")
	return ""
}

// TestThrottledIO: what is read and written takes as long as the limits say, to a fifth.
func TestThrottledIO(t *testing.T) {
	parent := create(t, cgroups.Limits{IO: []cgroups.IO{}})
	const size, seconds = 8 * cgroups.MiB, 2
	dev := disk(t, size)
	var all sync.WaitGroup
	for name, c := range map[string]struct {
		limit cgroups.IO
		dd    string
	}{
		"read bytes":  {cgroups.IO{ReadBPS: size / seconds}, "iflag=direct of=/dev/null bs=64k count=128 if="},
		"write bytes": {cgroups.IO{WriteBPS: size / seconds}, "oflag=direct if=/dev/zero bs=64k count=128 of="},
		"reads":       {cgroups.IO{ReadIOPS: 100}, "iflag=direct of=/dev/null bs=4k count=200 if="},
		"writes":      {cgroups.IO{WriteIOPS: 100}, "oflag=direct if=/dev/zero bs=4k count=200 of="},
	} {
		c.limit.Device = dev
		g, err := parent.Create(name, cgroups.Limits{IO: []cgroups.IO{c.limit}})
		require.NoError(t, err)
		defer g.Close()
		all.Go(func() {
			within := func(took float64) bool { return took >= seconds*0.8 && took <= seconds*1.2 }
			took, out, err := dd(g, c.dd+dev)
			for range 2 { // an overloaded machine may be the reason
				if err == nil && !within(took) {
					took, out, err = dd(g, c.dd+dev)
				}
			}
			if err != nil || !within(took) {
				t.Errorf("%s: %v, %v s and not %d: %s", name, err, took, seconds, out)
			}
			t.Logf("%s: %v s", name, took)
			s, err := g.Stats()
			const loop = 7 // its major number
			if !slices.ContainsFunc(s.IO, func(io cgroups.IOStats) bool { return io.Major == loop && io.ReadBytes+io.WrittenBytes >= 200*4096 }) {
				t.Errorf("%s: %+v, %v", name, s.IO, err)
			}
		})
	}
	all.Wait()
}

// dd copies in the group, and gives the seconds that it took.
func dd(g *cgroups.Group, args string) (took float64, out string, err error) {
	cmd := shell("read x; LC_ALL=C exec dd " + args)
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, "", err
	}
	var b bytes.Buffer
	cmd.Stderr = &b
	if err := cmd.Start(); err != nil {
		return 0, "", err
	}
	added := g.Add(cmd.Process.Pid)
	fmt.Fprintln(in)
	err = errors.Join(added, cmd.Wait())
	return copied(b.String()), b.String(), err
}

// copied gives the seconds that dd has needed, without its start: "8388608 bytes (8.4 MB, 8.0 MiB) copied, 2.00212 s, 4.2 MB/s".
func copied(report string) (seconds float64) {
	_, after, _ := strings.Cut(report, "copied, ")
	fmt.Sscanf(after, "%g s", &seconds)
	return seconds
}
