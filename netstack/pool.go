//go:build linux

package netstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
	"github.com/caisson-dev/caisson/plan"
)

// Pool is a stock of networks that are ready: namespaces with all their devices, addresses and rules. As a part of a sandbox it gives each start one of them, which pays for entering it only, and makes the
// next one meanwhile. Where the stock is empty, the start makes its own. A network is used once, and gone with its sandbox.
//
// The namespaces belong to the user namespace of the caller, not to that of a sandbox with a user namespace of its own: root of such a sandbox cannot change its network, nor mount a /sys of its own. Which
// program may open ports below 1024, or send pings, is then for [Pool]'s networks to say: net.ipv4.ip_unprivileged_port_start is 0 in them, as in Docker's.
//
// [NewPool] makes it, and it must be closed.
type Pool struct {
	size  int
	parts []plan.Primitive
	home  *os.File // the host's network

	mu     sync.Mutex
	closed bool
	ready  []*network
	making int
	idle   *sync.Cond
	failed error // of the last that could not be made in the background
}

// network is a network without a process.
type network struct {
	ns   *os.File
	run  *plan.Run
	done []plan.Step
}

// NewPool makes n networks with the devices of the parts, which are Bridge, Veth, Macvlan, Ipvlan, Vlan and Tap. It needs what they need.
func NewPool(n int, parts ...plan.Primitive) (*Pool, error) {
	for _, part := range parts {
		switch part.(type) {
		case Bridge, Veth, Macvlan, Ipvlan, Vlan, Tap:
		default:
			return nil, &ValueError{"parts", fmt.Sprintf("%T", part), "not a device of which there can be many"}
		}
	}
	if err := plan.Build(parts...).Err(); err != nil {
		return nil, err
	}
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, failed(err, "open the host's network", "")
	}
	p := &Pool{size: n, parts: parts, home: home}
	p.idle = sync.NewCond(&p.mu)
	for range n {
		made, err := p.make()
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.ready = append(p.ready, made)
	}
	return p, nil
}

// Close takes apart what has not been used. Sandboxes that run keep their networks.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	for p.making > 0 {
		p.idle.Wait()
	}
	rest := p.ready
	p.ready = nil
	p.mu.Unlock()
	var err error
	for _, n := range rest {
		err = errors.Join(err, n.end())
	}
	return errors.Join(err, p.home.Close())
}

// Ready tells how many networks are in stock, and why the last one could not be made, if that was so.
func (p *Pool) Ready() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready), p.failed
}

type networkKey struct{}

// Apply asks for a network out of the stock.
func (p *Pool) Apply(q *plan.Plan) error {
	if err := errors.Join(only(q), q.Claim(loopbackClaim)); err != nil {
		return err
	}
	of := func(r *plan.Run) *network {
		n, _ := r.Value(networkKey{}).(*network)
		return n
	}
	undo := func(r *plan.Run) error {
		p.restock()
		return of(r).end()
	}
	q.Before(plan.Action{Name: "take a network out of the stock", Undo: undo, Do: func(r *plan.Run) error {
		n, err := p.take()
		if err == nil {
			r.Set(networkKey{}, n)
		}
		return err
	}})
	// It was made for this start: there is nobody in it.
	q.JoinAlone(unix.CLONE_NEWNET, enterCall(q.Open("the network as network", func(r *plan.Run) (*os.File, error) { return duplicate(of(r).ns) })))
	q.After(plan.Action{Name: "have the next network made", Do: func(r *plan.Run) error {
		p.restock()
		return of(r).ns.Close() // it lives as long as its processes
	}})
	return nil
}

// take gives a network.
func (p *Pool) take() (*network, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, &Error{Op: "take a network out of the stock", Err: os.ErrClosed}
	}
	var n *network
	if len(p.ready) > 0 {
		n = p.ready[0]
		p.ready = p.ready[1:]
	}
	p.mu.Unlock()
	if n != nil {
		return n, nil
	}
	return p.make()
}

// restock has what is missing made in the background, one after the other: more at once would wait for one another in the kernel, and keep starts from their work. It comes after a start.
func (p *Pool) restock() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed && p.making == 0 && len(p.ready) < p.size {
		p.making++
		go p.refill()
	}
}

func (p *Pool) refill() {
	n, err := p.make()
	p.mu.Lock()
	p.failed = err
	if err == nil {
		p.ready = append(p.ready, n)
	}
	p.making--
	p.idle.Broadcast()
	p.mu.Unlock()
	if err == nil {
		p.restock()
	}
}

// make makes a network by performing the parts' actions for a namespace instead of a process.
func (p *Pool) make() (n *network, err error) {
	ns, err := newNetwork()
	if err != nil {
		return nil, err
	}
	q := plan.Build(p.parts...)
	n = &network{ns: ns, run: q.NewRun(context.Background(), nil)}
	err = owner.In(p.home, func() error { return n.perform(q) })
	if err != nil {
		return nil, errors.Join(err, n.end())
	}
	return n, nil
}

func (n *network) perform(q *plan.Plan) error {
	if err := (target{ns: n.ns}).do(setUpNetwork); err != nil {
		return err
	}
	for _, s := range append(q.Steps(nil), q.AfterSteps()...) {
		if s.Kind != plan.StepAction && s.Kind != plan.StepWhile && s.Kind != plan.StepAfter {
			continue
		}
		if w := wireOf(n.run); w != nil {
			w.target.ns = n.ns
		}
		if s.Action.Ready != nil {
			if err := s.Action.Ready(n.run); err != nil {
				return err
			}
		}
		if err := s.Action.Do(n.run); err != nil {
			return err
		}
		n.done = append(n.done, s)
	}
	return nil
}

// end takes the network apart.
func (n *network) end() (err error) {
	for i := len(n.done) - 1; i >= 0; i-- {
		if undo := n.done[i].Action.Undo; undo != nil {
			err = errors.Join(err, undo(n.run))
		}
	}
	n.done = nil
	n.ns.Close() // which has been done where the sandbox has started
	return err
}

// newNetwork makes a network namespace without a process.
func newNetwork() (ns *os.File, err error) {
	err = owner.Apart(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return failed(os.NewSyscallError("unshare", err), "make a network", "")
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return ns, err
}

// setUpNetwork sets up loopback in the thread's network namespace, and lets every user of a sandbox have the ports and pings that its own root would have.
func setUpNetwork() error {
	if err := parameters("sandbox", [2]string{"ipv4/ip_unprivileged_port_start", "0"}, [2]string{"ipv4/ping_group_range", "0 2147483647"}); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return failed(err, "find", "lo")
	}
	return failed(netlink.LinkSetUp(lo), "set up", "lo")
}
