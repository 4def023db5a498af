//go:build linux

package firewall

import (
	"errors"
	"iter"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// setsFor finds who has an address, and which of his sets a name belongs to. Held nil: nobody. Sets nil: his policy has no rule with the name; named tells whether it has one with others.
func (f *Firewall) setsFor(client netip.Addr, name string, v4 bool) (held *Held, sets []string, named bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.clients[client]
	if h == nil {
		return nil, nil, false
	}
	fam := ipv6()
	if v4 {
		fam = ipv4()
	}
	for _, r := range h.rules.Policy.Egress.Rules {
		named = named || len(r.Names) > 0
		if len(r.Names) > 0 && matches(r.Names, name) {
			sets = append(sets, nameSetName(fam, h.id, r.Names))
		}
	}
	return h, sets, named
}

// pin puts addresses into sets for a time. What is there already for long enough stays.
func (h *Held) pin(sets []string, addrs []netip.Addr, d time.Duration) error {
	return h.f.do(func() error {
		until := time.Now().Add(d)
		for _, name := range sets {
			if _, ok := h.state.names[name]; !ok {
				continue // the rules have changed meanwhile
			}
			for _, a := range addrs {
				if err := h.pinOne(name, a, until, d); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (h *Held) pinOne(name string, a netip.Addr, until time.Time, d time.Duration) error {
	key := pinKey{name, a}
	was := h.pins[key]
	if !was.Before(until) {
		return nil
	}
	set := h.f.nameSet(name, h.state.names[name].key)
	there := was.After(time.Now())
	if there { // the kernel does not prolong an element: it is removed and added, in one transaction
		h.f.conn.SetDeleteElements(set, []nftables.SetElement{{Key: a.AsSlice()}})
	}
	add := []nftables.SetElement{{Key: a.AsSlice(), Timeout: d}}
	h.f.conn.SetAddElements(set, add)
	err := h.f.commit(h.id)
	if there && errors.Is(err, unix.ENOENT) { // its time was over just now
		h.f.conn.SetAddElements(set, add)
		err = h.f.commit(h.id)
	}
	if err != nil {
		return err
	}
	h.forget()
	h.pins[key] = until
	return nil
}

// pinKey is an address in a set.
type pinKey struct {
	set  string
	addr netip.Addr
}

// forget drops what is over from time to time, so that the map does not grow for ever.
func (h *Held) forget() {
	if h.pins == nil {
		h.pins = map[pinKey]time.Time{}
	}
	if len(h.pins)%256 != 255 {
		return
	}
	now := time.Now()
	for k, until := range h.pins {
		if until.Before(now) {
			delete(h.pins, k)
		}
	}
}

// serve notes whose addresses are whose, for a [Resolver].
func (h *Held) serve(old Rules) {
	for a := range old.addrs() {
		delete(h.f.clients, a)
	}
	for a := range h.rules.addrs() {
		h.f.clients[a] = h
	}
	for k := range h.pins {
		if _, ok := h.state.names[k.set]; !ok {
			delete(h.pins, k)
		}
	}
}

func (r Rules) addrs() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, c := range r.Cards {
			for _, a := range c.Addrs {
				if !yield(a) {
					return
				}
			}
		}
	}
}
