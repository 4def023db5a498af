package launch

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

var joinable = []string{"user", "mnt", "net", "ipc", "uts", "cgroup", "pid"}

// newTarget starts a process in new namespaces of all kinds that can be joined, and of the further ones.
func newTarget(t *testing.T, more ...plan.Primitive) *Process {
	t.Helper()
	var flags uint64
	for _, k := range joinable {
		flags |= nsFlags[k]
	}
	p := plan.Build(append(more, clone(flags), served(mapRoot))...)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	proc, err := Start(context.Background(), p, &plan.Command{Candidates: []string{"/bin/cat"}, Args: []string{"cat"},
		Files: []*os.File{r, os.Stderr, os.Stderr}}, Options{})
	skipWithoutUserNamespaces(t, err)
	require.NoError(t, err)
	t.Cleanup(func() {
		w.Close()
		_, err := finish(proc)
		require.NoError(t, err)
	})
	return proc
}

// mapRoot makes the caller root inside.
func mapRoot(r *plan.Run) error {
	dir := "/proc/" + strconv.Itoa(r.PID)
	if os.Geteuid() != 0 {
		if err := os.WriteFile(dir+"/setgroups", []byte("deny"), 0); err != nil {
			return err
		}
	}
	if err := os.WriteFile(dir+"/gid_map", fmt.Appendf(nil, "0 %d 1", os.Getegid()), 0); err != nil {
		return err
	}
	return os.WriteFile(dir+"/uid_map", fmt.Appendf(nil, "0 %d 1", os.Geteuid()), 0)
}

// skipWithoutUserNamespaces asks unshare(2) itself whether an ordinary user may make one here.
func skipWithoutUserNamespaces(t *testing.T, err error) {
	t.Helper()
	if err == nil || os.Geteuid() == 0 {
		return
	}
	c := exec.Command("/bin/true")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	if e := c.Run(); e != nil {
		t.Skip("an ordinary user may not make a user namespace here: ", e)
	}
}

func nsOf(pid int, kind string) string {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		return err.Error()
	}
	return link
}

// joining enters namespaces of pid, one after the other or by one call with a pidfd.
func joining(pid int, kinds []string, byPidfd bool) plan.Primitive {
	return part(func(p *plan.Plan) {
		if byPidfd {
			var all uint64
			for _, k := range kinds {
				all |= nsFlags[k]
			}
			f := p.Open("target as target", func(*plan.Run) (*os.File, error) {
				fd, err := unix.PidfdOpen(pid, 0)
				return os.NewFile(uintptr(fd), "pidfd"), err
			})
			p.Join(all, plan.Call("setns", unix.SYS_SETNS, plan.FD(f), plan.Namespaces(all)))
			return
		}
		for _, k := range kinds {
			f := p.Open(k+" as "+k, func(*plan.Run) (*os.File, error) { return os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, k)) })
			p.Join(nsFlags[k], plan.Call("setns", unix.SYS_SETNS, plan.FD(f), plan.Namespaces(nsFlags[k])))
		}
	})
}

// joined starts a command that joins, and checks in which namespaces it is.
func joined(t *testing.T, opt Options, target int, kinds []string, byPidfd bool, more ...plan.Primitive) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	parts := append(more, joining(target, kinds, byPidfd))
	proc, err := Start(context.Background(), plan.Build(parts...), &plan.Command{Candidates: []string{"/bin/cat"}, Args: []string{"cat"},
		Files: []*os.File{r, os.Stderr, os.Stderr}}, opt)
	require.NoError(t, err, "%v", kinds)
	for _, k := range append(joinable[:len(joinable):len(joinable)], "time") {
		want := nsOf(os.Getpid(), k)
		if strings.Contains(" "+strings.Join(kinds, " ")+" ", " "+k+" ") {
			want = nsOf(target, k)
		}
		if got := nsOf(proc.PID, k); got != want {
			w.Close()
			finish(proc)
			require.Equal(t, want, got, "%s after joining %v", k, kinds)
		}
	}
	w.Close()
	ws, err := finish(proc)
	require.NoError(t, err)
	require.Zero(t, ws)
}

// TestJoinAll: every combination of namespaces, by descriptors and by pidfd.
func TestJoinAll(t *testing.T) {
	unchanged(t)
	target := newTarget(t)
	for name, opt := range ways {
		for _, byPidfd := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s by pidfd %t", name, byPidfd), func(t *testing.T) {
				for set := 1; set < 1<<len(joinable); set++ {
					var kinds []string
					for i, k := range joinable {
						if set>>i&1 == 1 {
							kinds = append(kinds, k)
						}
					}
					few := set != 1<<len(joinable)-1 && len(kinds) != 1
					if few && loops(100) < 100 && set%16 != 5 {
						continue
					}
					if os.Geteuid() != 0 && kinds[0] != "user" {
						continue // without privilege the user namespace has to be joined first
					}
					joined(t, opt, target.PID, kinds, byPidfd)
				}
			})
		}
	}
}

