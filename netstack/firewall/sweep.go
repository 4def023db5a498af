//go:build linux

package firewall

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Sweep removes the rules of owners that have died, and tells their ids. [Host.Open] does so, too.
func (f *Firewall) Sweep() (dead []string, err error) {
	err = f.do(func() error {
		dead, err = f.sweep()
		return err
	})
	return dead, err
}

func (f *Firewall) sweep() ([]string, error) {
	living, dead, release, err := f.dir.owners()
	if err != nil {
		return nil, err
	}
	if f.x != nil {
		return f.sweepLines(living, dead, release)
	}
	there, err := f.exists()
	if err != nil {
		return nil, err
	}
	if there {
		found, err := f.found()
		if err != nil {
			return nil, err
		}
		for id := range found {
			if !slices.Contains(living, id) && !slices.Contains(dead, id) {
				dead = append(dead, id)
			}
		}
		for _, id := range dead {
			if b := found[id]; b != nil {
				if err := f.dir.noteFreed(flowsOf(b.elements), unknownRules()); err != nil {
					return nil, err
				}
			}
		}
		f.step("remove the dead")
		f.discard(found, dead)
		if err := f.commit(""); err != nil {
			return nil, err
		}
	}
	f.step("release the dead")
	release()
	slices.Sort(dead)
	return dead, f.removeTablesIfEmpty()
}

// clean removes all that is in the tables of some owners.
func (f *Firewall) clean(ids []string) error {
	if f.x != nil {
		for _, id := range ids {
			if err := f.x.change(id, nil); err != nil {
				return err
			}
		}
		return nil
	}
	there, err := f.exists()
	if err != nil || !there {
		return err
	}
	found, err := f.found()
	if err != nil {
		return err
	}
	f.discard(found, ids)
	return f.commit("")
}

// belongings is what is in the tables of one owner.
type belongings struct {
	elements map[setID][]nftables.SetElement
	chains   []*nftables.Chain
	sets     []*nftables.Set
}

// found looks through the tables for what belongs to whom.
func (f *Firewall) found() (map[string]*belongings, error) {
	all := map[string]*belongings{}
	of := func(id string) *belongings {
		if all[id] == nil {
			all[id] = &belongings{elements: map[setID][]nftables.SetElement{}}
		}
		return all[id]
	}
	for id, set := range f.sets {
		list, err := f.conn.GetSetElements(set)
		if err != nil {
			return nil, refused("", err)
		}
		if set.Interval {
			list = withEnds(list)
		}
		for _, e := range list {
			if e.Comment != "" && !strings.HasPrefix(e.Comment, ".") {
				b := of(e.Comment)
				b.elements[id] = append(b.elements[id], nftables.SetElement{Key: e.Key, IntervalEnd: e.IntervalEnd})
			}
		}
	}
	chains, err := f.conn.ListChainsOfTableFamily(f.inet.Family)
	if err != nil {
		return nil, refused("", err)
	}
	for _, c := range chains {
		if _, id, ok := strings.Cut(c.Name, "."); ok && c.Table.Name == tableName {
			of(id).chains = append(of(id).chains, &nftables.Chain{Name: c.Name, Table: f.inet})
		}
	}
	return all, f.foundNames(of)
}

// foundNames looks for the sets of names: names4.ID.HASH.
func (f *Firewall) foundNames(of func(id string) *belongings) error {
	sets, err := f.conn.GetSets(f.inet)
	if err != nil {
		return refused("", err)
	}
	for _, s := range sets {
		_, id, ok := strings.Cut(s.Name, ".")
		if end := strings.LastIndexByte(id, '.'); ok && end >= 0 {
			of(id[:end]).sets = append(of(id[:end]).sets, &nftables.Set{Name: s.Name, Table: f.inet})
		}
	}
	return nil
}

// discard adds the removal of what some owners have to the batch. Verdicts go before the chains that they lead to, and rules before the sets that they use.
func (f *Firewall) discard(found map[string]*belongings, ids []string) {
	for _, id := range ids {
		b := found[id]
		if b == nil {
			continue
		}
		for set, list := range b.elements {
			for part := range slices.Chunk(list, perMessage) {
				f.conn.SetDeleteElements(f.sets[set], part)
			}
		}
		for _, c := range b.chains {
			f.conn.FlushChain(c)
			f.conn.DelChain(c)
		}
		for _, s := range b.sets {
			f.conn.DelSet(s)
		}
	}
}

