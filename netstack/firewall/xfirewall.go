//go:build linux

package firewall

import (
	"errors"
	"net"
	"net/netip"
	"slices"
)

// lower translates rules for the backend in use.
func (f *Firewall) lower(id string, r Rules, macs map[string]net.HardwareAddr) state {
	if f.x == nil {
		return lower(id, r, macs)
	}
	lines, local := xlower(id, r)
	if f.x.no6 && !slices.ContainsFunc(slices.Collect(r.addrs()), netip.Addr.Is6) {
		lines = slices.DeleteFunc(lines, func(l xline) bool { return l.tool == ip6tables })
	}
	slices.Sort(local)
	return state{lines: lines, local: slices.Compact(local)}
}

// claim sees to it that nobody else has what the rules ask for. With nf_tables the kernel does that, but for networks.
func (f *Firewall) claim(h *Held, r Rules) error {
	conflict := func() error { return f.dir.claimed(h.id, r) }
	if f.x == nil {
		conflict = func() error { return f.poolConflict(h.id, r.Pools) }
	}
	if err := conflict(); err != nil {
		return err
	}
	return h.note(r)
}

// note writes down what the owner has, where others have to read it: with nf_tables those alone who look for a name.
func (h *Held) note(r Rules) error {
	if h.f.x == nil && len(r.Names) == 0 && len(h.rules.Names) == 0 {
		return nil
	}
	return errors.Join(note(h.lock, claims{r}), h.f.dir.touch())
}

// replaceLines changes the tables of iptables from one state of an owner to the next. A table is changed whole or not at all; when a later one fails, those before it are changed back.
func (f *Firewall) replaceLines(id string, old, next state) error {
	if len(next.lines) > 0 && slices.Equal(old.lines, next.lines) {
		if same, err := f.x.intact(id, len(next.lines)); err != nil || same {
			return err
		}
	}
	if err := f.x.allowLocalnet(next.local, f.localnetWas); err != nil {
		return err
	}
	f.step("change the tables")
	err := f.x.change(id, next.lines)
	if err == nil {
		return nil
	}
	if back := f.x.change(id, old.lines); back != nil {
		return &Error{Op: "undo", Owner: id, Err: errors.Join(err, back)}
	}
	return errors.Join(err, f.removeTablesIfUnused(old))
}

// removeTablesIfUnused removes the shared chains when an owner who had nothing has got nothing, and there is nobody else.
func (f *Firewall) removeTablesIfUnused(old state) error {
	ids, err := f.dir.ids()
	if err != nil || len(old.lines) > 0 || len(ids) > 1 {
		return err
	}
	return f.x.removeAll(f.forbidOne)
}

// sweepLines is sweep for iptables. What the dead had published stands in their files.
func (f *Firewall) sweepLines(living, dead []string, release func()) ([]string, error) {
	f.step("remove the dead")
	for _, id := range dead {
		c, _ := f.dir.claims(id) // who has died while he wrote had no rules yet
		r := c.Rules
		if err := f.dir.noteFreed(gone(r, Rules{}), r); err != nil {
			return nil, err
		}
	}
	found, err := f.x.sweep(living)
	if err != nil {
		return nil, err
	}
	f.step("release the dead")
	release()
	dead = append(dead, found...)
	slices.Sort(dead)
	return slices.Compact(dead), f.removeTablesIfEmpty()
}

// publishedLines adds the ports that are published by anybody.
func (f *Firewall) publishedLines(ports map[uint16]bool) error {
	all, err := f.dir.others("")
	for _, c := range all {
		for _, p := range c.Rules.Publish {
			for _, b := range p.bindings(c.Rules) {
				ports[b.port] = true
			}
		}
	}
	return err
}
