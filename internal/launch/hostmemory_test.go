package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// TestOOMScore: oom_score_adj, which the child sets while it shares our memory, does not become ours.
func TestOOMScore(t *testing.T) {
	before := read(t, "/proc/self/oom_score_adj")
	p := plan.Build(part(func(p *plan.Plan) {
		fd := p.Slot()
		p.Child(plan.Limits,
			plan.Call("openat", unix.SYS_OPENAT, plan.Int(-100), plan.Str("/proc/self/oom_score_adj"), plan.Int(unix.O_WRONLY)).Save(fd),
			plan.Call("write", unix.SYS_WRITE, plan.Saved(fd), plan.Str("777"), plan.Int(3)),
			sleep(20*time.Millisecond))
	}))
	for name, opt := range ways {
		require.Equal(t, "777\n", output(t, opt, p, "cat /proc/self/oom_score_adj"), name)
		require.Equal(t, before, read(t, "/proc/self/oom_score_adj"), name)
	}
}

func read(t *testing.T, name string) string {
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(b)
}

// TestLittleMemory: a child that may have no more than 4 KiB fails alone.
func TestLittleMemory(t *testing.T) {
	needRoot(t)
	dir, file, err := memoryCgroup()
	if err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrNotExist) {
			t.Skip("no memory controller that can be written to: ", err)
		}
		require.NoError(t, err)
	}
	t.Cleanup(func() { removeCgroup(t, dir) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte("4096"), 0))
	help(t, "4 KiB", "CAISSON_CGROUP="+dir)
}

// memoryCgroup makes a control group with a memory controller, of version 1 or 2.
func memoryCgroup() (dir, limit string, err error) {
	name := "caisson-launch-" + strconv.Itoa(os.Getpid())
	if _, err := os.Stat("/sys/fs/cgroup/memory/tasks"); err == nil {
		dir = filepath.Join("/sys/fs/cgroup/memory", name)
		return dir, "memory.limit_in_bytes", os.Mkdir(dir, 0o755)
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0); err != nil {
		return "", "", err
	}
	dir = filepath.Join("/sys/fs/cgroup", name)
	return dir, "memory.max", os.Mkdir(dir, 0o755)
}

func removeCgroup(t *testing.T, dir string) {
	var err error
	for range 200 {
		if err = os.Remove(dir); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	require.NoError(t, err)
}

// littleMemory starts in the control group. Whether the kernel refuses memory to the child or kills it, this process goes on.
func littleMemory() error {
	dir := os.Getenv("CAISSON_CGROUP")
	ballast := make([]byte, 32<<20)
	for i := range ballast {
		ballast[i] = byte(i)
	}
	for name, opt := range ways {
		failed := 0
		for range 5 {
			proc, err := Start(context.Background(), plan.Build(enter(dir)), trueCommand(), opt)
			if err != nil {
				failed++
				continue
			}
			ws, err := finish(proc)
			if err != nil {
				return err
			}
			if ws != 0 {
				failed++
			}
		}
		if failed == 0 {
			return fmt.Errorf("%s: the limit had no effect", name)
		}
	}
	for i := range ballast {
		if ballast[i] != byte(i) {
			return fmt.Errorf("byte %d has changed", i)
		}
	}
	runtime.GC()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err == nil && strings.Contains(string(own), filepath.Base(dir)) {
		return errors.New("this process is in the control group")
	}
	return err
}

// enter makes the child enter the control group before all else.
func enter(dir string) plan.Primitive {
	if strings.HasPrefix(dir, "/sys/fs/cgroup/memory/") {
		return part(func(p *plan.Plan) {
			fd := p.Slot()
			p.Child(plan.Cgroup,
				plan.Call("openat", unix.SYS_OPENAT, plan.Int(-100), plan.Str(dir+"/tasks"), plan.Int(unix.O_WRONLY|unix.O_CLOEXEC)).Save(fd),
				plan.Call("write", unix.SYS_WRITE, plan.Saved(fd), plan.Str("0"), plan.Int(1)))
		})
	}
	return part(func(p *plan.Plan) {
		p.IntoCgroup(p.Open("cgroup as cgroup", func(*plan.Run) (*os.File, error) { return os.Open(dir) }))
	})
}
