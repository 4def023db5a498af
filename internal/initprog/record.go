//go:build linux

package initprog

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

// Kind says what a [Record] reports. The zero value is no valid kind.
type Kind int32

const (
	// Executed: the command runs. Value is its pid in init's PID namespace.
	Executed Kind = 1
	// Failed: no candidate could be executed. Value is the errno, or that of
	// clone(2). Init exits with 127.
	Failed Kind = 2
	// Ended: the command ended. Value is the raw status of wait4(2), which a
	// syscall.WaitStatus can be made of.
	Ended Kind = 3
)

// String returns the kind's name, or its number in parentheses.
func (k Kind) String() string {
	switch k {
	case Executed:
		return "executed"
	case Failed:
		return "failed"
	case Ended:
		return "ended"
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// Record is one message of the program: 8 bytes in the machine's byte order, first
// Kind, then Value. The zero value is no valid record.
type Record struct {
	Kind  Kind
	Value int32
}

// maxErrno is the kernel's MAX_ERRNO.
const maxErrno = 4095

// RecordSize is how many bytes a record has.
const RecordSize = 8

// ReadRecord reads one record. At the end of the stream it returns io.EOF, within
// a record io.ErrUnexpectedEOF, and any other error of r as it is. An unknown kind,
// or a value that cannot be of its kind (a pid or errno below 1, an errno above
// 4095, a status of a process that has not ended) is an [*Error] that wraps EINVAL:
// the writer is not the program, and nothing after it should be read.
func ReadRecord(r io.Reader) (Record, error) {
	var b [RecordSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Record{}, err
	}
	rec := Record{
		Kind:  Kind(binary.NativeEndian.Uint32(b[:4])),
		Value: int32(binary.NativeEndian.Uint32(b[4:])),
	}
	if !rec.valid() {
		return Record{}, &Error{"record", fmt.Errorf("%v with value %d: %w", rec.Kind, rec.Value, unix.EINVAL)}
	}
	return rec, nil
}

func (r Record) valid() bool {
	switch r.Kind {
	case Executed:
		return r.Value > 0
	case Failed:
		return 0 < r.Value && r.Value <= maxErrno
	case Ended:
		return ended(r.Value)
	}
	return false
}

// ended tells whether a wait status is one of a process that has ended: an exit
// code in the second byte, or a signal and the core dump flag in the first.
func ended(status int32) bool {
	const lastSignal = 64
	if status&0xff == 0 {
		return status&^0xff00 == 0
	}
	sig := status & 0x7f
	return status&^0xff == 0 && 0 < sig && sig <= lastSignal
}
