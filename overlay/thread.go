//go:build linux

package overlay

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// place is where a thread is: threads may be in mount namespaces of their own, as in namespaces.Do, and paths mean something else there.
type place struct{ ns, root *os.File }

func (w place) close() {
	for _, f := range []*os.File{w.ns, w.root} {
		if f != nil {
			f.Close()
		}
	}
}

// here gives the place of the calling thread.
func here() (w place, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return w, &Error{Op: "open", Path: "/proc/thread-self/ns/mnt", Err: err}
	}
	w.ns = os.NewFile(uintptr(ns), "mount namespace")
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		w.close()
		return place{}, &Error{Op: "open", Path: "/", Err: err}
	}
	w.root = os.NewFile(uintptr(root), "/")
	return w, nil
}

// enter takes a thread that shares its root with no other there. A thread of the same program is there most often.
func (w place) enter() error {
	now, err := here()
	if err != nil {
		return err
	}
	defer now.close()
	if !same(w.ns, now.ns) {
		if err := unix.Setns(int(w.ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return &Error{Op: "enter the caller's mount namespace", Err: err}
		}
		now.close()
		if now, err = here(); err != nil {
			return err
		}
		defer now.close()
	}
	if same(w.root, now.root) {
		return nil
	}
	if err := errors.Join(unix.Fchdir(int(w.root.Fd())), unix.Chroot(".")); err != nil {
		return &Error{Op: "enter the caller's root", Err: err}
	}
	return nil
}

// same reports whether two files are one, on one mount.
func same(a, b *os.File) bool {
	var x, y unix.Statx_t
	const what = unix.STATX_INO | unix.STATX_MNT_ID
	if unix.Statx(int(a.Fd()), "", unix.AT_EMPTY_PATH, what, &x) != nil || unix.Statx(int(b.Fd()), "", unix.AT_EMPTY_PATH, what, &y) != nil {
		return false
	}
	return x.Ino == y.Ino && x.Dev_major == y.Dev_major && x.Dev_minor == y.Dev_minor && x.Mnt_id == y.Mnt_id
}

// onThread calls f on a thread that ends with it: the runtime ends a thread when a goroutine ends that is locked to it. The first thread of
// the process would stay, and with it what /proc/self shows; it waits while another one serves.
func onThread(done chan<- struct{}, f func()) {
	defer close(done)
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	inner := make(chan struct{})
	go onThread(inner, f)
	<-inner
	runtime.UnlockOSThread()
}
