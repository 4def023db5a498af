package cgroups_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/cgroups"
	"github.com/caisson-dev/caisson/plan"
)

// sleeper is a process that does nothing until it is killed.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func TestSetAndReadBack(t *testing.T) {
	g := create(t, cgroups.Limits{Memory: 64 * cgroups.MiB, PIDs: 50, CPUs: 1.5})
	l, err := g.Limits()
	require.NoError(t, err)
	require.EqualValues(t, 64*cgroups.MiB, l.Memory)
	require.EqualValues(t, 50, l.PIDs)
	require.Equal(t, 1.5, l.CPUs)
	require.Zero(t, l.CPUPeriod)
	require.NoError(t, g.Set(cgroups.Limits{Memory: 128 * cgroups.MiB, Swap: 64 * cgroups.MiB, MemoryLow: 16 * cgroups.MiB, CPUQuota: 20 * time.Millisecond,
		CPUPeriod: 50 * time.Millisecond, CPUShares: 2048, PIDs: cgroups.NoLimit}))
	l, err = g.Limits()
	require.NoError(t, err)
	require.EqualValues(t, 128*cgroups.MiB, l.Memory)
	require.EqualValues(t, 64*cgroups.MiB, l.Swap)
	require.EqualValues(t, 16*cgroups.MiB, l.MemoryLow)
	require.EqualValues(t, int64(cgroups.NoLimit), l.PIDs)
	require.Equal(t, 0.4, l.CPUs)
	require.Equal(t, 50*time.Millisecond, l.CPUPeriod)
	if l.CPUShares != 0 {
		require.EqualValues(t, 2048, l.CPUShares)
	} else {
		require.EqualValues(t, 174, l.CPUWeight)
	}
	require.NoError(t, g.Set(cgroups.Limits{Memory: 32 * cgroups.MiB, Swap: cgroups.None, CPUs: cgroups.NoLimit, CPUWeight: 200}))
	require.NoError(t, g.Set(cgroups.Limits{Memory: 256 * cgroups.MiB, Swap: cgroups.None}), "raising: the sum first")
	l, err = g.Limits()
	require.NoError(t, err)
	require.EqualValues(t, 256*cgroups.MiB, l.Memory)
	require.EqualValues(t, int64(cgroups.None), l.Swap)
	require.Equal(t, float64(cgroups.NoLimit), l.CPUs)
}

func TestCPUSet(t *testing.T) {
	g := create(t, cgroups.Limits{CPUSet: "0", MemoryNodes: "0"})
	l, err := g.Limits()
	require.NoError(t, err)
	require.Equal(t, "0", l.CPUSet)
	require.Equal(t, "0", l.MemoryNodes)
	out, _ := run(t, "grep Cpus_allowed_list /proc/self/status", cgroups.Limits{CPUSet: "0"})
	require.Equal(t, "Cpus_allowed_list:\t0\n", out)
}

// hog is a command that uses 200 MiB of memory.
const hog = "dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null"

// bomb makes processes without an end, each of which goes on doing so.
const bomb = `exec perl -e 'while (1) { fork; select(undef, undef, undef, 0.001) }'`

func needPerl(t *testing.T) {
	t.Helper()
	root(t)
	if _, err := exec.LookPath("perl"); err != nil {
		t.Skip("needs perl (perl-base)")
	}
}

func TestOutOfMemory(t *testing.T) {
	root(t)
	_, r := run(t, "exec "+hog, cgroups.Limits{Memory: 32 * cgroups.MiB, Swap: cgroups.None})
	require.Equal(t, plan.OutOfMemory, r.Reason, r.String())
	require.Equal(t, syscall.SIGKILL, r.Signal)
	require.Greater(t, r.MemoryPeak, int64(24*cgroups.MiB))
	require.LessOrEqual(t, r.MemoryPeak, int64(33*cgroups.MiB))
	t.Run("of another process inside", func(t *testing.T) {
		_, r := run(t, hog+"; exit 3", cgroups.Limits{Memory: 32 * cgroups.MiB, Swap: cgroups.None})
		require.Equal(t, plan.Exited, r.Reason)
		require.Contains(t, r.Detail, "killed for lack of memory: 1")
	})
	t.Run("killed by somebody else", func(t *testing.T) {
		_, r := run(t, "kill -9 $$", cgroups.Limits{Memory: 32 * cgroups.MiB})
		require.Equal(t, plan.Signaled, r.Reason)
		require.Empty(t, r.Detail)
	})
}

