package dumpable

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func set(t *testing.T, n int) {
	t.Helper()
	require.NoError(t, unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(n), 0, 0, 0))
	require.Equal(t, n, current())
}

func TestEnterHides(t *testing.T) {
	set(t, 1)
	Enter(true)
	require.Equal(t, 0, current())
	Leave()
	require.Equal(t, 1, current())
	Enter(false)
	require.Equal(t, 1, current(), "hidden without need")
	Leave()
	require.Equal(t, 1, current())
}

// TestLastOneRestores: the flag, which a child has cleared, is put back by the last to leave, in any order.
func TestLastOneRestores(t *testing.T) {
	set(t, 1)
	Enter(false)
	set(t, 0) // as the kernel does when the child changes its user
	Enter(true)
	Enter(false)
	for range 2 {
		Leave()
		require.Equal(t, 0, current(), "put back while a child still shares the memory")
	}
	Leave()
	require.Equal(t, 1, current())
}

// TestOwnChoiceIsKept: who has made the host undumpable on purpose finds it so.
func TestOwnChoiceIsKept(t *testing.T) {
	defer set(t, 1)
	set(t, 0)
	for _, hide := range []bool{false, true} {
		Enter(hide)
		Leave()
		require.Equal(t, 0, current())
		require.NoError(t, Wait(context.Background()), "waits for what nobody will do")
		Enter(hide)
		require.NoError(t, Wait(context.Background()))
		Leave()
	}
}

func TestWait(t *testing.T) {
	set(t, 1)
	require.NoError(t, Wait(context.Background()))
	Enter(false)
	require.NoError(t, Wait(context.Background()), "the flag is not cleared yet")
	Leave()
	Enter(true)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, Wait(ctx), context.DeadlineExceeded)
	time.AfterFunc(5*time.Millisecond, Leave)
	require.NoError(t, Wait(context.Background()))
	require.Equal(t, 1, current())
}

func TestManyAtATime(t *testing.T) {
	set(t, 1)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 200 {
				hide := i%2 == 0
				Enter(hide)
				if hide && current() != 0 {
					t.Error("not hidden")
				}
				Leave()
			}
		}()
	}
	wg.Wait()
	require.Equal(t, 1, current())
	require.Zero(t, starts.n)
}
