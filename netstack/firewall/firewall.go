//go:build linux

package firewall

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/batch"
)

// Host says how the firewall of a network namespace is kept.
type Host struct {
	// Dir is the directory for locks. Only the caller's user may be able to write to it, and whatever cleans up old files must leave it alone. Each network namespace has a directory in it, which
	// [Host.Open] removes when nobody uses it any longer: after an hour, or five days where connections may be left. "": /run/caisson/firewall.
	Dir string

	// Forward turns forwarding on (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding) when rules need it. That makes the host a router between all its
	// interfaces; what it may route beyond sandboxes is for its administrator's own rules to say. It is not turned off again, because nobody can tell who else has come to need it. False: where it is off, rules that need it are a
	// [*SysctlError].
	Forward bool

	// Backend is the part of the kernel that keeps the rules. All processes that open the firewall of a network namespace should say the same.
	Backend Backend

	variants map[string][]string // of the programs of xtables; for tests
}

// Firewall is the part of a network namespace's packet filter that this package keeps. Its methods may be called by several goroutines, on whatever thread: they act
// in the namespace in which it was opened.
type Firewall struct {
	host  Host
	space *space
	dir   *lockDir
	sys   sysctls
	conn  *nftables.Conn // nil with iptables
	quick *batch.Conn    // for elements; nil with iptables
	x     *xtables       // nil with nf_tables
	links *netlink.Handle
	ask   *batch.Conn // for what each change asks of the network
	tables
	sets      map[setID]*nftables.Set
	setNumber uint32 // of the last set of one rule
	there     bool   // the tables were there when last looked at
	rebuilt   bool   // the last change had to make the tables, or what the owner had in them, anew

	mu      sync.Mutex
	clients map[netip.Addr]*Held
	named   namesRead
	step    func(string) // called before each step that changes something; for tests
}

// Held is what one owner has in a firewall. It is there until Remove, or until the process has ended and the next one opens the firewall.
type Held struct {
	f     *Firewall
	id    string
	lock  *os.File
	rules Rules
	state state
	pins  map[pinKey]time.Time
}

// Open opens the firewall of the calling thread's network namespace, and removes the rules of owners that have died.
func (h Host) Open() (*Firewall, error) {
	if h.Dir == "" {
		h.Dir = "/run/caisson/firewall"
	}
	f := &Firewall{host: h, tables: newTables(), step: func(string) {}, clients: map[netip.Addr]*Held{}}
	f.sets = f.tables.sets()
	if err := f.open(); err != nil {
		f.Close()
		return nil, err
	}
	_, err := f.Sweep()
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *Firewall) open() (err error) {
	if f.space, err = here(); err != nil {
		return failed(err, "open the network namespace")
	}
	if f.sys, err = openSysctls(); err != nil {
		return failed(err, "open /proc")
	}
	if f.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return failed(err, "open a netlink socket")
	}
	if f.ask, err = batch.Open(unix.NETLINK_ROUTE); err != nil {
		return failed(err, "open a netlink socket")
	}
	if err = f.chooseBackend(); err != nil {
		return err
	}
	name := f.space.name()
	if f.x != nil { // who is dead there has nothing in nf_tables
		name += "-iptables"
	}
	if f.dir, err = openLockDir(f.host.Dir, name); err == nil && f.x != nil {
		f.x.hold, f.x.step = f.dir.file, func(s string) { f.step(s) }
	}
	return err
}

// dial makes the connection to the kernel. The buffers hold a range of all ports.
func (f *Firewall) dial() (err error) {
	f.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(bufferSize))
	if err != nil {
		return refused("", err)
	}
	if f.quick, err = batch.Open(unix.NETLINK_NETFILTER); err != nil {
		f.hangUp()
		return refused("", err)
	}
	return nil
}

// hangUp closes what dial has opened.
func (f *Firewall) hangUp() {
	if f.conn != nil {
		f.conn.CloseLasting()
		f.conn = nil
	}
	if f.quick != nil {
		f.quick.Close()
		f.quick = nil
	}
}

// Close gives up the firewall. Rules that are held stay, and so do their locks: they can still be removed by the next one that opens it when this process
// has ended.
func (f *Firewall) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hangUp()
	if f.links != nil {
		f.links.Close()
	}
	if f.ask != nil {
		f.ask.Close()
	}
	if f.sys.proc != nil {
		f.sys.Close()
	}
	f.dir.close()
	f.space.close()
	return nil
}

// do runs a change: in the namespace, alone among threads and among processes.
func (f *Firewall) do(change func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.space.inside(func() error {
		unlock, err := f.dir.lock()
		if err != nil {
			return err
		}
		defer unlock()
		return change()
	})
}

// Add puts rules into the firewall, all or none of them. The id is the owner's: 1 to 64 letters, digits, and - _ . inside.
func (f *Firewall) Add(id string, r Rules) (*Held, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	held := &Held{f: f, id: id}
	err := f.do(func() error { return held.add(r) })
	if err != nil {
		return nil, err
	}
	return held, nil
}

func (h *Held) add(r Rules) (err error) {
	h.f.step("take the id")
	var left bool
	if h.lock, left, err = h.f.dir.take(h.id); err != nil {
		return err
	}
	if left {
		if err = h.f.clean([]string{h.id}); err != nil {
			h.f.dir.drop(h.lock, h.id)
			return err
		}
	}
	if err = h.set(r); err != nil {
		h.f.dir.drop(h.lock, h.id)
	}
	return err
}