// TestOutOfMemoryBeforeExec: a limit that does not even suffice for execve leaves the host alive, and nothing behind.
func TestOutOfMemoryBeforeExec(t *testing.T) {
	root(t)
	s, err := begin(t, "true", cgroups.Limits{Memory: 4 * cgroups.KiB, Swap: cgroups.None, Name: "caisson-tiny"})
	if err == nil {
		_, r := s.end()
		require.NotEqual(t, 0, r.ExitCode)
	}
	own, err := cgroups.Own()
	require.NoError(t, err)
	defer own.Close()
	names, err := own.Subgroups()
	require.NoError(t, err)
	require.NotContains(t, names, "caisson-tiny")
}

func TestPIDs(t *testing.T) {
	needPerl(t)
	s, err := begin(t, bomb, cgroups.Limits{PIDs: 20, CPUs: 0.5})
	require.NoError(t, err)
	g := s.group()
	require.Len(t, grown(t, g, 20), 20)
	st, err := g.Stats()
	require.NoError(t, err)
	require.EqualValues(t, 20, st.PIDs.Current)
	require.EqualValues(t, 20, st.PIDs.Peak)
	require.Eventually(t, func() bool {
		st, err = g.Stats()
		require.NoError(t, err)
		return st.PIDs.Refused > 0
	}, 5*time.Second, 10*time.Millisecond)
	require.NoError(t, g.Kill())
	require.EqualValues(t, plan.Signaled, s.wait().Reason)
	s.r.Close()
}

// grown waits until so many processes are in the group.
func grown(t *testing.T, g *cgroups.Group, want int) (pids []int) {
	t.Helper()
	for range 2000 {
		var err error
		if pids, err = g.Procs(); len(pids) >= want {
			return pids
		}
		require.NoError(t, err)
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("only %d processes", len(pids))
	return nil
}

func TestKill(t *testing.T) {
	needPerl(t)
	s, err := begin(t, bomb, cgroups.Limits{PIDs: 300, CPUs: 0.5})
	require.NoError(t, err)
	g := s.group()
	grown(t, g, 50)
	require.NoError(t, g.Kill())
	s.r.Close()
	require.Equal(t, syscall.SIGKILL, s.wait().Signal)
	_, err = g.Procs()
	require.Error(t, err, "the group is gone")
	require.True(t, errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENODEV), err)
}

func TestFreeze(t *testing.T) {
	root(t)
	s, err := begin(t, `while :; do echo x; sleep 0.002; done`, cgroups.Limits{})
	require.NoError(t, err)
	g := s.group()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	require.NoError(t, g.Freeze(ctx))
	b, fd := make([]byte, 1<<16), int(s.r.Fd())
	require.NoError(t, syscall.SetNonblock(fd, true))
	for n := 1; n > 0; {
		n, _ = syscall.Read(fd, b)
	}
	frozen, err := g.Frozen()
	require.NoError(t, err)
	require.True(t, frozen)
	time.Sleep(100 * time.Millisecond)
	n, err := syscall.Read(fd, b)
	require.Equal(t, syscall.EAGAIN, err, "%d bytes while frozen", n)
	require.NoError(t, g.Thaw())
	time.Sleep(200 * time.Millisecond)
	n, err = syscall.Read(fd, b)
	require.NoError(t, err)
	require.Positive(t, n)
	require.NoError(t, g.Freeze(ctx))
	require.NoError(t, g.Kill(), "what is frozen can be killed")
	s.r.Close()
	require.Equal(t, syscall.SIGKILL, s.wait().Signal)
}

func TestThrottle(t *testing.T) {
	root(t)
	s, err := begin(t, "while :; do :; done", cgroups.Limits{CPUs: 0.2, CPUPeriod: 20 * time.Millisecond})
	require.NoError(t, err)
	g := s.group()
	time.Sleep(100 * time.Millisecond)
	least, most, periods := share(t, g)
	for range 2 { // a machine that stands still for a moment lends the group what it then has to pay back
		if least <= 0.22 && (most >= 0.18 || load(t) >= 1.5) {
			break
		}
		least, most, periods = share(t, g)
	}
	require.NoError(t, g.Kill())
	s.r.Close()
	s.wait()
	t.Logf("%.3f to %.3f of a processor, want 0.2", least, most)
	require.LessOrEqual(t, least, 0.22)
	require.Positive(t, periods)
	if most < 0.18 && load(t) < 1.5 {
		t.Errorf("throttled to %.3f of a processor", most)
	}
}

// share measures how much of a processor the group has, and in how many periods it was held back. To read the statistics takes time on a busy machine.
func share(t *testing.T, g *cgroups.Group) (least, most float64, periods int64) {
	t.Helper()
	before := time.Now()
	a, err := g.Stats()
	require.NoError(t, err)
	begin := time.Now()
	time.Sleep(800 * time.Millisecond)
	end := time.Now()
	b, err := g.Stats()
	require.NoError(t, err)
	used := float64(b.CPU.Usage - a.CPU.Usage)
	return used / float64(time.Since(before)), used / float64(end.Sub(begin)), b.CPU.Throttled - a.CPU.Throttled
}

