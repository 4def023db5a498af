package namespaces

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// processors are the numbers of processors with which the tests of threads run: with one, each goroutine may find itself
// on any thread.
var processors = []int{1, 8}

func eachProcessors(t *testing.T, f func(t *testing.T)) {
	for _, n := range processors {
		t.Run(map[int]string{1: "GOMAXPROCS 1", 8: "GOMAXPROCS 8"}[n], func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
			f(t)
		})
	}
}

// threads is how many threads of this process are in which namespaces.
func threads(t *testing.T, k Set) map[string]int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	in := map[string]int{}
	for _, task := range tasks {
		if text, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/" + k.kind().file); err == nil {
			in[text]++
		}
	}
	return in
}

// The lesson "Go threads": what is done inside stays inside, also what a fork does, and no thread stays behind.
func TestGoThreads(t *testing.T) {
	asRoot(t)
	dir := t.TempDir()
	eachProcessors(t, func(t *testing.T) {
		mounts, own := readFile(t, "/proc/self/mounts"), link(t, 0, Mount)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range loops(5) {
					if err := Do(Mount|UTS|Net, func() error { return mountInside(dir) }); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.Equal(t, mounts, readFile(t, "/proc/self/mounts"))
		require.NoFileExists(t, dir+"/inside")
		require.Equal(t, own, link(t, 0, Mount)) // the first thread's
		require.Eventually(t, func() bool { return len(threads(t, Mount)) == 1 }, 5*time.Second, time.Millisecond, "a thread stays in another namespace")
		out, err := exec.Command("readlink", "/proc/self/ns/mnt").Output()
		require.NoError(t, err)
		require.Equal(t, own, strings.TrimSpace(string(out)))
	})
}

// mountInside mounts something, and has a command look for it.
func mountInside(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	runtime.Gosched()
	if err := os.WriteFile(dir+"/inside", nil, 0o600); err != nil {
		return err
	}
	if out, err := exec.Command("ls", dir).CombinedOutput(); err != nil || string(out) != "inside\n" {
		return errors.Join(errors.New("the command is not inside: "+string(out)), err)
	}
	return nil
}

// The first thread is never the one that is thrown away: it could not be, and what /proc/self shows is its.
func TestFirstThreadStays(t *testing.T) {
	asRoot(t)
	eachProcessors(t, func(t *testing.T) {
		own := link(t, 0, UTS)
		for range loops(200) {
			var tid int
			require.NoError(t, Do(UTS, func() error { tid = unix.Gettid(); return nil }))
			require.NotEqual(t, unix.Getpid(), tid)
		}
		require.Equal(t, own, link(t, 0, UTS))
		require.Eventually(t, func() bool { return len(threads(t, UTS)) == 1 }, 5*time.Second, time.Millisecond)
	})
	n := len(threads(t, UTS))
	require.Equal(t, 1, n)
}

// On the first thread runLocked hands over to another one, and the goroutine stays where it is.
func TestRunLockedOnFirstThread(t *testing.T) {
	done := make(chan bool)
	onFirst <- func() {
		r := make(chan outcome, 1)
		tid := 0
		runLocked(func() error { tid = unix.Gettid(); return nil }, r)
		o := <-r
		done <- o.returned && tid != unix.Getpid() && tid != 0 && unix.Gettid() == unix.Getpid()
	}
	require.True(t, <-done)
}

func TestDoJoins(t *testing.T) {
	asRoot(t)
	pid, pidfd := sleeper(t, UTS|Net|IPC|Cgroup|Mount|PID)
	which := UTS | Net | IPC | Cgroup | Mount
	all, err := Of(pid, which)
	require.NoError(t, err)
	defer all.Close()
	for name, target := range map[string]Target{"join": Join{PID: pid, Kinds: which}, "pidfd": Join{PIDFD: pidfd, Kinds: which}, "namespaces": all} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, Do(target, func() error {
				inside, err := Of(0, which)
				if err != nil {
					return err
				}
				defer inside.Close()
				for i, n := range inside {
					require.Equal(t, all[i].ID(), n.ID())
				}
				return nil
			}))
		})
	}
	require.NoError(t, Do(all.Find(UTS), func() error { return unix.Sethostname([]byte("one")) }))
	require.Equal(t, "one", says(t, "uname -n", Join{PIDFD: pidfd, Kinds: UTS}))
	require.NoError(t, Do(Join{PIDFD: pidfd, Kinds: PID}, func() error { // 1 is the sleeper
		_, err := exec.Command("sh", "-c", "test $$ -gt 1").Output()
		return err
	}))
}

