package launch

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/plan"
)

// BenchmarkStartHeap: the cost of a start does not depend on the size of the host's heap.
func BenchmarkStartHeap(b *testing.B) {
	for _, size := range []int{0, 256 << 20, 1 << 30} {
		b.Run(strconv.Itoa(size>>20)+"MiB", func(b *testing.B) {
			heap := make([]byte, size)
			for i := 0; i < len(heap); i += 4096 {
				heap[i] = 1
			}
			for b.Loop() {
				if err := run(Options{}); err != nil {
					b.Fatal(err)
				}
			}
			runtime.KeepAlive(heap)
		})
	}
}

// BenchmarkSetID is what the look for a set-user-ID host costs.
func BenchmarkSetID(b *testing.B) {
	for b.Loop() {
		setID()
	}
}

// processors runs the test with one processor and with several.
func processors(t *testing.T, f func(t *testing.T)) {
	for _, n := range []int{1, 4} {
		t.Run(fmt.Sprintf("GOMAXPROCS=%d", n), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
			f(t)
		})
	}
}

// TestGarbageCollection: a child that takes its time does not hold up a garbage collection.
func TestGarbageCollection(t *testing.T) {
	processors(t, func(t *testing.T) {
		for name, opt := range ways {
			t.Run(name, func(t *testing.T) {
				g := newGate(t, plan.Names)
				var over atomic.Bool
				done := make(chan error)
				go func() {
					err := run(opt, g.part)
					over.Store(true)
					done <- err
				}()
				require.NotZero(t, g.reached())
				timer := time.AfterFunc(5*time.Second, g.open) // a collection that waits would wait for ever
				for range 3 {
					runtime.GC()
				}
				require.False(t, over.Load(), "the collection waited for the child")
				require.True(t, timer.Stop())
				g.open()
				require.NoError(t, <-done)
			})
		}
	})
}

// TestServedWithoutProcessors: the parent acts while the child waits, also where no processor is free.
func TestServedWithoutProcessors(t *testing.T) {
	processors(t, func(t *testing.T) {
		var over atomic.Bool
		defer over.Store(true)
		for range runtime.GOMAXPROCS(0) {
			go func() {
				for !over.Load() {
				}
			}()
		}
		for name, opt := range ways {
			served := served(func(r *plan.Run) error {
				_, err := os.Stat("/proc/" + strconv.Itoa(r.PID))
				return err
			})
			begin := time.Now()
			for range loops(20) {
				require.NoError(t, run(opt, served), name)
			}
			t.Log(name, time.Since(begin)/time.Duration(loops(20)))
		}
	})
}
