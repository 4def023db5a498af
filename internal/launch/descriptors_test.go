package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// TestDescriptors: what the host has open, close-on-exec or not, is not open in the command.
func TestDescriptors(t *testing.T) { help(t, "many descriptors") }

func manyDescriptors() error {
	for range 500 {
		if _, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0); err != nil {
			return err
		}
	}
	var over atomic.Bool
	var wg sync.WaitGroup
	for range 2 { // and more come and go meanwhile
		wg.Add(1)
		go func() {
			defer wg.Done()
			for !over.Load() {
				var p [2]int
				fd, _ := unix.Open("/etc/passwd", unix.O_RDONLY, 0)
				unix.Pipe(p[:])
				high, _ := unix.FcntlInt(uintptr(fd), unix.F_DUPFD, 2000)
				for _, fd := range []int{fd, p[0], p[1], high} {
					unix.Close(fd)
				}
			}
		}()
	}
	err := descriptorsInside()
	over.Store(true)
	wg.Wait()
	return err
}

func descriptorsInside() error {
	granted, err := os.Open("/etc/passwd")
	if err != nil {
		return err
	}
	low, err := os.Open("/")
	if err != nil {
		return err
	}
	leaky := part(func(p *plan.Plan) { // a file of the plan that lacks close-on-exec and is needed to the end
		f := p.Open("dir as dir", func(*plan.Run) (*os.File, error) {
			fd, err := unix.FcntlInt(low.Fd(), unix.F_DUPFD, 1000)
			return os.NewFile(uintptr(fd), "dir"), err
		})
		p.Child(plan.Landlock, plan.Call("fcntl", unix.SYS_FCNTL, plan.FD(f), plan.Int(unix.F_GETFD)))
		s := p.Slot()
		p.Child(plan.Sources, plan.Call("dup", unix.SYS_DUP, plan.FD(f)).Save(s))
	})
	for name, opt := range ways {
		for range loops(20) {
			for _, parts := range [][]plan.Primitive{nil, {leaky}, {dies(), served(func(*plan.Run) error { return nil })}, {joinOwnIfRoot()}} {
				got, err := listInside(opt, []*os.File{os.Stdin, nil, os.Stderr, nil, granted, nil, granted}, parts)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if want := []string{"0", "1", "2", "4 /etc/passwd", "6 /etc/passwd"}; !slices.Equal(want, got) {
					return fmt.Errorf("%s: %v", name, got)
				}
			}
		}
	}
	return nil
}

func joinOwnIfRoot() plan.Primitive {
	if os.Geteuid() != 0 {
		return part(func(*plan.Plan) {})
	}
	return joinOwn("pid")
}

// listInside gives what a command has open. Descriptor 1 is a pipe.
func listInside(opt Options, files []*os.File, parts []plan.Primitive) ([]string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	files[1] = w
	proc, err := Start(context.Background(), plan.Build(parts...), &plan.Command{Candidates: []string{"/bin/ls"},
		Args: []string{"ls", "-l", "/proc/self/fd"}, Env: []string{"LC_ALL=C"}, Files: files}, opt)
	w.Close()
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(r)
	if _, e := finish(proc); e != nil {
		return nil, e
	}
	var list []string
	for _, line := range strings.Split(string(out), "\n") {
		left, target, ok := strings.Cut(line, " -> ")
		if !ok || strings.HasPrefix(target, "/proc/") {
			continue
		}
		fd := left[strings.LastIndex(left, " ")+1:]
		if len(fd) > 1 || fd > "2" {
			fd += " " + target
		}
		list = append(list, fd)
	}
	return list, err
}

// TestClosedFile: a file that has been closed is an error, and not some other file.
func TestClosedFile(t *testing.T) {
	f, err := os.Open("/")
	require.NoError(t, err)
	f.Close()
	for name, opt := range ways {
		cmd := trueCommand()
		cmd.Files = append(cmd.Files, f)
		_, err := Start(context.Background(), plan.Build(), cmd, opt)
		var e *plan.Error
		require.True(t, errors.As(err, &e), name)
		require.ErrorIs(t, err, unix.EBADF)
		require.Contains(t, e.Call, "file 3")
	}
}

// TestShuffledFiles: files that stand in each other's places.
func TestShuffledFiles(t *testing.T) {
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			var files []*os.File
			for i := range 6 {
				f, err := os.CreateTemp(t.TempDir(), "f")
				require.NoError(t, err)
				defer f.Close()
				_, err = fmt.Fprintf(f, "%d\n", i)
				require.NoError(t, err)
				files = append(files, f)
			}
			list := []*os.File{os.Stdin, nil, os.Stderr}
			for i := range 40 {
				list = append(list, files[(i*5+3)%6])
			}
			r, w, err := os.Pipe()
			require.NoError(t, err)
			defer r.Close()
			list[1] = w
			cmd := command(nil, "for i in 3 4 5 6 7 8 9; do readlink /proc/self/fd/$i; done")
			cmd.Files = list
			proc, err := Start(context.Background(), plan.Build(), cmd, opt)
			w.Close()
			require.NoError(t, err)
			out, err := io.ReadAll(r)
			require.NoError(t, err)
			_, err = finish(proc)
			require.NoError(t, err)
			var want []string
			for i := range 7 {
				want = append(want, files[(i*5+3)%6].Name())
			}
			require.Equal(t, want, strings.Fields(string(out)))
		})
	}
}

// TestSoftLimit: the command has the limit of descriptors with which the host was started, and not what the runtime made of it.
func TestSoftLimit(t *testing.T) {
	c := helper(t, "soft limit")
	c.Path, c.Args = "/bin/sh", []string{"sh", "-c", fmt.Sprintf("ulimit -Sn 321 && ulimit -Hn 654 && exec /proc/%d/exe", os.Getpid())}
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func softLimit() error {
	for name, opt := range ways {
		cmd := command(os.Stderr, `test "$(ulimit -Sn) $(ulimit -Hn)" = "321 654"`)
		proc, err := Start(context.Background(), plan.Build(), cmd, opt)
		if err != nil {
			return err
		}
		if ws, err := finish(proc); err != nil || ws != 0 {
			return fmt.Errorf("%s: not the limit of the start: %#x, %w", name, ws, err)
		}
	}
	return nil
}
