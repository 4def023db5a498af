package launch

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

func dies() plan.Primitive { return part(func(p *plan.Plan) { p.DieWithParent() }) }

// TestThreadEnds: the thread that called Start ends, and the child lives on.
func TestThreadEnds(t *testing.T) {
	for name, opt := range ways {
		t.Run(name, func(t *testing.T) {
			unchanged(t)
			r, w, err := os.Pipe()
			require.NoError(t, err)
			defer r.Close()
			type started struct {
				p   *Process
				tid int
				err error
			}
			c := make(chan started)
			go func() {
				runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
				p, err := Start(context.Background(), plan.Build(dies()), &plan.Command{Candidates: []string{"/bin/cat"}, Args: []string{"cat"},
					Files: []*os.File{r, os.Stderr, os.Stderr}}, opt)
				c <- started{p, unix.Gettid(), err}
			}()
			s := <-c
			require.NoError(t, s.err)
			for range 1000 {
				if unix.Tgkill(os.Getpid(), s.tid, 0) != nil || s.tid == os.Getpid() {
					break
				}
				time.Sleep(time.Millisecond)
			}
			for range 20 { // new threads and old ones come and go
				c := make(chan bool)
				go func() { runtime.LockOSThread(); close(c) }()
				<-c
			}
			time.Sleep(20 * time.Millisecond)
			stat, err := os.ReadFile("/proc/" + strconv.Itoa(s.p.PID) + "/stat")
			require.NoError(t, err)
			require.NotContains(t, string(stat), ") Z ")
			w.Close()
			ws, err := finish(s.p)
			require.NoError(t, err)
			require.True(t, ws.Exited(), "%#x", ws)
		})
	}
}

// TestHostEnds: the host ends by itself, and the command with it.
func TestHostEnds(t *testing.T) {
	for name := range ways {
		t.Run(name, func(t *testing.T) {
			mark := marker()
			help(t, "die", mark, "CAISSON_WAY="+name)
			gone(t, mark)
		})
	}
}

func startAndDie() error {
	_, err := Start(context.Background(), plan.Build(dies()), &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "1000"},
		Env: os.Environ(), Files: []*os.File{nil, nil, nil}}, ways[os.Getenv("CAISSON_WAY")])
	return err
}

func marker() string { return fmt.Sprintf("CAISSON_MARK=%d.%x", os.Getpid(), rand.Uint64()) }

// marked are the processes with that variable in their environment. A child that shares the memory of its host has the host's.
func marked(mark string) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		if bytes.Contains(env, []byte(mark)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// gone waits until nothing with the mark is left.
func gone(t *testing.T, mark string) {
	t.Helper()
	var left []int
	for range 500 {
		if left = marked(mark); len(left) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, pid := range left {
		unix.Kill(pid, unix.SIGKILL)
	}
	t.Fatalf("%d processes have survived their host", len(left))
}

// TestHostKilled: the host is killed at any moment, and nothing is left.
func TestHostKilled(t *testing.T) {
	for i := range loops(200) {
		mark := marker()
		c := helper(t, "die in a loop", mark, "CAISSON_ROUND="+strconv.Itoa(i))
		out, err := c.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, c.Start())
		line, _ := bufio.NewReader(out).ReadString('\n')
		if strings.HasPrefix(line, "error") {
			c.Process.Kill()
			c.Wait()
			t.Fatal(line)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(8 * time.Millisecond))))
		c.Process.Kill()
		c.Wait()
		gone(t, mark)
	}
}

// startForever starts commands that do not end, in several ways, until it is killed.
func startForever() error {
	round, _ := strconv.Atoi(os.Getenv("CAISSON_ROUND"))
	fmt.Println("ready")
	names := []string{"vfork", "vfork by clone", "fork", "fork by clone"}
	parts := []plan.Primitive{dies(), does(plan.Names, sleep(300*time.Microsecond))}
	if os.Geteuid() == 0 {
		parts = append(parts, clone(unix.CLONE_NEWNS|unix.CLONE_NEWUTS))
		if round%3 == 0 {
			parts = append(parts, clone(unix.CLONE_NEWPID))
		}
		if round%3 == 1 {
			parts = append(parts, joinOwn("pid"))
		}
	}
	if round%2 == 0 {
		parts = append(parts, served(func(*plan.Run) error { return nil }))
	}
	p := plan.Build(parts...)
	for {
		if _, err := Start(context.Background(), p, &plan.Command{Candidates: []string{"/bin/sleep"}, Args: []string{"sleep", "1000"},
			Env: os.Environ(), Files: []*os.File{nil, nil, nil}}, ways[names[round%4]]); err != nil {
			fmt.Println("error", err)
			return err
		}
	}
}
