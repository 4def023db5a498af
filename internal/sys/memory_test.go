package sys

import (
	"bytes"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// peek reads n bytes at an address, as the kernel does. The number is made a pointer by way of memory: the checks of the
// race detector's build do not follow it there.
func peek(at uintptr, n int) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), n)
}

func text(at uintptr) string {
	n := 0
	for peek(at, n+1)[n] != 0 {
		n++
	}
	return string(peek(at, n))
}

func TestAlignment(t *testing.T) {
	var m Memory
	defer m.Free()
	for i := range 3000 {
		m.String(strings.Repeat("x", i%13))
		at := m.Zero(1 + i%1500)
		require.Zero(t, at%8, "Zero %d", i)
		at, _ = m.Copy(make([]byte, i%70))
		require.Zero(t, at%8, "Copy %d", i)
		require.Zero(t, m.Strings(make([]string, i%9))%8, "Strings %d", i)
	}
}

func TestZero(t *testing.T) {
	var m Memory
	defer m.Free()
	for _, n := range []int{-1, 0, 1, 7, 8, 1023, 1024, 1025, 4095, 4096, 4097, 1 << 20} {
		at := m.Zero(n)
		require.NotZero(t, at)
		if n > 0 {
			require.Equal(t, make([]byte, n), peek(at, n))
			copy(peek(at, n), bytes.Repeat([]byte{0xff}, n)) // what was used is not given again
		}
	}
}

func TestBytes(t *testing.T) {
	var m Memory
	defer m.Free()
	b := []byte("abc")
	require.Equal(t, uintptr(unsafe.Pointer(&b[0])), m.Bytes(b), "not the bytes themselves")
	require.NotZero(t, m.Bytes(nil))
	require.NotZero(t, m.Bytes([]byte{}))
	at, c := m.Copy(b)
	c[0] = 'x'
	require.Equal(t, "xbc", string(peek(at, 3)))
	require.Equal(t, "abc", string(b))
	require.Equal(t, 3, cap(c), "a copy that could grow into its neighbour")
}

func TestStrings(t *testing.T) {
	var m Memory
	defer m.Free()
	for _, want := range [][]string{nil, {""}, {"a", "", "b"}, {strings.Repeat("long", 100000)}, strings.Split(strings.Repeat("word ", 50000), " ")} {
		at := m.Strings(want)
		var got []string
		for i := range want {
			p := *(*uintptr)(unsafe.Pointer(&peek(at+uintptr(i)*unsafe.Sizeof(at), 8)[0]))
			got = append(got, text(p))
		}
		require.Equal(t, want, got)
		end := peek(at+uintptr(len(want))*unsafe.Sizeof(at), int(unsafe.Sizeof(at)))
		require.Equal(t, make([]byte, unsafe.Sizeof(at)), end, "no null pointer at the end")
	}
}

// TestNothingOverlaps: what is allocated later does not change what was allocated before.
func TestNothingOverlaps(t *testing.T) {
	var m Memory
	defer m.Free()
	type piece struct {
		at uintptr
		n  int
	}
	var all []piece
	for i := range 5000 {
		n := 1 + i*i%2500
		at := m.Zero(n)
		b := peek(at, n)
		for k := range b {
			b[k] = byte(i)
		}
		all = append(all, piece{at, n})
	}
	for i, p := range all {
		require.Equal(t, bytes.Repeat([]byte{byte(i)}, p.n), peek(p.at, p.n), "piece %d", i)
	}
}

// TestGarbageCollector: addresses stay valid while the collector runs all the time and others allocate.
func TestGarbageCollector(t *testing.T) {
	var over atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var keep [64][]byte
			for i := 0; !over.Load(); i++ {
				keep[i%64] = bytes.Repeat([]byte{0xee}, 16+i%8000)
				if i%100 == 0 {
					runtime.GC()
				}
			}
		}()
	}
	for range 100 {
		var m Memory
		var strs, bufs []uintptr
		for i := range 200 {
			s := strings.Repeat("s", i*7%1300)
			strs = append(strs, m.String(s))
			b := bytes.Repeat([]byte{byte(i)}, 1+i*11%3000)
			bufs = append(bufs, m.Bytes(b))
		}
		runtime.Gosched()
		for i := range 200 {
			require.Equal(t, i*7%1300, len(text(strs[i])))
			n := 1 + i*11%3000
			require.Equal(t, bytes.Repeat([]byte{byte(i)}, n), peek(bufs[i], n))
		}
		m.Free()
	}
	over.Store(true)
	wg.Wait()
}

// TestFree: a memory that was freed leaves nothing pinned; the runtime would end the program.
func TestFree(t *testing.T) {
	for range 100 {
		m := new(Memory)
		m.Strings([]string{"a", "b"})
		m.Zero(10000)
		m.Pin(new([100]int))
		m.Free()
		m.Free()
	}
	for range 3 {
		runtime.GC()
	}
}

// TestUsedAgain: a memory that was freed gives zeros, and what it gives is pinned, as if it were new.
func TestUsedAgain(t *testing.T) {
	var m Memory
	for round := range 50 {
		for i := range 1 + round*3%40 {
			n := 1 + i*37%1500
			at := m.Zero(n)
			require.Equal(t, make([]byte, n), peek(at, n), "round %d", round)
			copy(peek(at, n), bytes.Repeat([]byte{0xff}, n))
		}
		at := m.String("text")
		runtime.GC()
		require.Equal(t, "text", text(at))
		m.Free()
	}
}

// TestBlock: what a memory was filled with stays, and any number of others point into it, also when some of them are freed.
func TestBlock(t *testing.T) {
	var m Memory
	large := bytes.Repeat([]byte("x"), 9000)
	at := []uintptr{m.String("one"), m.Bytes(append(large, 0)), m.String("two")}
	b := m.Block()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var m Memory
			for range 50 {
				m.Use(b)
				m.String("other")
				runtime.GC()
				if text(at[0])+text(at[2]) != "onetwo" || text(at[1]) != string(large) {
					t.Error("it has changed")
				}
				m.Free()
			}
		})
	}
	wg.Wait()
	m.String("new")
	require.Equal(t, "one", text(at[0]))
	m.Free()
}
