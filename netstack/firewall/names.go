//go:build linux

package firewall

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// neighbourTTL is how long a sandbox may remember where its neighbour is, in seconds. The next one of the name may be elsewhere.
const neighbourTTL = 1

// checkNames wants names of one label.
func (r Rules) checkNames() error {
	for _, n := range r.Names {
		if strings.ContainsAny(n, ".*") || !goodPattern(n) {
			return &RuleError{"Names", n, "is no name of one label"}
		}
	}
	if len(r.Names) > 0 && !slices.ContainsFunc(r.Cards, func(c Card) bool { return c.Bridge != "" }) {
		return &RuleError{"Names", strings.Join(r.Names, " "), "there is no card on a bridge"}
	}
	return nil
}

// oneLabel gives a name without the dot at its end if it is one label, as the names of neighbours are.
func oneLabel(name string) (string, bool) {
	name = strings.TrimSuffix(name, ".")
	return name, name != "" && !strings.Contains(name, ".")
}

// neighbours looks for a name among the sandboxes on the bridges of a client that may speak to it: those of this process, and of others, who note it in their files. Of names that begin to be used twice all addresses are given.
func (f *Firewall) neighbours(client netip.Addr, name string) (addrs []netip.Addr, err error) {
	bridge, all, err := f.namesakes(client)
	if err != nil || bridge == "" {
		return nil, err
	}
	for id, c := range all {
		named := slices.ContainsFunc(c.Rules.Names, func(n string) bool { return strings.EqualFold(n, name) })
		if on := c.Rules.addrsOn(bridge); named && !c.Rules.Isolated && len(on) > 0 && f.alive(id) {
			addrs = append(addrs, on...)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, nil
}

// namesakes gives the client's bridge, and all claims, from memory while nothing has changed in the directory: a sandbox that asks without end must not keep others from the lock.
func (f *Firewall) namesakes(client netip.Addr) (bridge string, all map[string]claims, err error) {
	f.mu.Lock()
	if h := f.clients[client]; h != nil && !h.rules.Isolated {
		bridge = h.rules.bridgeOf(client)
	}
	all = f.named.all
	fresh := f.named.changed.Equal(f.dir.changed())
	f.mu.Unlock()
	if bridge == "" || fresh && all != nil {
		return bridge, all, nil
	}
	err = f.do(func() error {
		changed := f.dir.changed()
		if all, err = f.dir.others(""); err != nil {
			return err
		}
		f.named = namesRead{all: all}
		if time.Since(changed) > clockTick { // else another change could have the same time
			f.named.changed = changed
		}
		return nil
	})
	return bridge, all, err
}

// namesRead is what the directory said when it was last changed at a time.
type namesRead struct {
	changed time.Time
	all     map[string]claims
}

// clockTick is longer than the times of files are exact.
const clockTick = 50 * time.Millisecond

// changed is when an owner came, went or noted something.
func (d *lockDir) changed() time.Time {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.file.Fd()), &st); err != nil {
		return time.Now() // never the same
	}
	return time.Unix(st.Mtim.Unix())
}

// alive asks for the directory's lock, without which an owner who begins just now could be in the way.
func (f *Firewall) alive(id string) (alive bool) {
	err := f.do(func() error {
		alive = f.dir.alive(id)
		return nil
	})
	return err == nil && alive
}

// alive reports whether somebody holds an id. The caller has the directory's lock.
func (d *lockDir) alive(id string) bool {
	f, err := d.open(id, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
}

func (r Rules) bridgeOf(a netip.Addr) string {
	for _, c := range r.Cards {
		if slices.Contains(c.Addrs, a) {
			return c.Bridge
		}
	}
	return ""
}

func (r Rules) addrsOn(bridge string) (list []netip.Addr) {
	for _, c := range r.Cards {
		if c.Bridge == bridge {
			list = append(list, c.Addrs...)
		}
	}
	return list
}

// neighbour answers for names of one label. Others are asked for them only if the client's policy has the name.
func (s *serving) neighbour(from netip.Addr, name string, kind dnsmessage.Type) (foundAddrs, error) {
	addrs, err := s.f.neighbours(from, name)
	if err != nil {
		return foundAddrs{}, err
	}
	if len(addrs) == 0 {
		return foundAddrs{rcode: dnsmessage.RCodeNameError}, nil
	}
	found := foundAddrs{ttl: neighbourTTL}
	for _, a := range addrs {
		if a.Is4() && kind == dnsmessage.TypeA || a.Is6() && kind == dnsmessage.TypeAAAA {
			found.addrs = append(found.addrs, a)
		}
	}
	return found, nil
}

// pin makes what was found reachable if the client's policy is about names.
func (s *serving) pin(h *Held, sets []string, found foundAddrs) foundAddrs {
	if len(sets) == 0 || len(found.addrs) == 0 {
		return found
	}
	if err := h.pin(sets, found.addrs, found.pinned()); err != nil {
		return foundAddrs{rcode: dnsmessage.RCodeServerFailure}
	}
	return found
}

// pinned says how long an address is pinned: as long as the answer is valid, and a little longer, for who connects in the last moment.
func (f foundAddrs) pinned() time.Duration {
	const most, grace = 24 * time.Hour, 5 * time.Second
	return min(time.Duration(f.ttl)*time.Second, most) + grace
}
