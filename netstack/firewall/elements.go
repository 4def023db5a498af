//go:build linux

package firewall

import (
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/batch"
)

// Most sandboxes have nothing in the tables but elements. What changes only those goes to the kernel in one call, and is confirmed once: package nftables asks for a confirmation of each message, and waits for
// each, which takes several times as long as the transaction itself.

// mostQuick is how many elements are changed in this way: the buffers of a socket have room for them.
const mostQuick = 256

// quick reports whether two states differ in some elements only.
func quick(old, next state) bool {
	return len(old.chains)+len(next.chains)+len(old.names)+len(next.names) == 0 && len(old.elements)+len(next.elements)+len(next.local) <= mostQuick
}

// changeQuickly changes elements.
func (f *Firewall) changeQuickly(id string, old, next state) error {
	list := []batch.Request{border(unix.NFNL_MSG_BATCH_BEGIN)}
	add := func(message uint16) func(*nftables.Set, []nftables.SetElement) error {
		return func(s *nftables.Set, elements []nftables.SetElement) error {
			list = append(list, elementsOf(message, s, elements))
			return nil
		}
	}
	f.changeElements(id, old.elements, next.elements, add(unix.NFT_MSG_DELSETELEM))
	f.changeElements(id, next.elements, old.elements, add(unix.NFT_MSG_NEWSETELEM))
	f.noteLocalnet(next.local, add(unix.NFT_MSG_NEWSETELEM))
	f.step("change the tables")
	if len(list) == 1 {
		return nil
	}
	if _, err := f.quick.Do(append(list, border(unix.NFNL_MSG_BATCH_END))...); err != nil {
		return refused(id, err)
	}
	return nil
}

// border is what a transaction begins and ends with.
func border(kind uint16) batch.Request {
	return batch.Request{Type: kind, Body: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}} // the subsystem's number is in the order of the network
}

// userComment is the kind of user data that nft(8) shows as a comment (NFTNL_UDATA_SET_ELEM_COMMENT).
const userComment = 0

// elementsOf is a message that adds or removes elements of a set.
func elementsOf(message uint16, s *nftables.Set, list []nftables.SetElement) batch.Request {
	b := []byte{byte(s.Table.Family), unix.NFNETLINK_V0, 0, 0}
	b = batch.String(b, unix.NFTA_SET_ELEM_LIST_TABLE, s.Table.Name)
	b = batch.String(b, unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	b = batch.Nest(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS|unix.NLA_F_NESTED, func(b []byte) []byte {
		for i, e := range list {
			b = batch.Nest(b, uint16(i+1)|unix.NLA_F_NESTED, func(b []byte) []byte { return appendElement(b, e) })
		}
		return b
	})
	return batch.Request{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | message, Flags: unix.NLM_F_CREATE, Body: b}
}

func appendElement(b []byte, e nftables.SetElement) []byte {
	value := func(v []byte) func([]byte) []byte {
		return func(b []byte) []byte { return batch.Attr(b, unix.NFTA_DATA_VALUE, v...) }
	}
	if e.IntervalEnd {
		b = batch.Big32(b, unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	b = batch.Nest(b, unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED, value(e.Key))
	switch {
	case e.VerdictData != nil:
		b = batch.Nest(b, unix.NFTA_SET_ELEM_DATA|unix.NLA_F_NESTED, func(b []byte) []byte {
			return batch.Nest(b, unix.NFTA_DATA_VERDICT|unix.NLA_F_NESTED, func(b []byte) []byte {
				b = batch.Big32(b, unix.NFTA_VERDICT_CODE, uint32(e.VerdictData.Kind))
				return batch.String(b, unix.NFTA_VERDICT_CHAIN, e.VerdictData.Chain)
			})
		})
	case len(e.Val) > 0:
		b = batch.Nest(b, unix.NFTA_SET_ELEM_DATA|unix.NLA_F_NESTED, value(e.Val))
	}
	if e.Comment != "" {
		b = batch.Attr(b, unix.NFTA_SET_ELEM_USERDATA, slices.Concat([]byte{userComment, byte(len(e.Comment) + 1)}, []byte(e.Comment), []byte{0})...)
	}
	return b
}
