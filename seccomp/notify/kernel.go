//go:build linux

package notify

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification is struct seccomp_notif: a call that waits for an answer (seccomp_unotify(2)).
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	data  data
}

// data is struct seccomp_data, seccomp(2).
type data struct {
	nr   int32
	arch uint32
	ip   uint64
	args [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	err   int32
	flags uint32
}

// addition is struct seccomp_notif_addfd.
type addition struct {
	id       uint64
	flags    uint32
	source   uint32
	at       uint32
	newFlags uint32
}

// sizes are those of the kernel's own structures, which may be larger than ours: it writes and reads all of them.
func sizes() (notif, resp int, err error) {
	var s struct{ notif, resp, data uint16 }
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&s)))
	if e != 0 {
		return 0, 0, &Error{Op: "seccomp(SECCOMP_GET_NOTIF_SIZES)", Err: e, Hint: hintFor(e, syscall.EINVAL, "user notification needs Linux 5.0")}
	}
	return max(int(s.notif), int(unsafe.Sizeof(notification{}))), max(int(s.resp), int(unsafe.Sizeof(response{}))), nil
}

func hintFor(err error, e syscall.Errno, hint string) string {
	if err == e {
		return hint
	}
	return ""
}

// ignoringEINTR repeats a call that a signal has interrupted: the Go runtime sends itself some.
func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}
