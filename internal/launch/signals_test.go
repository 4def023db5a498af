package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// TestSignalStorm: no signal reaches a child while its handlers are the host's.
func TestSignalStorm(t *testing.T) { help(t, "signals") }

// signals starts commands while signals rain on every thread of the host, and then on the whole process group.
func signals() error {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1, syscall.SIGPROF, syscall.SIGURG)
	if err := unix.Setpgid(0, 0); err != nil {
		return err
	}
	for name, opt := range ways {
		if err := underStorm(stormThreads, func() error { return startMany(opt, loops(500), nil) }); err != nil {
			return fmt.Errorf("%s, threads: %w", name, err)
		}
		// What is sent to the group ends the children as well: their handlers are the default ones. It may not end the host.
		if err := underStorm(stormGroup, func() error { return startMany(opt, loops(200), bySignal) }); err != nil {
			return fmt.Errorf("%s, group: %w", name, err)
		}
	}
	if len(caught) == 0 {
		return errors.New("there was no storm")
	}
	return nil
}

func bySignal(ws unix.WaitStatus, err error) bool {
	return errors.Is(err, errKilled) || ws.Signaled() && (ws.Signal() == unix.SIGUSR1 || ws.Signal() == unix.SIGPROF)
}

func startMany(opt Options, n int, tolerated func(unix.WaitStatus, error) bool) error {
	p := plan.Build(does(plan.Names, sleep(20*time.Microsecond)))
	for range n {
		var ws unix.WaitStatus
		proc, err := Start(context.Background(), p, trueCommand(), opt)
		if err == nil {
			ws, err = finish(proc)
		}
		if (err != nil || ws != 0) && (tolerated == nil || !tolerated(ws, err)) {
			return fmt.Errorf("status %#x: %w", ws, err)
		}
	}
	return nil
}

func underStorm(storm func(unix.Signal), f func() error) error {
	var over atomic.Bool
	var wg sync.WaitGroup
	for _, sig := range []unix.Signal{unix.SIGUSR1, unix.SIGPROF} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for !over.Load() {
				storm(sig)
				time.Sleep(100 * time.Microsecond)
			}
		}()
	}
	err := f()
	over.Store(true)
	wg.Wait()
	return err
}

func stormThreads(sig unix.Signal) {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, e := range threads {
		tid, _ := strconv.Atoi(e.Name())
		unix.Tgkill(os.Getpid(), tid, sig)
	}
}

func stormGroup(sig unix.Signal) {
	unix.Kill(0, sig)
	time.Sleep(500 * time.Microsecond)
}

// TestSignalState: the command gets the mask of the starting thread, and ignores what the host ignores, as with os/exec.
func TestSignalState(t *testing.T) { help(t, "signal state") }

func signalState() error {
	runtime.LockOSThread()
	signal.Ignore(syscall.SIGUSR2)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR1, syscall.SIGPIPE, syscall.SIGHUP) // the last one is ignored below nohup(1)
	std, err := exec.Command("/bin/cat", "/proc/self/status").Output()
	if err != nil {
		return err
	}
	var set unix.Sigset_t
	set.Val[0] = 1<<(unix.SIGWINCH-1) | 1<<(unix.SIGALRM-1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		return err
	}
	want := signalLines(string(std))
	want["SigBlk"] = fmt.Sprintf("%016x", 1<<(unix.SIGWINCH-1)|1<<(unix.SIGALRM-1))
	if want["SigIgn"] != fmt.Sprintf("%016x", 1<<(unix.SIGUSR2-1)) {
		return fmt.Errorf("os/exec: SigIgn %s", want["SigIgn"])
	}
	for name, opt := range ways {
		for _, twice := range []bool{false, true} {
			status, err := catStatus(opt, twice)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for k, v := range signalLines(status) {
				if want[k] != v {
					return fmt.Errorf("%s, two children %t: %s is %s, want %s", name, twice, k, v, want[k])
				}
			}
		}
	}
	// The thread itself has its own mask back.
	var now unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &now); err != nil || now != set {
		return fmt.Errorf("the mask of the thread is %v, %v", now, err)
	}
	return nil
}

func catStatus(opt Options, twice bool) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	cmd := &plan.Command{Candidates: []string{"/bin/cat"}, Args: []string{"cat", "/proc/self/status"}, Files: []*os.File{nil, w, os.Stderr}}
	var parts []plan.Primitive
	if twice && os.Geteuid() == 0 {
		parts = append(parts, joinOwn("pid"))
	}
	p, err := Start(context.Background(), plan.Build(parts...), cmd, opt)
	w.Close()
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	if _, e := finish(p); err == nil {
		err = e
	}
	return string(out), err
}

func signalLines(status string) map[string]string {
	lines := map[string]string{}
	for _, l := range strings.Split(status, "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok && (k == "SigBlk" || k == "SigIgn" || k == "SigCgt") {
			lines[k] = strings.TrimSpace(v)
		}
	}
	return lines
}

// TestResetSignals: handlers get the default action, what is ignored stays ignored.
func TestResetSignals(t *testing.T) {
	require.GreaterOrEqual(t, unsafe.Sizeof(sigaction{}), uintptr(32))
}
