//go:build linux

package layer

import (
	"os"
	"runtime"
	"sync"
)

const (
	buffers = 64 // of blockSize, that wait to be written or are filled: 8 MiB
	queue   = 24 // batches that wait for a worker
	slots   = 1 << 16

	batchFiles = 32       // small files that are handed over at a time
	batchDirs  = 4        // directories that they are in, each of which stays open
	small      = 32 << 10 // bytes of such a file
)

// crew writes files while the archive is read on. Most of the time that a small file takes is the kernel's, and the kernel has
// several processors.
type crew struct {
	do      func(*job) error
	jobs    chan *batch
	free    chan []byte
	next    *batch // small files that have not been handed over; the reader's own
	workers sync.WaitGroup

	mu      sync.Mutex
	done    sync.Cond
	pending [slots]int32 // jobs under way at the places whose keys share the slot
	all     int          // jobs under way
	waiting bool
	err     error
	entry   string // of err
}

// batch is what one worker does in a row. To wake a worker takes as long as to write a small file, and two that make files in one directory wait
// for each other.
type batch struct {
	jobs []*job
	dirs int
	data []byte // what the jobs' data are parts of; nil: they have no data, or blocks of their own
	used int    // bytes of data
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
	data  []byte       // the first block, or all of a small file
	small bool         // data is a part of the batch's
	put   func([]byte) // gives a block of more back
	more  chan []byte  // those that follow; closed early when the archive ends too early. Nil: there are none
}

func newCrew(do func(*job) error) *crew {
	c := &crew{do: do, jobs: make(chan *batch, queue), free: make(chan []byte, buffers), next: &batch{}}
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
	var b []byte
	select {
	case b = <-c.free:
	default:
		c.flush()
		b = <-c.free
	}
	if b == nil {
		b = make([]byte, blockSize)
	}
	return b[:blockSize]
}

func (c *crew) release(b []byte) { c.free <- b }

// room gives the place for the contents of a small file, which is then started as the next one.
func (c *crew) room(size int) []byte {
	if size == 0 {
		return nil
	}
	if c.next.data != nil && c.next.used+size > blockSize {
		c.flush()
	}
	if c.next.data == nil {
		b := c.buffer() // which may hand the batch over
		c.next.data = b
	}
	return c.next.data[c.next.used:][:size:size]
}

// start takes a job on.
func (c *crew) start(j *job) {
	j.put = c.release
	j.dir.refs.Add(1)
	c.mu.Lock()
	c.pending[j.key%slots]++
	c.all++
	c.mu.Unlock()
	if !j.small {
		c.flush() // as the archive has them, and nobody waits for these longer than for a large file
		c.jobs <- &batch{jobs: []*job{j}}
		return
	}
	b := c.next
	if len(b.jobs) == 0 || b.jobs[len(b.jobs)-1].dir != j.dir {
		b.dirs++
	}
	b.jobs, b.used = append(b.jobs, j), b.used+len(j.data)
	if len(b.jobs) >= batchFiles || b.dirs >= batchDirs {
		c.flush()
	}
}

// flush hands the small files over that have been taken on.
func (c *crew) flush() {
	if len(c.next.jobs) > 0 {
		c.jobs <- c.next
		c.next = &batch{jobs: make([]*job, 0, batchFiles)}
	}
}

// ready waits until no job is under way at a place.
func (c *crew) ready(key uint64) {
	c.wait(func() bool { return c.pending[key%slots] == 0 })
}

// drain waits until no job is under way anywhere.
func (c *crew) drain() {
	c.wait(func() bool { return c.all == 0 })
}

func (c *crew) wait(over func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if over() {
		return
	}
	c.mu.Unlock()
	c.flush()
	c.mu.Lock()
	for !over() {
		c.waiting = true
		c.done.Wait()
	}
}

func (c *crew) work() {
	for b := range c.jobs {
		for _, j := range b.jobs {
			err := c.failure()
			if err == nil {
				err = c.do(j)
			}
			c.finish(j, err)
		}
		if b.data != nil {
			c.release(b.data)
		}
	}
}

func (c *crew) finish(j *job, err error) {
	if j.data != nil && !j.small {
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
	c.flush()
	close(c.jobs)
	c.workers.Wait()
	return c.failure()
}
