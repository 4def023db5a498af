//go:build linux

package firewall

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// bufferSize has room for the elements and acknowledgements of a range of all ports.
func bufferSize(c *netlink.Conn) error {
	const size = 16 << 20
	return errors.Join(c.SetWriteBuffer(size), c.SetReadBuffer(size))
}

// exists reports whether our tables are there. Of two, one alone is what somebody else has left.
func (f *Firewall) exists() (bool, error) {
	list, err := f.conn.ListTablesOfFamily(nftables.TableFamilyUnspecified)
	if err != nil {
		return false, refused("", err)
	}
	n := 0
	for _, t := range list {
		if t.Name == tableName && (t.Family == f.inet.Family || t.Family == f.bridge.Family) {
			n++
		}
	}
	if n == 1 {
		f.removeTables()
		return false, f.commit("")
	}
	f.there = n == 2
	return f.there, nil
}

// replace changes the tables from one state of an owner to the next, in one transaction.
func (f *Firewall) replace(id string, old, next state) error {
	if f.x != nil {
		return f.replaceLines(id, old, next)
	}
	// For who has nothing yet it is enough that the tables were there a while ago: if they are not, the kernel says so.
	guessed := f.there && len(old.elements) == 0
	there := guessed
	if !guessed {
		var err error
		if there, err = f.exists(); err != nil {
			return err
		}
	}
	f.rebuilt = !there
	if !there {
		old = state{}
		if len(next.elements) == 0 && len(next.chains) == 0 {
			return nil
		}
		f.makeTables()
	}
	change := f.changeAll
	if there && quick(old, next) {
		change = f.changeQuickly
	}
	err := change(id, old, next)
	f.there = err == nil
	if errors.Is(err, syscall.ENOENT) && guessed {
		return f.replace(id, old, next)
	}
	if errors.Is(err, syscall.ENOENT) && len(old.elements) > 0 { // somebody else has removed the tables, and another owner made them again
		if err := f.clean([]string{id}); err != nil {
			return err
		}
		err := f.replace(id, state{}, next)
		f.rebuilt = true
		return err
	}
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOTEMPTY) {
		if conflict := f.conflict(id, next); conflict != nil {
			return conflict
		}
	}
	return err
}

// changeAll changes elements, chains and sets.
func (f *Firewall) changeAll(id string, old, next state) error {
	f.changeElements(id, old.elements, next.elements, f.conn.SetDeleteElements)
	f.changeChains(old, next)
	f.changeElements(id, next.elements, old.elements, f.conn.SetAddElements)
	f.noteLocalnet(next.local, f.conn.SetAddElements)
	f.step("change the tables")
	return f.commit(id)
}

// commit sends the batch. After an error the connection is made anew: what the kernel has answered to the rest of the batch must not be taken for an answer to the next.
func (f *Firewall) commit(id string) error {
	err := f.conn.Flush()
	if err == nil {
		return nil
	}
	f.hangUp()
	if again := f.dial(); again != nil {
		return again
	}
	return refused(id, err)
}

// makeTables makes the tables with what does not depend on owners.
func (f *Firewall) makeTables() {
	f.conn.AddTable(f.inet)
	f.conn.AddTable(f.bridge)
	for _, s := range slices.SortedFunc(maps.Values(f.sets), func(a, b *nftables.Set) int { return int(a.ID) - int(b.ID) }) {
		f.conn.AddSet(s, nil) // fails for anonymous sets only
	}
	f.makeChains(f.inet, inetChains())
	f.makeChains(f.bridge, bridgeChains())
}

func (f *Firewall) makeChains(t *nftables.Table, list []base) {
	for _, b := range list {
		c := &nftables.Chain{Name: b.name, Table: t}
		if b.hook != nil {
			c.Type, c.Hooknum, c.Priority = b.kind, b.hook, &b.priority
		}
		f.conn.AddChain(c)
	}
	for _, b := range list {
		for _, r := range b.rules {
			f.conn.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Name: b.name, Table: t}, Exprs: r})
		}
	}
}

func (f *Firewall) removeTables() {
	f.conn.DelTable(f.inet)
	f.conn.DelTable(f.bridge)
}

// perMessage is how many elements go into one message: an attribute of netlink has 64 KiB at most.
const perMessage = 200

// changeElements calls change for what is in one and not in the other.
func (f *Firewall) changeElements(id string, in, other map[element]bool, change func(*nftables.Set, []nftables.SetElement) error) {
	lists := map[setID][]nftables.SetElement{}
	for e := range in {
		if !other[e] {
			lists[e.set] = append(lists[e.set], e.lower(id))
		}
	}
	for set, list := range lists {
		if f.sets[set].Interval { // the ends come after the beginnings, as nft(8) sends them
			slices.SortFunc(list, func(a, b nftables.SetElement) int { return strings.Compare(string(a.Key), string(b.Key)) })
		}
		for part := range slices.Chunk(list, perMessage) {
			change(f.sets[set], part) // cannot fail: the types are ours
		}
	}
}

// lower makes the kernel's element, with the owner in it.
func (e element) lower(id string) nftables.SetElement {
	if e.end { // the kernel wants nothing else of an end
		return nftables.SetElement{Key: []byte(e.key), IntervalEnd: true}
	}
	s := nftables.SetElement{Key: []byte(e.key), Val: []byte(e.val), Comment: id}
	if e.chain != "" {
		s.VerdictData = &expr.Verdict{Kind: expr.VerdictJump, Chain: e.chain}
	}
	return s
}

// changeChains removes, makes and fills the owner's own chains and sets. A chain whose text is the same is left alone, with its counters and the sets it uses.
func (f *Firewall) changeChains(old, next state) {
	own := func(name string) *nftables.Chain { return &nftables.Chain{Name: name, Table: f.inet} }
	for _, name := range slices.Sorted(maps.Keys(next.names)) {
		if _, ok := old.names[name]; !ok {
			f.conn.AddSet(f.nameSet(name, next.names[name].key), nil)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.chains)) {
		if _, ok := next.chains[name]; !ok {
			f.conn.FlushChain(own(name))
			f.conn.DelChain(own(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(next.chains)) {
		before, there := old.chains[name]
		if there && before.text == next.chains[name].text {
			continue
		}
		if there {
			f.conn.FlushChain(own(name))
		} else {
			f.conn.AddChain(own(name))
		}
		f.fill(own(name), next.chains[name].rules)
	}
	for _, name := range slices.Sorted(maps.Keys(old.names)) {
		if _, ok := next.names[name]; !ok {
			f.conn.DelSet(f.nameSet(name, old.names[name].key))
		}
	}
}

// mostPins is how many addresses are pinned for one rule at a time.
const mostPins = 4096

func (f *Firewall) nameSet(name string, key nftables.SetDatatype) *nftables.Set {
	return &nftables.Set{Table: f.inet, Name: name, KeyType: key, HasTimeout: true, Size: mostPins, ID: 1 << 16}
}

// fill adds rules, each after the sets that are its own.
func (f *Firewall) fill(c *nftables.Chain, rules []rule) {
	for _, r := range rules {
		for _, s := range r.sets {
			f.setNumber++
			s.lookup.SetID = 1<<20 + f.setNumber
			set := &nftables.Set{Table: f.inet, ID: s.lookup.SetID, Name: s.lookup.SetName, Anonymous: true, Constant: true,
				Interval: s.values == nil, IsMap: s.values != nil, KeyType: s.key, DataType: s.data}
			f.conn.AddSet(set, s.elements())
		}
		f.conn.AddRule(&nftables.Rule{Table: f.inet, Chain: c, Exprs: r.line})
	}
}
