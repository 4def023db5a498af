//go:build linux

package notify

import (
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// descriptor is one that may be closed while calls on it are under way: it stays open until the last of them is over. It is what
// os.File does, without a closure for each call.
type descriptor struct {
	file *os.File
	fd   uintptr
	uses atomic.Int64 // calls under way, and descriptorClosed
}

const descriptorClosed = 1 << 32

func newDescriptor(f *os.File) *descriptor { return &descriptor{file: f, fd: f.Fd()} }

// hold keeps the descriptor open until release; false: it is closed.
func (d *descriptor) hold() bool {
	if d.uses.Add(1)&descriptorClosed == 0 {
		return true
	}
	d.release()
	return false
}

func (d *descriptor) release() {
	if d.uses.Add(-1) == descriptorClosed {
		d.file.Close() // a second time at most, when hold came too late
	}
}

// close is called once.
func (d *descriptor) close() {
	d.uses.Add(1)
	d.uses.Add(descriptorClosed)
	d.release()
}

func (d *descriptor) ioctl(request uintptr, arg unsafe.Pointer) (int, error) {
	if !d.hold() {
		return 0, os.ErrClosed
	}
	defer d.release()
	for {
		r, _, e := unix.Syscall(unix.SYS_IOCTL, d.fd, request, uintptr(arg))
		if e == 0 {
			return int(r), nil
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}
