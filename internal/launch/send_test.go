package launch

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// takes makes the child open a directory in the phase and hand it over.
func takes(ph plan.Phase, path string, do func(*plan.Run, *os.File) error) plan.Primitive {
	return part(func(p *plan.Plan) {
		p.TakeAt(ph, plan.Call("openat", unix.SYS_OPENAT, plan.Number(^uint64(99), "AT_FDCWD"), plan.Str(path),
			plan.Number(unix.O_PATH|unix.O_CLOEXEC, "O_PATH")), do)
	})
}

// TestTakeAt: in every phase that allows it and in every way to clone the parent gets the very file, while the child waits.
func TestTakeAt(t *testing.T) {
	unchanged(t)
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			var names []string
			var parts []plan.Primitive
			for ph := plan.Users; ph < plan.Seccomp; ph++ {
				path := map[bool]string{true: "/", false: "/proc"}[ph%2 == 0]
				parts = append(parts, takes(ph, path, func(r *plan.Run, f *os.File) error {
					names = append(names, ph.String())
					defer f.Close()
					var got, want unix.Stat_t
					flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
					require.NoError(t, errors.Join(err, unix.Fstat(int(f.Fd()), &got), unix.Stat(path, &want), syscall.Kill(r.PID, 0)))
					require.Equal(t, unix.FD_CLOEXEC, flags)
					require.Equal(t, []uint64{want.Dev, want.Ino}, []uint64{got.Dev, got.Ino})
					return nil
				}))
			}
			parts = append(parts, dies(), served(func(*plan.Run) error { names = append(names, "while"); return nil }))
			require.NoError(t, run(opt, parts...))
			require.Equal(t, "while users sources root mounts names seal limits files bounds credentials capabilities directory labels landlock",
				strings.Join(names, " "))
		})
	}
}

// TestTakeAtAfterJoin: the second of two children hands it over, as a command in a running sandbox does.
func TestTakeAtAfterJoin(t *testing.T) {
	needRoot(t)
	unchanged(t)
	for name, opt := range ways {
		taken := 0
		require.NoError(t, run(opt, joinOwn("pid"), takes(plan.Mounts, "/", func(_ *plan.Run, f *os.File) error {
			taken++
			return f.Close()
		})), name)
		require.Equal(t, 1, taken, name)
	}
}

// TestTakeAtRefused: the parent's error is that of the step, and ends the start.
func TestTakeAtRefused(t *testing.T) {
	unchanged(t)
	no := errors.New("no")
	for name, opt := range ways {
		err := run(opt, takes(plan.Files, "/", func(_ *plan.Run, f *os.File) error { return errors.Join(f.Close(), no) }))
		var e *plan.Error
		require.ErrorAs(t, err, &e, name)
		require.ErrorIs(t, err, no, name)
		require.Equal(t, `openat(AT_FDCWD, "/", O_PATH) to the parent`, e.Call)
	}
	err := run(Options{}, takes(plan.Mounts, "/no/such", func(*plan.Run, *os.File) error { t.Error("called"); return nil }))
	require.ErrorIs(t, err, syscall.ENOENT)
}

// TestTakeAtCanceled: the child waits for the parent, and the context still ends it.
func TestTakeAtCanceled(t *testing.T) {
	unchanged(t)
	for name, opt := range ways {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		_, err := Start(ctx, plan.Build(takes(plan.Mounts, "/", func(r *plan.Run, f *os.File) error {
			<-r.Context.Done()
			for range 10000 { // the child is killed while it waits for this
				if b, _ := os.ReadFile("/proc/" + strconv.Itoa(r.PID) + "/stat"); strings.Contains(string(b), ") Z ") {
					break
				}
				time.Sleep(time.Millisecond)
			}
			return f.Close()
		})), trueCommand(), opt)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
	}
}

// TestTakeAtLimits: the number that the descriptor gets in between is not one of the command's, and not open in it.
func TestTakeAtLimits(t *testing.T) {
	unchanged(t)
	for name, opt := range ways {
		cmd := trueCommand()
		for len(cmd.Files) < 60 {
			cmd.Files = append(cmd.Files, os.Stderr)
		}
		cmd.Candidates, cmd.Args = []string{"/bin/sh"}, []string{"sh", "-c", `for f in /proc/$$/fd/*; do test ${f##*/} -lt 60 || exit 3; done`}
		p := plan.Build(takes(plan.Landlock, "/", func(_ *plan.Run, f *os.File) error { return f.Close() }))
		proc, err := Start(context.Background(), p, cmd, opt)
		require.NoError(t, err, name)
		ws, err := finish(proc)
		require.NoError(t, err, name)
		require.Zero(t, ws, name)
	}
}

// TestChildFailsFirst: what the child could not do is the error, and not what the parent could not do because the child had ended.
func TestChildFailsFirst(t *testing.T) {
	unchanged(t)
	for name, opt := range ways {
		err := run(opt, does(plan.Sources, plan.Call("close", unix.SYS_CLOSE, plan.Int(-1)).Early()), served(func(r *plan.Run) error {
			for range 10000 {
				if b, _ := os.ReadFile("/proc/" + strconv.Itoa(r.PID) + "/stat"); strings.Contains(string(b), ") Z ") {
					return errors.New("there is no child")
				}
				time.Sleep(time.Millisecond)
			}
			return nil
		}))
		require.ErrorIs(t, err, syscall.EBADF, name)
		require.NotContains(t, err.Error(), "there is no child", name)
	}
}
