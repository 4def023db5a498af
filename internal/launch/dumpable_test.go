package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/dumpable"
	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

func flag() int {
	n, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return n
}

// nobody changes the user of the command.
func nobody() plan.Primitive {
	id := plan.Int(65534)
	return does(plan.Credentials, plan.Call("setresgid", sys.Setresgid, id, id, id), plan.Call("setresuid", sys.Setresuid, id, id, id))
}

// TestDumpable: the host's flag, and with it who owns its files in /proc, is what it was.
func TestDumpable(t *testing.T) {
	needRoot(t)
	require.Equal(t, 1, flag())
	for name, opt := range ways {
		require.NoError(t, run(opt, nobody()))
		require.Equal(t, 1, flag(), name)
		require.NoError(t, run(opt, joinOwn("pid")))
		require.Equal(t, 1, flag(), name)
		require.ErrorIs(t, run(opt, nobody(), does(plan.Landlock, plan.Call("close", unix.SYS_CLOSE, plan.Int(-1)))), syscall.EBADF)
		require.Equal(t, 1, flag(), name)
	}
	st, err := os.Stat("/proc/self/environ")
	require.NoError(t, err)
	require.Equal(t, uint32(os.Geteuid()), st.Sys().(*syscall.Stat_t).Uid)
}

// TestDumpableStaysCleared: the flag is not set back while a child of another user still shares the memory, however many
// other starts come to their end meanwhile.
func TestDumpableStaysCleared(t *testing.T) {
	needRoot(t)
	if !haveVfork {
		t.Log("children have memory of their own here")
	}
	g := newGate(t, plan.Directory)
	done := make(chan error)
	go func() { done <- run(Options{}, nobody(), g.part) }()
	require.NotZero(t, g.reached())
	want := 0
	if !haveVfork {
		want = 1
	}
	require.Equal(t, want, flag())
	for range 20 {
		require.NoError(t, run(Options{}, nobody()))
		require.NoError(t, run(Options{}))
		require.NoError(t, run(Options{}, joinOwn("uts")))
		require.Equal(t, want, flag())
	}
	g.open()
	require.NoError(t, <-done)
	require.Equal(t, 1, flag())
}

// TestDumpableUnderLoad: many starts at a time.
func TestDumpableUnderLoad(t *testing.T) {
	needRoot(t)
	var changed, over atomic.Int64
	var wg sync.WaitGroup
	go func() {
		for over.Load() == 0 {
			if flag() == 0 {
				changed.Add(1)
			}
			time.Sleep(50 * time.Microsecond)
		}
	}()
	limit := make(chan bool, 8)
	var failed atomic.Value
	for i := range loops(200) {
		wg.Add(1)
		limit <- true
		go func() {
			defer wg.Done()
			defer func() { <-limit }()
			parts := []plan.Primitive{nobody(), joinOwn("pid"), served(func(*plan.Run) error { return nil })}
			if err := run(Options{}, parts[i%3]); err != nil {
				failed.Store(err)
			}
		}()
	}
	wg.Wait()
	over.Store(1)
	require.Nil(t, failed.Load())
	require.Equal(t, 1, flag())
	if haveVfork {
		require.NotZero(t, changed.Load(), "nobody saw the flag cleared: the test tests nothing")
	}
}

// TestDumpableWait: a child whose parent waits for the flag does not keep it cleared itself.
func TestDumpableWait(t *testing.T) {
	needRoot(t)
	g := newGate(t, plan.Names)
	held := make(chan error)
	go func() { held <- run(Options{}, joinOwn("uts"), g.part) }()
	require.NotZero(t, g.reached())
	require.NoError(t, run(Options{}, nobody(), served(func(r *plan.Run) error {
		if haveVfork && flag() != 0 {
			return errors.New("not cleared")
		}
		g.open()
		ctx, cancel := context.WithTimeout(r.Context, 5*time.Second)
		defer cancel()
		return dumpable.Wait(ctx)
	})))
	require.NoError(t, <-held)
}

// TestJoinIsHidden: nothing that has no right over the host's memory can trace a child that joins, also where it has a copy
// of the memory (CVE-2016-9962). Seen by an ordinary user: what is not dumpable belongs to root.
func TestJoinIsHidden(t *testing.T) {
	c := helper(t, "hidden")
	if os.Geteuid() == 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		c.Dir = "/"
	}
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 77 {
		t.Skipf("%s", out)
	}
	require.NoError(t, err, "%s", out)
}

func hidden() error {
	target := exec.Command("/bin/cat")
	target.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWUTS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}}
	in, err := target.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := target.Start(); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EACCES) {
			fmt.Println("an ordinary user may not make a user namespace here:", err)
			os.Exit(77)
		}
		return err
	}
	for name, opt := range ways {
		if err := seenWhile(opt, target.Process.Pid); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// seenWhile looks at a child that has joined the namespaces of pid and is held there.
func seenWhile(opt Options, pid int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	here, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer here.Close()
	defer tell.Close()
	p := plan.Build(part(func(p *plan.Plan) {
		for _, k := range []string{"user", "uts"} {
			ns := p.Open(k+" as "+k, func(*plan.Run) (*os.File, error) { return os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + k) })
			p.Join(nsFlags[k], plan.Call("setns", unix.SYS_SETNS, plan.FD(ns), plan.Int(int(nsFlags[k]))))
		}
		in := p.Open("gate as gate", func(*plan.Run) (*os.File, error) { return dup(r) })
		out := p.Open("mark as mark", func(*plan.Run) (*os.File, error) { return dup(tell) })
		p.Child(plan.Names, plan.Call("write", unix.SYS_WRITE, plan.FD(out), plan.Str("."), plan.Int(1)),
			plan.Call("read", unix.SYS_READ, plan.FD(in), plan.Buffer(1), plan.Int(1)))
	}))
	done := make(chan error)
	go func() {
		proc, err := Start(context.Background(), p, trueCommand(), opt)
		if err == nil {
			_, err = finish(proc)
		}
		done <- err
	}()
	b := make([]byte, 1)
	if _, err := here.Read(b); err != nil {
		return err
	}
	leak := readable()
	w.Write(b)
	return errors.Join(leak, <-done)
}

// readable reports children that can be read.
func readable() error {
	held := heldChildren()
	if len(held) == 0 {
		return errors.New("no child is held")
	}
	for _, pid := range held {
		for _, name := range []string{"environ", "mem", "auxv"} {
			f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/" + name)
			if err == nil {
				b := make([]byte, 16)
				if n, _ := f.Read(b); n > 0 || name == "mem" {
					return fmt.Errorf("%s can be read", f.Name())
				}
			}
		}
		if fds, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd"); err == nil {
			return fmt.Errorf("%d descriptors can be seen", len(fds))
		}
	}
	return nil
}
