//go:build linux

package netstack

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Tap is a device whose cable is a descriptor: who holds it reads what is sent and writes what is received, frame by frame (/dev/net/tun; Linux kernel, networking/tuntap). It is how a virtual machine
// inside the sandbox, or a network stack written in Go outside, gets at the packets.
//
// Nothing is checked for the sandbox's own addresses: who holds the descriptor gets every frame as it was sent, and is the one to judge it.
//
// Needs the device /dev/net/tun, and rights over the sandbox's network namespace: CAP_SYS_ADMIN, if the caller has not made it as an ordinary user.
type Tap struct {
	// Attach gets the descriptor, non-blocking, before the program starts. It is its own to close, and the device is down as long as nobody has it open; its error ends the start. nil makes a device
	// that stays, to be opened inside by Owner (TUNSETIFF with IFF_TAP and IFF_NO_PI).
	Attach func(*os.File) error

	Owner  int  // user who may open the device besides root, by its number on the host; 0 is none
	Packet bool // IP packets instead of Ethernet frames (IFF_TUN)
	Card   Card // with a MAC of frames only
}

// Apply asks for the device.
func (t Tap) Apply(p *plan.Plan) error {
	if err := t.Card.check(); err != nil {
		return err
	}
	if t.Owner < 0 {
		return &ValueError{"Owner", strconv.Itoa(t.Owner), "not a user"}
	}
	if t.Packet && t.Card.MAC != nil {
		return &ValueError{"MAC", t.Card.MAC.String(), "a device of packets has no hardware address"}
	}
	if _, err := sessionOf(p); err != nil {
		return err
	}
	var err error
	if t.Card, err = t.Card.claim(p); err != nil {
		return err
	}
	attach(p, t.Card.Name, fmt.Sprintf("tap %q", t.Card.Name), func() device { return &tap{t} })
	return nil
}

type tap struct{ Tap }

func (t *tap) prepare(*wire) error { return nil }

func (t *tap) plug(w *wire) error {
	var f *os.File
	err := w.target.do(func() (err error) {
		f, err = t.make()
		return err
	})
	if err != nil {
		return err
	}
	if t.Attach == nil {
		defer f.Close()
	}
	if err := t.dress(w); err != nil {
		f.Close()
		return err
	}
	if t.Attach != nil {
		return t.Attach(f)
	}
	return nil
}

// make makes the device in the thread's network namespace.
func (t *tap) make() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &Error{Op: "open /dev/net/tun for", Device: t.Card.Name, Err: err, Hint: "the kernel's module tun makes it"}
	}
	f := func() error {
		r, err := unix.NewIfreq(t.Card.Name)
		if err != nil {
			return err
		}
		flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if t.Packet {
			flags = unix.IFF_TUN | unix.IFF_NO_PI
		}
		r.SetUint16(flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
			return err
		}
		if t.Owner != 0 {
			if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, t.Owner); err != nil {
				return err
			}
		}
		if t.Attach == nil {
			return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
		}
		return nil
	}
	if err := f(); err != nil {
		unix.Close(fd)
		return nil, failed(err, "create tap", t.Card.Name)
	}
	return os.NewFile(uintptr(fd), "tap "+t.Card.Name), nil
}

func (t *tap) dress(w *wire) error {
	in, err := w.inside()
	if err != nil {
		return err
	}
	link, err := find(in.Handle, t.Card.Name)
	if err != nil {
		return err
	}
	if t.Card.MAC != nil {
		if err := in.LinkSetHardwareAddr(link, t.Card.MAC); err != nil {
			return failed(err, "set address "+t.Card.MAC.String()+" of", t.Card.Name)
		}
	}
	if t.Card.MTU != 0 {
		if err := in.LinkSetMTU(link, t.Card.MTU); err != nil {
			return failed(err, fmt.Sprintf("set mtu %d of", t.Card.MTU), t.Card.Name)
		}
	}
	return t.Card.configure(in, addresses{})
}

func (t *tap) unplug(*wire) error { return nil }
