//go:build linux

package layer

import (
	"os"
	"runtime"
	"sync"
)

const (
	buffers = 64 // of blockSize, that wait to be written or are filled: 8 MiB
	slots   = 4096
)

// crew writes files while the archive is read on. Most of the time that a small file takes is the kernel's, and the kernel has
// several processors.
type crew struct {
	do      func(*job) error
	jobs    chan *job
	free    chan []byte
	workers sync.WaitGroup

	mu      sync.Mutex
	done    sync.Cond
	pending [slots]int32 // jobs under way at the places whose keys share the slot
	all     int          // jobs under way
	waiting bool
	err     error
	entry   string // of err
}

// job is a file to be written.
type job struct {
	dir   *node // pinned by refs
	fd    int   // of dir
	name  string
	entry string
	key   uint64
	meta  *meta
	size  int64
	from  *os.File // where the contents are to be read, at; nil: they come in data and more
	at    int64
	data  []byte       // the first block
	put   func([]byte) // gives a block of more back
	more  chan []byte  // those that follow; closed early when the archive ends too early. Nil: there are none
}

func newCrew(do func(*job) error) *crew {
	c := &crew{do: do, jobs: make(chan *job, buffers), free: make(chan []byte, buffers)}
	c.done.L = &c.mu
	for range buffers {
		c.free <- nil
	}
	for range min(max(2, runtime.GOMAXPROCS(0)), 8) {
		c.workers.Go(c.work)
	}
	return c
}

// buffer gives a block to be filled. Those that are handed out come back when they are written.
func (c *crew) buffer() []byte {
	b := <-c.free
	if b == nil {
		b = make([]byte, blockSize)
	}
	return b[:blockSize]
}

func (c *crew) release(b []byte) { c.free <- b }

// start hands a job to a worker.
func (c *crew) start(j *job) {
	j.put = c.release
	j.dir.refs.Add(1)
	c.mu.Lock()
	c.pending[j.key%slots]++
	c.all++
	c.mu.Unlock()
	c.jobs <- j
}

// ready waits until no job is under way at a place.
func (c *crew) ready(key uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.pending[key%slots] > 0 {
		c.waiting = true
		c.done.Wait()
	}
}

// drain waits until no job is under way anywhere.
func (c *crew) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.all > 0 {
		c.waiting = true
		c.done.Wait()
	}
}

func (c *crew) work() {
	for j := range c.jobs {
		err := c.failure()
		if err == nil {
			err = c.do(j)
		}
		c.finish(j, err)
	}
}

func (c *crew) finish(j *job, err error) {
	if j.data != nil {
		c.release(j.data)
	}
	if j.more != nil {
		for b := range j.more {
			c.release(b)
		}
	}
	j.dir.refs.Add(-1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[j.key%slots]--
	c.all--
	if c.waiting {
		c.waiting = false
		c.done.Broadcast()
	}
	if err != nil && c.err == nil {
		c.err, c.entry = err, j.entry
	}
}

// failure gives the first error of a worker.
func (c *crew) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return fail("apply", c.entry, c.err)
}

// close waits for all, and gives the first error.
func (c *crew) close() error {
	close(c.jobs)
	c.workers.Wait()
	return c.failure()
}
