//go:build linux

// Package batch sends several requests to the kernel in one call (netlink(7)). The kernel performs them one after the other before the call returns, so the answers are there at once; it is asked to
// confirm the last one only, and says by itself what has gone wrong with the others.
package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Request is one request: a type of message with its flags (NLM_F_REQUEST is understood), and what comes after the header.
type Request struct {
	Type, Flags uint16
	Body        []byte
}

// Error says which request the kernel has refused.
type Error struct {
	Index int
	Err   syscall.Errno
}

// Error gives both.
func (e *Error) Error() string { return fmt.Sprintf("request %d: %v", e.Index+1, e.Err) }

// Unwrap gives Err.
func (e *Error) Unwrap() error { return e.Err }

// Conn is a socket. It speaks to the network namespace in which it was opened, from any thread.
type Conn struct {
	mu      sync.Mutex
	fd      int
	number  uint32
	out, in []byte
}

// bufferSize has room for what the kernel says of one device with all that there can be.
const bufferSize = 64 << 10

// Open opens a socket of a protocol: NETLINK_ROUTE, NETLINK_NETFILTER.
func Open(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	return &Conn{fd: fd}, nil
}

// Close closes it, also twice.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// Do sends the requests, and gives the answer to each that has one, without its header. The error is of the first that was refused, an [*Error]: of requests about devices, those after it have been
// performed all the same where they could be; of a transaction of nf_tables nothing has.
func (c *Conn) Do(list ...Request) (answers [][]byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil, os.ErrClosed
	}
	if len(list) == 0 {
		return nil, nil
	}
	first := c.number + 1
	if first+uint32(len(list)) < first { // numbers begin anew: 0 is for what the kernel sends unasked
		first = 1
	}
	c.number = first + uint32(len(list)) - 1
	last := confirmed(list)
	c.out = c.out[:0]
	for i, r := range list {
		if i == last {
			r.Flags |= unix.NLM_F_ACK
		}
		c.out = r.append(c.out, first+uint32(i))
	}
	if err := c.send(); err != nil {
		return nil, err
	}
	return c.receive(first, len(list), last)
}

// confirmed is the request whose confirmation says that all have been performed. The end of a transaction is confirmed by newer kernels only (Linux 6.10).
func confirmed(list []Request) int {
	last := len(list) - 1
	if list[last].Type == unix.NFNL_MSG_BATCH_END && last > 0 {
		last--
	}
	return last
}

func (r Request) append(b []byte, number uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+len(r.Body)))
	b = binary.NativeEndian.AppendUint16(b, r.Type)
	b = binary.NativeEndian.AppendUint16(b, r.Flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, number)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return pad(append(b, r.Body...))
}

func (c *Conn) send() error {
	for {
		err := unix.Sendto(c.fd, c.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return os.NewSyscallError("sendto", err)
		}
	}
}

// receive reads until the last request is confirmed. It never waits: what is not there has been lost.
func (c *Conn) receive(first uint32, n, last int) (answers [][]byte, err error) {
	if c.in == nil {
		c.in = make([]byte, bufferSize)
	}
	answers = make([][]byte, n)
	for {
		size, from, e := unix.Recvfrom(c.fd, c.in, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if e == unix.EINTR {
			continue
		}
		if err != nil && e == unix.EAGAIN { // a transaction that was refused as a whole
			return nil, err
		}
		if e != nil || size > len(c.in) {
			return nil, errors.Join(err, lost(e))
		}
		if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 { // another process can send, too
			continue
		}
		done, e := read(c.in[:size], first, answers, last)
		if err == nil {
			err = e
		}
		if done {
			return answers, err
		}
	}
}

// lost is the error of an answer that is not there, or not whole.
func lost(err error) error {
	if err == nil || err == unix.EAGAIN {
		err = unix.EIO
	}
	return os.NewSyscallError("recvfrom", err)
}

// read takes one datagram apart. done: the last request is confirmed.
func read(b []byte, first uint32, answers [][]byte, last int) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, unix.EIO
		}
		kind, number := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		body := b[unix.NLMSG_HDRLEN:size]
		b = b[min(len(b), (size+3)&^3):]
		i := int(int32(number - first))
		switch {
		case i < 0 || i >= len(answers): // of a request before
		case kind != unix.NLMSG_ERROR:
			answers[i] = append([]byte(nil), body...)
		case len(body) < 4:
			return false, unix.EIO
		default:
			if code := int32(binary.NativeEndian.Uint32(body)); code != 0 && err == nil {
				err = &Error{i, syscall.Errno(-code)}
			}
			done = done || i == last
		}
	}
	return done, err
}