// load is how many tasks want to run: on a busy machine nothing gets its whole share.
func load(t *testing.T) float64 {
	b, err := os.ReadFile("/proc/loadavg")
	require.NoError(t, err)
	f, err := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
	require.NoError(t, err)
	return f
}

func TestDevices(t *testing.T) {
	root(t)
	const script = `for d in null zero full urandom; do echo x >/dev/$d && echo write $d; head -c 1 /dev/$d >/dev/null && echo read $d; done 2>/dev/null; true`
	out, _ := run(t, script, cgroups.Limits{Devices: []cgroups.Device{{Kind: 'c', Major: 1, Minor: 3, Access: "rw"}, {Kind: 'c', Major: 1, Minor: 5, Access: "r"}}})
	require.Equal(t, "write null\nread null\nread zero\n", out)
	out, _ = run(t, script, cgroups.Limits{Devices: cgroups.DockerDevices()})
	require.Equal(t, "write null\nread null\nwrite zero\nread zero\nread full\nwrite urandom\nread urandom\n", out)
	out, _ = run(t, "echo x >/dev/null || echo refused", cgroups.Limits{Devices: []cgroups.Device{}})
	require.Contains(t, out, "refused")

	g := create(t, cgroups.Limits{Devices: []cgroups.Device{{Kind: 'c', Major: 1, Minor: 3, Access: "rw"}}})
	require.NoError(t, g.Set(cgroups.Limits{Devices: []cgroups.Device{{Kind: 'c', Major: 1, Minor: 7, Access: "rw"}, {Kind: 'a', Major: 1, Minor: 5, Access: "rwm"}}}))
	cmd := exec.Command("sh", "-c", "read x; for d in null full zero; do (: </dev/$d) && echo $d; done")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	var text strings.Builder
	cmd.Stdout = &text
	require.NoError(t, cmd.Start())
	require.NoError(t, g.Add(cmd.Process.Pid))
	fmt.Fprintln(in)
	cmd.Wait()
	require.Equal(t, "full\nzero\n", text.String(), "the new rules have replaced the old ones")
}

func TestIO(t *testing.T) {
	root(t)
	dev := loop(t)
	const rate = 2 * cgroups.MiB
	s, err := begin(t, fmt.Sprintf("dd if=%s of=/dev/null bs=64k count=24 iflag=direct 2>/dev/null", dev),
		cgroups.Limits{IO: []cgroups.IO{{Device: dev, ReadBPS: rate}}})
	require.NoError(t, err)
	g := s.group()
	l, err := g.Limits()
	require.NoError(t, err)
	require.EqualValues(t, rate, l.IO[0].ReadBPS)
	begin := time.Now()
	_, r := s.end()
	took := time.Since(begin)
	require.Zero(t, r.ExitCode)
	t.Logf("1.5 MiB in %v at 2 MiB/s; %d bytes counted", took, r.IORead)
	require.Greater(t, took, 600*time.Millisecond)
	require.Less(t, took, 3*time.Second, "far more than the throttle")
	require.GreaterOrEqual(t, r.IORead, int64(24*64*cgroups.KiB))
	require.Less(t, r.IORead, int64(8*cgroups.MiB), "and no more than the programs themselves, if they have to be read from a disk")
}

// loop makes a block device of a file.
func loop(t *testing.T) string {
	t.Helper()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) && exec.Command("modprobe", "loop").Run() == nil {
		ctl, err = os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	}
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the kernel has no loop devices")
	}
	require.NoError(t, err)
	defer ctl.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(4<<20))
	for range 10 {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		require.NoError(t, err)
		dev := fmt.Sprintf("/dev/loop%d", n)
		if _, err := os.Stat(dev); err != nil {
			require.NoError(t, unix.Mknod(dev, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))))
			t.Cleanup(func() { os.Remove(dev) })
		}
		d, err := os.OpenFile(dev, os.O_RDWR, 0)
		require.NoError(t, err)
		err = unix.IoctlSetInt(int(d.Fd()), unix.LOOP_SET_FD, int(f.Fd()))
		if err == unix.EBUSY {
			d.Close()
			continue
		}
		require.NoError(t, err)
		t.Cleanup(func() { unix.IoctlSetInt(int(d.Fd()), unix.LOOP_CLR_FD, 0); d.Close() })
		return dev
	}
	t.Fatal("no free loop device")
	return ""
}
