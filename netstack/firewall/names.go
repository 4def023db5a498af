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
	err = f.do(func() error {
		h := f.clients[client]
		if h == nil || h.rules.Isolated {
			return nil
		}
		bridge := h.rules.bridgeOf(client)
		all, err := f.dir.others(h.id)
		if err != nil || bridge == "" {
			return err
		}
		all[h.id] = claims{h.rules}
		for id, c := range all {
			named := slices.ContainsFunc(c.Rules.Names, func(n string) bool { return strings.EqualFold(n, name) })
			if named && !c.Rules.Isolated && (id == h.id || f.dir.alive(id)) {
				addrs = append(addrs, c.Rules.addrsOn(bridge)...)
			}
		}
		return nil
	})
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, err
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
