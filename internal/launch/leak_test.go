package launch

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// withoutDescriptors starts where no descriptor is left. The start must fail, and the host go on: memory that stays
// pinned makes the garbage collector end the program.
func withoutDescriptors() error {
	lim := unix.Rlimit{Cur: 20, Max: 20}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	p := plan.Build(part(func(p *plan.Plan) { p.DieWithParent() }), served(func(*plan.Run) error { return nil }))
	var open []*os.File
	for len(open) < 20 {
		f, err := os.Open("/")
		if err != nil {
			break
		}
		open = append(open, f)
	}
	failures := 0
	for {
		proc, err := Start(context.Background(), p, trueCommand(), Options{})
		if err == nil {
			if _, err = finish(proc); err != nil {
				return err
			}
			break
		}
		if plan.Errno(err) != syscall.EMFILE {
			return fmt.Errorf("not EMFILE: %w", err)
		}
		failures++
		if len(open) == 0 {
			return fmt.Errorf("no start: %w", err)
		}
		open[len(open)-1].Close()
		open = open[:len(open)-1]
		for range 3 {
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}
	if failures == 0 {
		return fmt.Errorf("no start failed")
	}
	return nil
}

func TestStartWithoutDescriptors(t *testing.T) { help(t, "without descriptors") }

// TestManyDescriptors: where the command gets more descriptors than are open, those of the launcher have to move.
func TestManyDescriptors(t *testing.T) {
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			unchanged(t)
			cmd := trueCommand()
			for len(cmd.Files) < 60 {
				cmd.Files = append(cmd.Files, os.Stderr)
			}
			p := plan.Build(part(func(p *plan.Plan) { p.DieWithParent() }), served(func(*plan.Run) error { return nil }),
				part(func(p *plan.Plan) {
					f := p.Open("root as root", func(*plan.Run) (*os.File, error) { return os.Open("/") })
					p.Child(plan.Sources, plan.Call("fchdir", unix.SYS_FCHDIR, plan.FD(f)))
				}))
			within(t, 5*time.Second, func() {
				proc, err := Start(context.Background(), p, cmd, opt)
				require.NoError(t, err)
				ws, err := finish(proc)
				require.NoError(t, err)
				require.Zero(t, ws)
				opt.Fault = len(p.Steps(cmd))
				_, err = Start(context.Background(), p, cmd, opt)
				require.Error(t, err)
			})
		})
	}
}

// TestLeavesNothing: starts that succeed and starts that fail, with one child and with two.
func TestLeavesNothing(t *testing.T) {
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			unchanged(t)
			bad := does(plan.Names, plan.Call("close", unix.SYS_CLOSE, plan.Int(-1)))
			refuse := served(func(*plan.Run) error { return syscall.EDOM })
			for range 5 {
				require.NoError(t, run(opt))
				require.ErrorIs(t, run(opt, bad), syscall.EBADF)
				require.ErrorIs(t, run(opt, dies(), bad), syscall.EBADF)
				require.ErrorIs(t, run(opt, refuse), syscall.EDOM)
				if os.Geteuid() == 0 { // it takes privilege to join without a user namespace
					require.NoError(t, run(opt, joinOwn("uts")))
					require.NoError(t, run(opt, joinOwn("pid")))
					require.ErrorIs(t, run(opt, joinOwn("pid"), bad), syscall.EBADF)
					require.ErrorIs(t, run(opt, refuse, joinOwn("pid")), syscall.EDOM)
				}
			}
		})
	}
}

// TestKilledInSetup: someone else kills a child that is not yet the command.
func TestKilledInSetup(t *testing.T) {
	for name, opt := range ways {
		for _, twice := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " two children ", twice), func(t *testing.T) {
				if twice {
					needRoot(t)
				}
				unchanged(t)
				g := newGate(t, plan.Names)
				parts := []plan.Primitive{g.part}
				if twice {
					parts = append(parts, joinOwn("pid"))
				}
				go func() {
					if g.reached() > 0 {
						for _, pid := range heldChildren() {
							unix.Kill(pid, unix.SIGKILL)
						}
					}
				}()
				within(t, 10*time.Second, func() {
					require.ErrorIs(t, run(opt, parts...), errKilled)
				})
			})
		}
	}
}

// heldChildren are the children that have not executed anything: their command line is the test's.
func heldChildren() (pids []int) {
	own, _ := os.ReadFile("/proc/self/cmdline")
	for _, pid := range children() {
		if b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); len(b) > 0 && string(b) == string(own) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestFirstChildKilled: of two children the first one, which only waits for the second, is killed. Host and second child go
// on, and the start is a good one.
func TestFirstChildKilled(t *testing.T) {
	needRoot(t)
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			unchanged(t)
			g := newGate(t, plan.Names)
			killed := make(chan int, 1)
			go func() {
				g.reached()
				pids := heldChildren()
				if len(pids) == 2 { // the first one has the lower pid; a copy of the memory has ended already
					unix.Kill(pids[0], unix.SIGKILL)
				}
				time.Sleep(50 * time.Millisecond)
				garbage := make([][]byte, 0, 1000)
				for range 1000 {
					garbage = append(garbage, make([]byte, 8<<10))
				}
				runtime.KeepAlive(garbage)
				runtime.GC()
				killed <- len(pids)
				g.open()
			}()
			within(t, 10*time.Second, func() {
				require.NoError(t, run(opt, g.part, joinOwn("pid"), served(func(r *plan.Run) error { return unix.Kill(r.PID, 0) })))
			})
			n := <-killed
			if opt.NoVfork || !haveVfork {
				require.Equal(t, 1, n)
			} else {
				require.Equal(t, 2, n)
			}
		})
	}
}