// removeTablesIfEmpty removes the tables when nobody has anything in them, and takes back what was allowed for their sake.
func (f *Firewall) removeTablesIfEmpty() error {
	ids, err := f.dir.ids()
	if err != nil || len(ids) > 0 {
		return err
	}
	if f.x != nil {
		return f.x.removeAll(f.forbidOne)
	}
	there, err := f.exists()
	if err != nil || !there {
		return err
	}
	if err := f.forbidLocalnet(); err != nil {
		return err
	}
	f.step("remove the tables")
	f.removeTables()
	f.there = false
	return f.commit("")
}

// conflict finds what of a state another owner has; nil if nothing is found.
func (f *Firewall) conflict(id string, next state) error {
	found, err := f.found()
	if err != nil {
		return err
	}
	wanted := map[setID]map[string]bool{}
	for e := range next.elements {
		if wanted[e.set] == nil {
			wanted[e.set] = map[string]bool{}
		}
		wanted[e.set][e.key] = true
	}
	for _, other := range slices.Sorted(maps.Keys(found)) {
		if other == id {
			continue
		}
		for set, list := range found[other].elements {
			for _, e := range list {
				if wanted[set][string(e.Key)] {
					return &ConflictError{What: describe(set.name, e.Key), Owner: other}
				}
			}
		}
	}
	return nil
}

// poolConflict looks for networks of others that overlap. Of two that are the same, the kernel would take the second one without a word.
func (f *Firewall) poolConflict(id string, list []netip.Prefix) error {
	if len(list) == 0 {
		return nil
	}
	if there, err := f.exists(); err != nil || !there {
		return err
	}
	for _, fam := range families() {
		elements, err := f.conn.GetSetElements(f.sets[setID{false, pools + fam.suffix}])
		if err != nil {
			return refused(id, err)
		}
		for _, other := range ranges(elements) {
			for _, p := range list {
				if other.owner != id && other.overlaps(p) {
					return &ConflictError{What: "pool " + p.String(), Owner: other.owner}
				}
			}
		}
	}
	return nil
}

// owned is a range of addresses of an owner; last is the first one behind it, or invalid.
type owned struct {
	first, past netip.Addr
	owner       string
}

func (o owned) overlaps(p netip.Prefix) bool {
	begin := p.Masked().Addr()
	if begin.Is4() != o.first.Is4() || o.past.IsValid() && !begin.Less(o.past) {
		return false
	}
	end, ok := netip.AddrFromSlice(past(p))
	return !ok || o.first.Less(end)
}

// ranges puts the borders in a set of intervals together.
func ranges(elements []nftables.SetElement) (list []owned) {
	slices.SortFunc(elements, func(a, b nftables.SetElement) int {
		if c := strings.Compare(string(a.Key), string(b.Key)); c != 0 || a.IntervalEnd == b.IntervalEnd {
			return c
		}
		if a.IntervalEnd {
			return -1
		}
		return 1
	})
	for _, e := range elements {
		a, ok := netip.AddrFromSlice(e.Key)
		switch {
		case !ok:
		case !e.IntervalEnd:
			list = append(list, owned{first: a, owner: e.Comment})
		case len(list) > 0 && !list[len(list)-1].past.IsValid():
			list[len(list)-1].past = a
		}
	}
	return list
}

// withEnds gives the ends of ranges the owner of the beginning: the kernel keeps nothing with them.
func withEnds(elements []nftables.SetElement) (list []nftables.SetElement) {
	for _, r := range ranges(elements) {
		list = append(list, nftables.SetElement{Key: r.first.AsSlice(), Comment: r.owner})
		if r.past.IsValid() {
			list = append(list, nftables.SetElement{Key: r.past.AsSlice(), IntervalEnd: true, Comment: r.owner})
		}
	}
	return list
}

// describe says what an element is, for people.
func describe(set string, key []byte) string {
	family := set[len(set)-1]
	size := 4
	if family == '6' {
		size = 16
	}
	switch strings.TrimRight(set, "46") {
	case cards:
		return "interface " + unix.ByteSliceToString(key)
	case anywhere:
		return describePort(key)
	case address, services:
		a, _ := netip.AddrFromSlice(key[:size])
		return describePort(key[size:]) + " of " + a.String()
	}
	if a, ok := netip.AddrFromSlice(key); ok {
		return "address " + a.String()
	}
	return fmt.Sprintf("%s %x", set, key)
}

func describePort(key []byte) string {
	return fmt.Sprintf("%v port %d", Protocol(key[0]), binary.BigEndian.Uint16(key[4:]))
}
