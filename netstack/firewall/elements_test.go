//go:build linux

package firewall

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestElementsAsNftables: our messages about elements are those of package nftables, but for the number of the set, which is for sets of the same transaction.
func TestElementsAsNftables(t *testing.T) {
	var theirs []netlink.Message
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithTestDial(func(req []netlink.Message) ([]netlink.Message, error) {
		if len(req) == 0 { // the library asks for acknowledgements
			return nltest.Error(0, []netlink.Message{{}})
		}
		theirs = req
		return nltest.Error(0, req[1:2])
	}))
	require.NoError(t, err)
	defer conn.CloseLasting()
	f := &Firewall{tables: newTables(), step: func(string) {}}
	f.sets = f.tables.sets()
	rules := Rules{
		Cards: []Card{{Name: "cs012345-1", Bridge: "caisson0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")}},
			{Name: "eth9", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
		Masquerade: true, Isolated: true, Publish: []Port{{Port: 8080, To: 80}, {Protocol: UDP, Port: 53, Addr: netip.MustParseAddr("127.0.0.1")}},
		Pools: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")},
	}
	state := lower("owner-1", rules, map[string]net.HardwareAddr{"caisson0": {2, 0, 0, 0, 0, 2}})
	require.True(t, quick(state, state))
	lists := map[setID][]nftables.SetElement{}
	for e := range state.elements {
		if e.end { // of which the library marks the flags as a nest; tests with Pools show that the kernel takes ours
			continue
		}
		lists[e.set] = append(lists[e.set], e.lower("owner-1"))
	}
	require.Greater(t, len(lists), 15)
	for _, m := range []struct {
		message uint16
		change  func(*nftables.Set, []nftables.SetElement) error
	}{{unix.NFT_MSG_NEWSETELEM, conn.SetAddElements}, {unix.NFT_MSG_DELSETELEM, conn.SetDeleteElements}} {
		for id, list := range lists {
			require.NoError(t, m.change(f.sets[id], list))
			conn.Flush()
			require.Len(t, theirs, 3)
			ours := elementsOf(m.message, f.sets[id], list)
			require.Equal(t, uint16(theirs[1].Header.Type), ours.Type)
			require.Equal(t, uint16(theirs[1].Header.Flags), ours.Flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
			require.Equal(t, theirs[1].Data[:4], ours.Body[:4])
			require.Equal(t, attributes(t, theirs[1].Data[4:]), attributes(t, ours.Body[4:]), "%v", id)
			require.Equal(t, theirs[0].Data, border(unix.NFNL_MSG_BATCH_BEGIN).Body)
			require.Equal(t, uint16(theirs[2].Header.Type), border(unix.NFNL_MSG_BATCH_END).Type)
		}
	}
}

// attributes are those of a message about elements. Only that of the elements is nested.
func attributes(t *testing.T, b []byte) map[uint16][]byte {
	list, err := netlink.UnmarshalAttributes(b)
	require.NoError(t, err)
	all := map[uint16][]byte{}
	for _, a := range list {
		if a.Type != unix.NFTA_SET_ELEM_LIST_SET_ID {
			all[a.Type&^unix.NLA_F_NESTED] = a.Data
		}
	}
	require.ElementsMatch(t, []uint16{unix.NFTA_SET_ELEM_LIST_TABLE, unix.NFTA_SET_ELEM_LIST_SET, unix.NFTA_SET_ELEM_LIST_ELEMENTS}, slices.Collect(maps.Keys(all)))
	return all
}

// TestQuick: chains, sets and long lists are for package nftables.
func TestQuick(t *testing.T) {
	few := state{elements: map[element]bool{{key: "a"}: true}}
	require.True(t, quick(state{}, few))
	require.False(t, quick(state{}, state{chains: map[string]chain{"c": {}}}))
	require.False(t, quick(state{names: map[string]nameSet{"n": {}}}, few))
	many := state{elements: map[element]bool{}}
	for i := range mostQuick + 1 {
		many.elements[element{key: string(rune(i))}] = true
	}
	require.False(t, quick(few, many))
}