func TestDoPID(t *testing.T) {
	asRoot(t)
	require.NoError(t, Do(PID, func() error {
		out, err := exec.Command("sh", "-c", "echo $$").Output()
		require.Equal(t, "1\n", string(out))
		return err
	}))
}

// Where the caller is already, there is nothing to enter, and nothing is needed.
func TestDoHere(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	here, err := Of(0, UTS|User|Net)
	require.NoError(t, err)
	defer here.Close()
	called := 0
	for _, target := range []Target{here, Join{PID: os.Getpid(), Kinds: All}, Set(0)} {
		require.NoError(t, Do(target, func() error { called++; return nil }))
	}
	require.Equal(t, 3, called)
}

func TestDoUnsupported(t *testing.T) {
	asRoot(t)
	pid, _ := sleeper(t, User)
	for _, target := range []Target{User, User | Net, Time, Join{PID: pid, Kinds: User}} {
		err := Do(target, func() error { panic("not called") })
		require.ErrorIs(t, err, errors.ErrUnsupported)
		var e *Error
		require.ErrorAs(t, err, &e)
	}
	var e *SetError
	require.ErrorAs(t, Do(Set(1), func() error { panic("not called") }), &e)
}

func TestDoRefused(t *testing.T) {
	if !asOrdinary(t) {
		return
	}
	for k := range (All &^ User &^ Time).Each() {
		err := Do(k, func() error { panic("not called") })
		require.ErrorIs(t, err, unix.EPERM)
		require.ErrorContains(t, err, "CAP_SYS_ADMIN")
	}
	require.ErrorIs(t, Do(Join{PID: 1}, func() error { panic("not called") }), unix.EACCES)
}

func TestDoError(t *testing.T) {
	mine := errors.New("mine")
	require.Equal(t, mine, Do(Set(0), func() error { return mine }))
}

func TestDoPanics(t *testing.T) {
	require.PanicsWithValue(t, "oh", func() { Do(Set(0), func() error { panic("oh") }) })
	require.Panics(t, func() { Do(Set(0), func() error { panic(nil) }) })
}

func TestDoGoexit(t *testing.T) {
	after, ended := false, make(chan bool)
	go func() {
		defer close(ended)
		Do(Set(0), func() error { runtime.Goexit(); return nil })
		after = true
	}()
	<-ended
	require.False(t, after)
}

// A function that unlocks its thread is found out when it has moved to another one.
func TestDoUnlocked(t *testing.T) {
	eachProcessors(t, func(t *testing.T) {
		release := make(chan bool)
		defer close(release)
		err := Do(Set(0), func() error {
			before := unix.Gettid()
			runtime.UnlockOSThread()
			for range 200 { // until somebody else has our thread, and keeps it
				got := make(chan bool)
				go func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					got <- unix.Gettid() == before
					<-release
				}()
				if <-got {
					break
				}
			}
			return nil
		})
		require.ErrorIs(t, err, unix.EINVAL)
		require.ErrorContains(t, err, "unlocked its thread")
	})
	// One that stays on it does no harm: the thread is thrown away all the same.
	var tid int
	require.NoError(t, Do(Set(0), func() error { tid = unix.Gettid(); runtime.UnlockOSThread(); return nil }))
	require.Eventually(t, func() bool { return unix.Tgkill(unix.Getpid(), tid, 0) == unix.ESRCH }, 5*time.Second, time.Millisecond)
}

// It does not matter that Do is called from inside Do: the inner one begins where the program is.
func TestDoInDo(t *testing.T) {
	asRoot(t)
	host := readFile(t, "/proc/sys/kernel/hostname")
	require.NoError(t, Do(UTS, func() error {
		if err := unix.Sethostname([]byte("outer")); err != nil {
			return err
		}
		return Do(UTS, func() error {
			require.Equal(t, host, readFile(t, "/proc/sys/kernel/hostname"))
			return nil
		})
	}))
}
