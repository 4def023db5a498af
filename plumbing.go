//go:build linux

package caisson

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// plumbing connects the command's standard descriptors with the caller's readers and writers.
type plumbing struct {
	child  []*os.File // ends that the command has; closed when it has been started
	parent []*os.File // ends that we have; closed when Wait returns
	copies []func() error

	nullOut *os.File // one of child

	done chan struct{} // closed when all copies have ended
	mu   sync.Mutex
	err  error // the first one of a copy
}

// files gives the descriptors 0, 1 and 2.
func (p *plumbing) files(stdin io.Reader, stdout, stderr io.Writer) (f []*os.File, err error) {
	f = make([]*os.File, 3)
	if f[0], err = p.reader(stdin); err != nil {
		return nil, err
	}
	if f[1], err = p.writer(stdout); err != nil {
		return nil, err
	}
	if stderr != nil && same(stderr, stdout) {
		f[2] = f[1]
		return f, nil
	}
	f[2], err = p.writer(stderr)
	return f, err
}

// same compares two writers; such as cannot be compared are different.
func same(a, b io.Writer) bool {
	t := reflect.TypeOf(a)
	return t == reflect.TypeOf(b) && t.Comparable() && reflect.ValueOf(a).Comparable() && a == b
}

// null opens /dev/null, for both outputs once. It does without os.OpenFile, which would offer the file to the runtime's poller.
func (p *plumbing) null(flag int) (*os.File, error) {
	if flag == os.O_WRONLY && p.nullOut != nil {
		return p.nullOut, nil
	}
	fd, err := unix.Open(os.DevNull, flag|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	f := os.NewFile(uintptr(fd), os.DevNull)
	p.child = append(p.child, f)
	if flag == os.O_WRONLY {
		p.nullOut = f
	}
	return f, nil
}

func (p *plumbing) reader(r io.Reader) (*os.File, error) {
	if r == nil {
		return p.null(os.O_RDONLY)
	}
	if f, ok := r.(*os.File); ok {
		return f, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.child, p.parent = append(p.child, pr), append(p.parent, pw)
	p.copies = append(p.copies, func() error {
		_, err := io.Copy(pw, r)
		if endedEarly(err) {
			err = nil
		}
		if e := pw.Close(); err == nil {
			err = e
		}
		return err
	})
	return pr, nil
}

// endedEarly: a command need not read all of its input.
func endedEarly(err error) bool {
	var e *fs.PathError
	return errors.As(err, &e) && e.Op == "write" && errors.Is(e.Err, syscall.EPIPE)
}

func (p *plumbing) writer(w io.Writer) (*os.File, error) {
	if w == nil {
		return p.null(os.O_WRONLY)
	}
	if f, ok := w.(*os.File); ok {
		return f, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.child, p.parent = append(p.child, pw), append(p.parent, pr)
	p.copies = append(p.copies, func() error {
		_, err := io.Copy(w, pr)
		pr.Close() // a writer that fails must not hold up the command
		return err
	})
	return pw, nil
}

// copy starts the copying.
func (p *plumbing) copy() {
	p.done = make(chan struct{})
	var wg sync.WaitGroup
	for _, f := range p.copies {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p.note(f())
		}()
	}
	if len(p.copies) == 0 {
		close(p.done)
		return
	}
	p.copies = nil
	go func() {
		wg.Wait()
		close(p.done)
	}()
}

func (p *plumbing) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// wait waits until all has been copied.
func (p *plumbing) wait() error {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// finished reports whether all has been copied.
func (p *plumbing) finished() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *plumbing) closeChildSide() {
	closeAll(p.child)
	p.child = nil
}

func (p *plumbing) closeParentSide() { closeAll(p.parent) }

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// edges keeps the first and the last n bytes that are written to it.
type edges struct {
	n          int
	head, tail []byte
	total      int64
}

func newEdges(n int) *edges { return &edges{n: n} }

func (e *edges) Write(b []byte) (int, error) {
	all := len(b)
	e.total += int64(all)
	k := min(e.n-len(e.head), len(b))
	e.head, b = append(e.head, b[:k]...), b[k:]
	e.tail = append(e.tail, b...)
	if over := len(e.tail) - e.n; over > 0 {
		e.tail = append(e.tail[:0], e.tail[over:]...)
	}
	return all, nil
}

func (e *edges) bytes() []byte {
	out := append([]byte(nil), e.head...)
	if left := e.total - int64(len(e.head)+len(e.tail)); left > 0 {
		out = fmt.Appendf(out, "\n... omitting %d bytes ...\n", left)
	}
	return append(out, e.tail...)
}
