//go:build linux

package firewall

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// service makes a chain for the service, to which the map sends new connections.
func (l *lowering) service(n int, s Service) {
	f := familyOf(s.Addr)
	name := fmt.Sprintf("service%d.%s", n, l.id)
	key := slices.Concat(s.Addr.AsSlice(), []byte{byte(s.Protocol.orTCP()), 0, 0, 0}, wide(s.Port))
	l.jump(services+f.suffix, key, name)
	c := chain{text: fmt.Sprintf("%d %v", s.Spread, s.Backends)}
	if len(s.Backends) > 0 {
		set := backends(f, s)
		c.rules = append(c.rules, rule{join(s.Spread.pick(f, len(s.Backends)), line{set.lookup}, f.dnat(reg)), []*ownSet{set}})
	}
	c.rules = append(c.rules, rule{line: drop()})
	l.chains[name] = c
}

// pick puts the number of a backend into the first register.
func (s Spread) pick(f family, n int) line {
	switch s {
	case RoundRobin:
		return line{&expr.Numgen{Register: reg, Modulus: uint32(n), Type: unix.NFT_NG_INCREMENTAL}}
	case SourceHash:
		return join(f.saddr(after), line{&expr.Hash{SourceRegister: after, DestRegister: reg, Length: f.size, Modulus: uint32(n), Seed: hashSeed, Type: expr.HashTypeJenkins}})
	}
	return line{&expr.Numgen{Register: reg, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM}}
}

// hashSeed is any number, but always the same: what is put up again spreads as before.
const hashSeed = 0x63616973

// backends is the map from numbers to backends.
func backends(f family, s Service) *ownSet {
	set := &ownSet{key: nftables.TypeInteger, lookup: &expr.Lookup{SourceRegister: reg, SetName: "__map%d", DestRegister: reg, IsDestRegSet: true}}
	set.key.Bytes = 4
	addr := nftables.TypeIPAddr
	if f.suffix == "6" {
		addr = nftables.TypeIP6Addr
	}
	set.data = nftables.MustConcatSetType(addr, nftables.TypeInetService)
	for i, b := range s.Backends {
		set.values = append(set.values, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(i)), Val: slices.Concat(b.Addr().AsSlice(), wide(b.Port()))})
	}
	return set
}