// Set replaces the rules, all of them or none. What is in both is not touched: pinned addresses, counters and connections stay. Connections that a changed policy forbids, or Isolated, end: the kernel forgets them, which takes
// ten milliseconds and more, and is errors.ErrUnsupported where it has no nf_conntrack_netlink. When somebody else has removed the tables
// meanwhile (nft flush ruleset), they are made again, with these rules.
func (h *Held) Set(r Rules) error {
	if err := r.check(); err != nil {
		return err
	}
	return h.f.do(func() error {
		if h.lock == nil {
			return &Error{Op: "set", Owner: h.id, Err: os.ErrClosed}
		}
		return h.set(r)
	})
}

// set does what can fail first, and then changes the tables, in one transaction.
func (h *Held) set(r Rules) error {
	r = r.clone()
	if h.f.x != nil {
		if err := xrefuse(r); err != nil {
			return err
		}
	}
	if err := h.f.choose(&r); err != nil {
		return err
	}
	if err := h.f.free(r, h.rules); err != nil {
		return err
	}
	v4, v6 := r.needsForwarding()
	h.f.step("forwarding")
	if err := h.f.forwarding(v4, v6); err != nil {
		return err
	}
	if err := h.f.showIPv6(r); err != nil {
		return err
	}
	macs, err := h.f.bridgeMACs(r)
	if err != nil {
		return err
	}
	next := h.f.lower(h.id, r, macs)
	if err := h.f.claim(h, r); err != nil {
		return err
	}
	if err := errors.Join(h.f.dir.noteFreed(gone(h.rules, r), h.rules), h.f.dir.reuse(gone(r, h.rules), r)); err != nil {
		return err
	}
	if err := h.f.replace(h.id, h.state, next); err != nil {
		return errors.Join(err, h.note(h.rules))
	}
	if err := errors.Join(h.f.allowLocalnet(next.local), h.f.allowHairpin(r), h.forgetForbidden(r)); err != nil {
		return h.undo(next, err)
	}
	if h.f.rebuilt {
		h.pins = nil
	}
	old := h.rules
	h.rules, h.state = r, next
	h.serve(old)
	return nil
}

// undo goes back to what was there before.
func (h *Held) undo(next state, err error) error {
	if back := h.f.replace(h.id, next, h.state); back != nil {
		return &Error{Op: "undo", Owner: h.id, Err: back, Hint: "after " + err.Error()}
	}
	return errors.Join(err, h.note(h.rules))
}

// Remove takes the rules away, and the tables with the last ones. When somebody with a policy gets one of the cards' addresses later, the kernel forgets their connections, where
// it has nf_conntrack_netlink: he does not inherit what was allowed. That Add takes ten milliseconds and more. A second Remove does nothing.
func (h *Held) Remove() error {
	return h.f.do(func() error {
		if h.lock == nil {
			return nil
		}
		if err := h.f.dir.noteFreed(gone(h.rules, Rules{}), h.rules); err != nil {
			return err
		}
		if err := h.f.replace(h.id, h.state, state{}); err != nil {
			return err
		}
		h.f.step("drop the id")
		h.f.dir.drop(h.lock, h.id)
		old := h.rules
		h.lock, h.state, h.rules = nil, state{}, Rules{}
		h.serve(old)
		return h.f.removeTablesIfEmpty()
	})
}

// ID gives the owner's id.
func (h *Held) ID() string { return h.id }

// Rules gives the rules that are in force, with the ports that were chosen.
func (h *Held) Rules() Rules {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	return h.rules.clone()
}

// File gives a copy of the descriptor whose lock keeps the rules alive, for another process (flock(2)). To be closed by the caller.
func (h *Held) File() (*os.File, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if h.lock == nil {
		return nil, &Error{Op: "copy the lock", Owner: h.id, Err: os.ErrClosed}
	}
	fd, err := unix.FcntlInt(h.lock.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &Error{Op: "copy the lock", Owner: h.id, Err: err}
	}
	return os.NewFile(uintptr(fd), h.lock.Name()), nil
}

// clone copies what the caller could change.
func (r Rules) clone() Rules {
	r.Cards, r.Pools, r.Publish, r.Services = slices.Clone(r.Cards), slices.Clone(r.Pools), slices.Clone(r.Publish), slices.Clone(r.Services)
	r.Names = slices.Clone(r.Names)
	for i := range r.Cards {
		r.Cards[i].Addrs, r.Cards[i].MAC = slices.Clone(r.Cards[i].Addrs), slices.Clone(r.Cards[i].MAC)
	}
	for i := range r.Services {
		r.Services[i].Backends = slices.Clone(r.Services[i].Backends)
	}
	r.Policy.Resolver = slices.Clone(r.Policy.Resolver)
	r.Policy.Egress, r.Policy.Ingress = r.Policy.Egress.clone(), r.Policy.Ingress.clone()
	return r
}

func (d Direction) clone() Direction {
	d.Rules = slices.Clone(d.Rules)
	for i := range d.Rules {
		r := &d.Rules[i]
		r.Peers, r.Names, r.Ports = slices.Clone(r.Peers), slices.Clone(r.Names), slices.Clone(r.Ports)
	}
	return d
}
