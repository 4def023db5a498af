//go:build linux

package namespaces

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Target is what [Do] can run a function in: a [Set] of new namespaces, a [Join], a [*Namespace], or [Namespaces].
type Target interface{ entry() (entry, error) }

// entry is the way into namespaces for one thread.
type entry struct {
	fresh  Set
	joined Namespaces
}

// Do calls fn in namespaces, and returns its error. It runs on a thread of its own, which enters the namespaces and is
// thrown away afterwards: the rest of the program stays where it is. Commands that fn starts with os/exec run inside.
// Goroutines that fn starts do not; it must not call runtime.UnlockOSThread, which is an error if it is noticed.
//
// New pid and joined pid namespaces are entered by the commands that fn starts, not by fn itself; the first command in a
// new one is its process 1, and when it ends no further one can be started. In a new mount namespace all mounts are
// private.
//
// User and time namespaces cannot be entered by a thread of a program that has others: an [*Error] with
// errors.ErrUnsupported. A namespace in which the caller is already is passed over. A panic of fn goes on in the
// caller, and so does runtime.Goexit.
//
// It needs CAP_SYS_ADMIN, and to join, what [Join] needs. First kernel: 3.8.
func Do(where Target, fn func() error) error {
	e, err := where.entry()
	if err != nil {
		return err
	}
	defer e.joined.Close()
	if bad := (e.fresh | e.joined.Kinds()) & (User | Time); bad != 0 {
		return unsupported("do in "+bad.String(), "a program with several threads cannot enter a user or a time namespace")
	}
	return onThread(func() error {
		if err := e.enter(); err != nil {
			return err
		}
		return guarded(fn)
	})
}

// guarded calls fn and checks that it has stayed on its thread. Had it not, the thread, which is in other namespaces,
// would have gone back to the runtime, and the program would be in two places.
func guarded(fn func() error) error {
	before := unix.Gettid()
	err := fn()
	runtime.LockOSThread() // in case fn has unlocked it
	if after := unix.Gettid(); after != before {
		return invalid("do", fmt.Sprintf("the function has unlocked its thread, which stays in other namespaces: it began on %d and ended on %d", before, after))
	}
	return err
}

// onThread calls fn on a thread that ends with it.
func onThread(fn func() error) error {
	r := make(chan outcome)
	go runLocked(fn, r)
	o := <-r
	switch {
	case o.panicked:
		panic(o.value)
	case !o.returned:
		runtime.Goexit()
	}
	return o.err
}

// outcome is how a function ended: it returned, panicked, or neither, by runtime.Goexit.
type outcome struct {
	returned, panicked bool
	value              any
	err                error
}

// runLocked calls fn and ends the thread: the runtime does so when a goroutine ends that is locked to it. The first
// thread of the process would stay, and with it what /proc/self shows; it waits while another thread serves.
func runLocked(fn func() error, r chan<- outcome) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		inner := make(chan outcome)
		go runLocked(fn, inner)
		o := <-inner
		runtime.UnlockOSThread()
		r <- o
		return
	}
	var o outcome
	defer func() {
		if !o.returned {
			o.value = recover()
			o.panicked = o.value != nil
		}
		r <- o
	}()
	o.err = fn()
	o.returned = true
}

// enter takes the calling thread into the namespaces.
func (e entry) enter() error {
	if (e.fresh | e.joined.Kinds()).Has(Mount) { // threads share root and working directory, which a mount namespace has its own of
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fail(err, "unshare(CLONE_FS)")
		}
	}
	for _, n := range e.joined {
		if err := unix.Setns(int(n.file.Fd()), int(n.kind)); err != nil {
			return &Error{Op: fmt.Sprintf("setns(%v)", n), Err: err, Hint: hintFor(err, syscall.EPERM, "needs CAP_SYS_ADMIN")}
		}
	}
	return makeFresh(e.fresh)
}

func makeFresh(fresh Set) error {
	if fresh == 0 {
		return nil
	}
	if err := unix.Unshare(int(fresh)); err != nil {
		return &Error{Op: fmt.Sprintf("unshare(%v)", fresh), Err: err, Hint: hintFor(err, syscall.EPERM, "needs CAP_SYS_ADMIN")}
	}
	if !fresh.Has(Mount) {
		return nil
	}
	return fail(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), "make all mounts private")
}

func hintFor(err error, e syscall.Errno, hint string) string {
	if err == e {
		return hint
	}
	return ""
}

func (s Set) entry() (entry, error) { return entry{fresh: s}, s.check() }

func (n *Namespace) entry() (entry, error) { return Namespaces{n}.entry() }

func (all Namespaces) entry() (e entry, err error) {
	for _, n := range all {
		if err := e.join(n); err != nil {
			e.joined.Close()
			return entry{}, err
		}
	}
	return e, nil
}

// join adds a copy of n, unless the calling thread is there.
func (e *entry) join(n *Namespace) error {
	if isOurs(n.kind, n.id) {
		return nil
	}
	c, err := OfFile(n.file)
	if err == nil {
		e.joined = append(e.joined, c)
	}
	return err
}

func (j Join) entry() (entry, error) {
	if err := j.check(); err != nil {
		return entry{}, err
	}
	_, kinds, err := j.resolve()
	if err != nil {
		return entry{}, err
	}
	var e entry
	for k := range kinds.Each() {
		f, err := j.open(k)
		if err != nil {
			e.joined.Close()
			return entry{}, err
		}
		n, err := own(f)
		if err != nil {
			e.joined.Close()
			return entry{}, err
		}
		e.joined = append(e.joined, n)
	}
	return e, nil
}

func (j Join) open(k Set) (*os.File, error) {
	if j.process() {
		return j.openOne(k)(nil)
	}
	return j.openFile(k)(nil)
}
