//go:build linux

package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// settle waits until a device works on which the other end of its cable has just been set up: the kernel notices that somewhat later, and until then drops what is to be sent. It
// then seems to take a second to find a neighbour. Since Linux 6.8 the kernel does the work as it is asked.
func settle(s speaker, name string) error { return settleWithin(s, name, patience) }

func settleWithin(s speaker, name string, most time.Duration) error {
	return until(most, "wait for "+name, func() (bool, error) {
		link, err := s.look(name)
		return err == nil && link.works, err
	})
}

// reachable waits until the kernel listens to who looks for the address. It does not look for duplicates, but joins the group of the address's neighbours in the background all the same; the
// local route comes last.
func reachable(s speaker, device string, all []netip.Prefix) error {
	for _, a := range all {
		if !a.Addr().Is6() || a.Addr().IsLinkLocalUnicast() {
			continue
		}
		err := until(patience, "wait for "+a.String(), func() (bool, error) {
			answers, err := s.do(device, whereTo(a.Addr()))
			if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
				return false, nil
			}
			return err == nil && isLocal(answers[0]), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// until asks again and again, at longer and longer intervals.
func until(most time.Duration, what string, done func() (bool, error)) error {
	pause := 20 * time.Microsecond
	for begin := time.Now(); ; pause = min(2*pause, 5*time.Millisecond) {
		ok, err := done()
		switch {
		case err != nil:
			return failed(err, what, "")
		case ok:
			return nil
		case time.Since(begin) > most:
			return failed(syscall.ETIMEDOUT, what, "")
		}
		time.Sleep(pause)
	}
}

const patience = 5 * time.Second

// retried asks again while the answer may be incomplete because something has changed meanwhile. On a host where devices come and go all the time the last answer is an error.
func retried[T any](dump func() (T, error)) (v T, err error) {
	for range 32 {
		if v, err = dump(); err != netlink.ErrDumpInterrupted {
			return v, err
		}
	}
	return v, fmt.Errorf("%w: %w", err, syscall.EAGAIN)
}
