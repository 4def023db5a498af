//go:build linux

package notify

import (
	"bytes"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Read reads the target's memory at the address into b: all of b, or an error. A bad address is EFAULT. Needs the right to trace the
// target, as [Request.File] does (process_vm_readv(2)).
func (r *Request) Read(b []byte, address uint64) error {
	n, err := r.read(b, address)
	if err == nil && n < len(b) {
		err = fail(syscall.EFAULT, "read %d bytes at %#x of %d", len(b), address, r.PID)
	}
	return err
}

// read reads as much as there is, at least one byte of a b that is not empty.
func (r *Request) read(b []byte, address uint64) (int, error) {
	if len(b) == 0 {
		return 0, r.Valid()
	}
	n, err := vmRead(r.PID, b, address)
	if gone := r.Valid(); gone != nil {
		clear(b) // it may be another process's
		return 0, gone
	}
	if err != nil {
		return 0, &Error{Op: fail(err, "read %d bytes at %#x of %d", len(b), address, r.PID).(*Error).Op, Err: err,
			Hint: hintFor(err, syscall.EPERM, notTraced)}
	}
	return n, nil
}

func vmRead(pid int, b []byte, address uint64) (int, error) {
	if uint64(uintptr(address)) != address || address+uint64(len(b)) < address {
		return 0, syscall.EFAULT
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	remote := []unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}
	return ignoringEINTR(func() (int, error) { return unix.ProcessVMReadv(pid, local, remote, 0) })
}

// Text reads a string that ends with a NUL byte, which may be at most max bytes before it. A longer one is
// ENAMETOOLONG, as the kernel has it for paths, whose max is 4095 (PATH_MAX).
func (r *Request) Text(address uint64, max int) (string, error) {
	return readText(r.read, address, max)
}

// readText reads page by page: behind the end of the string there may be no memory.
func readText(read func([]byte, uint64) (int, error), address uint64, max int) (string, error) {
	page := uint64(os.Getpagesize())
	var text []byte
	for len(text) <= max {
		at := address + uint64(len(text))
		if at < address {
			break
		}
		b := make([]byte, min(page-at%page, uint64(max+1-len(text)), chunk))
		n, err := read(b, at)
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(b[:n], 0); end >= 0 {
			return string(append(text, b[:end]...)), nil
		}
		text = append(text, b[:n]...)
	}
	return "", fail(syscall.ENAMETOOLONG, "read a string of at most %d bytes at %#x", max, address)
}

const chunk = 512 // bytes: most strings are shorter