// TestJoinTime: a time namespace can be joined only by a child with memory of its own.
func TestJoinTime(t *testing.T) {
	needRoot(t)
	if _, err := os.Stat("/proc/self/ns/time"); os.IsNotExist(err) {
		t.Skip("the kernel has no time namespaces")
	}
	if !kernelAtLeast(6, 2) {
		t.Skip("before Linux 6.2 no process in a new time namespace can be started here")
	}
	unchanged(t)
	target := newTarget(t, clone(unix.CLONE_NEWTIME))
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			joined(t, opt, target.PID, []string{"user", "time", "pid"}, false)
			joined(t, opt, target.PID, []string{"user", "mnt", "net", "ipc", "uts", "cgroup", "pid", "time"}, true)
		})
	}
}

// TestJoinAndMake: new namespaces belong to the joined user namespace, and the second child is in the joined pid namespace.
func TestJoinAndMake(t *testing.T) {
	needRoot(t)
	unchanged(t)
	target := newTarget(t)
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			p := plan.Build(joining(target.PID, []string{"user", "pid"}, false), clone(unix.CLONE_NEWUTS|unix.CLONE_NEWNS),
				part(func(p *plan.Plan) { p.DieWithParent() }), served(func(r *plan.Run) error { return unix.Kill(r.PID, 0) }))
			out := strings.Fields(output(t, opt, p, "readlink /proc/self/ns/user; echo changed > /proc/sys/kernel/hostname; cat /proc/sys/kernel/hostname; echo $$"))
			require.Len(t, out, 3, out)
			require.Equal(t, nsOf(target.PID, "user"), out[0])
			require.Equal(t, "changed", out[1])
			pid, err := strconv.Atoi(out[2])
			require.NoError(t, err)
			require.Less(t, pid, 1000000)
			host, err := os.Hostname()
			require.NoError(t, err)
			require.NotEqual(t, "changed", host)
		})
	}
}

// TestJoinEnded: the sandbox has ended.
func TestJoinEnded(t *testing.T) {
	c := exec.Command("/bin/true")
	require.NoError(t, c.Start())
	pidfd, err := unix.PidfdOpen(c.Process.Pid, 0)
	require.NoError(t, err)
	defer unix.Close(pidfd)
	require.NoError(t, c.Wait())
	for name, opt := range ways {
		err := run(opt, part(func(p *plan.Plan) {
			f := p.Open("target as target", func(*plan.Run) (*os.File, error) {
				fd, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
				return os.NewFile(uintptr(fd), "pidfd"), err
			})
			p.Join(unix.CLONE_NEWUTS, plan.Call("setns", unix.SYS_SETNS, plan.FD(f), plan.Namespaces(unix.CLONE_NEWUTS)))
		}))
		require.ErrorIs(t, err, syscall.ESRCH, name)
	}
}

// TestStoppedOnItsWay: whoever may send signals inside stops the child that comes in, and would keep it for ever. (Here it is the parent.)
func TestStoppedOnItsWay(t *testing.T) {
	target := newTarget(t)
	for _, opt := range []Options{{}, {NoVfork: true}} {
		halt := served(func(r *plan.Run) error { return unix.Kill(r.PID, unix.SIGSTOP) })
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := Start(ctx, plan.Build(joining(target.PID, []string{"user", "uts"}, false), halt), trueCommand(), opt)
		require.ErrorIs(t, err, syscall.ECANCELED)
		require.NoError(t, ctx.Err())
	}
}

// TestJoinAlone: a command that joins a namespace in which nobody is need not be hidden from those there, nor be executed by our own program; with any other one it must, also where a part enters it without saying so.
func TestJoinAlone(t *testing.T) {
	enter := func() plan.Op { return plan.Call("setns", unix.SYS_SETNS, plan.Int(-1), plan.Int(0)) }
	alone := plan.Func(func(p *plan.Plan) error { p.JoinAlone(unix.CLONE_NEWNET, enter()); return nil })
	others := plan.Func(func(p *plan.Plan) error { p.Join(unix.CLONE_NEWIPC, enter()); return nil })
	silent := plan.Func(func(p *plan.Plan) error { p.Child(plan.Join, enter()); return nil })
	for name, c := range map[string]struct {
		parts          []plan.Primitive
		joins, exposed bool
	}{
		"alone":                       {[]plan.Primitive{alone}, false, false},
		"others":                      {[]plan.Primitive{others}, true, true},
		"both":                        {[]plan.Primitive{alone, others}, true, true},
		"alone, and one in silence":   {[]plan.Primitive{alone, silent}, true, false},
		"one in silence, as ever was": {[]plan.Primitive{silent}, true, false},
	} {
		p := plan.Build(c.parts...)
		require.NoError(t, p.Err(), name)
		s := &start{plan: p, scratch: &scratch{steps: p.Steps(nil)}, cmd: &plan.Command{}}
		require.Equal(t, c.joins, s.joins(), name)
		require.Equal(t, c.exposed, s.exposed(), name)
		require.False(t, s.announced(), "the parent may act before the child is there")
	}
}
