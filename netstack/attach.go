//go:build linux

package netstack

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
	"github.com/caisson-dev/caisson/plan"
)

// StateDir is where what must survive a crash is kept, if not said otherwise: who has made which device, and who has which address.
const StateDir = "/run/caisson/net"

// device is one device in one start of a sandbox.
type device interface {
	// prepare does on the host what the sandbox's network namespace is not needed for. It may be called again.
	prepare(w *wire) error
	// plug makes the device appear in the namespace, ready for use.
	plug(w *wire) error
	// unplug takes away what is left on the host. It is called after any of the two, whole or not, and may be called again.
	unplug(w *wire) error
}

// wire is what the devices of one start have in common.
type wire struct {
	host   speaker      // speaks to the caller's network namespace
	owner  *owner.Owner // nil where nothing is made on the host's side
	net    *os.File     // the caller's network namespace
	target target

	bridged bool // the sandbox has cards on bridges, and no others

	mu     sync.Mutex
	in     *speaker
	tidied func() // waits for the thread that has been in the sandbox's network namespace
	shared bool   // host is the owner's
}

// inside speaks to the sandbox's network namespace.
func (w *wire) inside() (speaker, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.in != nil {
		return *w.in, nil
	}
	first := believeNobody
	if w.bridged {
		first = sayOnce
	}
	s, tidied, err := w.target.speak(first)
	if err == nil {
		w.in, w.tidied = &s, tidied
	}
	return s, err
}

// home opens the host's network namespace. It is known from the start on, which has been on a thread that was there.
func (w *wire) home() (*os.File, error) { return duplicate(w.net) }

// leave closes what speaks to the sandbox's network namespace.
func (w *wire) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.in != nil {
		w.in.Close()
		w.tidied()
		w.in = nil
	}
}

// disconnect closes what is needed during the start only.
func (w *wire) disconnect() {
	w.leave()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.shared && w.host.Handle != nil {
		w.host.Close()
		w.host = speaker{}
	}
	if !w.shared && w.net != nil {
		w.net.Close()
		w.net = nil
	}
}

// session is what the network parts of one plan have in common.
type session struct {
	state          string // "" until some part makes devices on the host's side
	devices, ports int    // how many of the devices are on bridges
}

type (
	sessionKey struct{}
	wireKey    struct{}
)

// sessionOf begins the plan's first network device: the namespace is made, loopback is set up, and each start gets its wire.
func sessionOf(p *plan.Plan) (*session, error) {
	if s, ok := p.Value(sessionKey{}).(*session); ok {
		return s, nil
	}
	if p.Has(networkClaim) {
		return nil, p.Claim(networkClaim)
	}
	s := &session{}
	p.Set(sessionKey{}, s)
	p.Clone(unix.CLONE_NEWNET)
	p.Late(func() error { return loopback(p) })
	p.Before(plan.Action{Name: "open netlink", Do: s.open, Undo: s.close})
	p.After(plan.Action{Name: "close netlink", Do: func(r *plan.Run) error {
		wireOf(r).disconnect()
		return nil
	}})
	return s, nil
}

// owns says that the plan makes devices on the host's side, and where is written down whose they are.
func (s *session) owns(state string) error {
	state = cmp.Or(state, StateDir)
	if state[0] != '/' {
		return &ValueError{"State", state, "not an absolute path"}
	}
	if s.state != "" && s.state != state {
		return &ValueError{"State", state, "another part of the sandbox says " + s.state}
	}
	s.state = state
	return nil
}

func wireOf(r *plan.Run) *wire {
	w, _ := r.Value(wireKey{}).(*wire)
	return w
}

// open runs on the thread that starts the sandbox, and so in the network namespace which is the host's for it.
func (s *session) open(r *plan.Run) (err error) {
	w := &wire{bridged: s.ports == s.devices}
	defer func() {
		if err != nil {
			err = errors.Join(failed(err, "open netlink", ""), w.close())
		}
	}()
	r.Set(wireKey{}, w)
	if s.state == "" {
		if w.net, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		w.host, err = newSpeaker()
		return err
	}
	if w.owner, err = owner.Enter(s.state); err != nil {
		return err
	}
	w.host, w.net, w.shared = speakerOf(w.owner), w.owner.Net, true
	return sweep(w.owner)
}

func (s *session) close(r *plan.Run) error { return wireOf(r).close() }

func (w *wire) close() error {
	w.disconnect()
	if w.owner != nil {
		return w.owner.Leave()
	}
	return nil
}

// attach records a device in the plan. The card is its name inside, the text what is printed of it; fresh makes the device of one start.
func attach(p *plan.Plan, card, text string, fresh func() device) {
	if s, ok := p.Value(sessionKey{}).(*session); ok {
		s.devices++
	}
	key := new(int)
	of := func(r *plan.Run) device {
		d, _ := r.Value(key).(device)
		return d
	}
	p.Before(plan.Action{Name: "keep account of " + strconv.Quote(card), Undo: func(r *plan.Run) error { return of(r).unplug(wireOf(r)) }, Do: func(r *plan.Run) error {
		r.Set(key, fresh())
		return nil
	}})
	p.While(plan.Action{Name: text,
		Ready: func(r *plan.Run) error { return of(r).prepare(wireOf(r)) },
		Do: func(r *plan.Run) error {
			w := wireOf(r)
			if w.target.ns == nil {
				w.target.pid = r.PID
			}
			return of(r).plug(w)
		},
		Undo: func(r *plan.Run) error { // a start may be tried again with another child
			w := wireOf(r)
			w.leave()
			return of(r).unplug(w)
		}})
}

// What the parts of this package claim.
const (
	networkClaim  = "network"
	loopbackClaim = "loopback interface"
)

// loopback sets up the loopback interface, unless some part has seen to that: the child does it itself while the parent acts. It needs no privilege but that which a
// user namespace gives, and no ids.
func loopback(p *plan.Plan) error {
	if p.Has(loopbackClaim) {
		return nil
	}
	if err := p.Claim(loopbackClaim); err != nil {
		return err
	}
	request := make([]byte, 40) // struct ifreq, netdevice(7)
	copy(request, "lo")
	binary.NativeEndian.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_UP)
	s := p.Slot()
	p.Child(plan.Sources,
		plan.Call("socket", unix.SYS_SOCKET, plan.Number(unix.AF_UNIX, "AF_UNIX"), plan.Number(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, "SOCK_DGRAM|SOCK_CLOEXEC"), plan.Int(0)).Save(s).Early(),
		plan.Call("ioctl", unix.SYS_IOCTL, plan.Saved(s), plan.Number(unix.SIOCSIFFLAGS, "SIOCSIFFLAGS"), plan.Bytes(`{"lo", IFF_UP}`, request)).
			Hint(syscall.EPERM, "the network namespace belongs to a user namespace in which the sandbox has no rights").Early())
	return nil
}

// only is for parts that are the sandbox's whole network.
func only(p *plan.Plan) error {
	if _, busy := p.Value(sessionKey{}).(*session); busy {
		return &Error{Op: "set the network", Err: fmt.Errorf("another part gives the sandbox devices: %w", syscall.EINVAL)}
	}
	return p.Claim(networkClaim)
}
