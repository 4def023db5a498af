//go:build linux

package netstack

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Translation is a rule of nf_tables by which addresses are changed, whoever has made it (nft(8)). A published port is an entry of a map that such a rule looks in.
type Translation struct {
	Table string // with its family: "ip nat", "inet caisson"
	Chain string // "postrouting"
	Hook  string // where packets come by it: "prerouting", "output", "postrouting", "input"; "" in a chain that another one jumps to
	Text  string // "masquerade", "to 10.77.0.2:80", "to one of 3 by map \"published\""
}

// String gives all on one line. Names that a terminal would take for more than text are quoted.
func (t Translation) String() string {
	where := t.Hook
	if where != "" {
		where = " at " + where
	}
	return plainly(t.Text) + where + ", by " + plainly(t.Table) + " " + plainly(t.Chain)
}

// translations lists those of a network. Without CAP_NET_ADMIN over it they cannot be seen; a kernel without nf_tables has none.
func (n *seen) translations() error {
	list := func() (err error) {
		n.NAT, err = translationsHere(n.own)
		return err
	}
	do := target{ns: n.file}.do
	if n.own { // to enter it would need CAP_SYS_ADMIN
		do = func(f func() error) error { return f() }
	}
	err := do(list)
	switch {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES):
		n.NATUnseen = true
		return nil
	case errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPROTONOSUPPORT) || errors.Is(err, syscall.EINVAL):
		return nil
	}
	return failed(err, "list rules", "")
}

// translationsHere lists those of the thread's network. What has gone between two questions is left out. The entries of maps are counted in a network that is trusted only: whose is root of its own may have millions.
func translationsHere(count bool) (all []Translation, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := retriedRules(c.ListChains)
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		rules, err := retriedRules(func() ([]*nftables.Rule, error) { return c.GetRules(chain.Table, chain) })
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if text := translates(c, r, count); text != "" {
				all = append(all, Translation{Table: familyName(chain.Table.Family) + " " + chain.Table.Name, Chain: chain.Name, Hook: hookName(chain), Text: text})
			}
		}
	}
	return all, nil
}

// retriedRules asks again while the rules change meanwhile, which is told by EINTR.
func retriedRules[T any](dump func() (T, error)) (v T, err error) {
	for range 32 {
		if v, err = dump(); !errors.Is(err, syscall.EINTR) {
			return v, err
		}
	}
	return v, err
}

// translates says what the rule does with addresses; "": nothing.
func translates(c *nftables.Conn, r *nftables.Rule, count bool) string {
	registers, set := map[uint32][]byte{}, ""
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Immediate:
			registers[e.Register] = e.Data
		case *expr.Lookup:
			if e.IsDestRegSet {
				set = e.SetName
			}
		case *expr.Masq:
			return "masquerade"
		case *expr.Redir:
			return "redirect"
		case *expr.Target: // of iptables, by nf_tables
			if strings.Contains(" MASQUERADE DNAT SNAT REDIRECT ", " "+e.Name+" ") {
				return strings.ToLower(e.Name)
			}
		case *expr.NAT:
			if text := constant(e, registers); text != "" || set == "" {
				return direction(e) + cmp.Or(text, "what the packet says")
			}
			return direction(e) + "one" + entries(c, r.Table, set, count) + fmt.Sprintf(" by map %q", set)
		}
	}
	return ""
}

func direction(e *expr.NAT) string {
	if e.Type == expr.NATTypeSourceNAT {
		return "from "
	}
	return "to "
}

// constant is an address that the rule itself contains, with a port or without; or "".
func constant(e *expr.NAT, registers map[uint32][]byte) string {
	addr, ok := netip.AddrFromSlice(registers[e.RegAddrMin])
	switch port := registers[e.RegProtoMin]; {
	case ok && len(port) >= 2:
		return netip.AddrPortFrom(addr, uint16(port[0])<<8|uint16(port[1])).String()
	case ok:
		return addr.String()
	}
	return ""
}

// entries says how many a map has, if that is to be counted.
func entries(c *nftables.Conn, table *nftables.Table, name string, count bool) string {
	if !count {
		return ""
	}
	all, err := retriedRules(func() ([]nftables.SetElement, error) {
		return c.GetSetElements(&nftables.Set{Table: table, Name: name})
	})
	if err != nil { // it has gone
		return ""
	}
	return fmt.Sprintf(" of %d", len(all))
}

func familyName(f nftables.TableFamily) string {
	names := map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
		nftables.TableFamilyARP: "arp", nftables.TableFamilyNetdev: "netdev", nftables.TableFamilyBridge: "bridge"}
	if n, ok := names[f]; ok {
		return n
	}
	return fmt.Sprint("family ", f)
}

// hookName names the hook of a chain of a family of IP, where alone addresses are changed.
func hookName(c *nftables.Chain) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting"}
	if c.Hooknum == nil || int(*c.Hooknum) >= len(names) {
		return ""
	}
	return names[*c.Hooknum]
}
