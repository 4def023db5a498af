//go:build linux

package firewall

import (
	"fmt"

	"github.com/google/nftables"
)

// Blockers names the chains of others that drop what they do not know of all that is forwarded, such as "ip filter FORWARD", Docker's by iptables-nft. What this package
// lets pass, they may drop: their owner has to let it pass, too. Rules inside of chains are not looked at.
func (f *Firewall) Blockers() (names []string, err error) {
	err = f.do(func() error {
		if f.x != nil {
			names, err = f.x.blockers()
			return err
		}
		chains, err := f.conn.ListChains()
		if err != nil {
			return refused("", err)
		}
		for _, c := range chains {
			if c.Table.Name != tableName && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
				names = append(names, fmt.Sprintf("%s %s %s", familyName(c.Table.Family), c.Table.Name, c.Name))
			}
		}
		return nil
	})
	return names, err
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyBridge:
		return "bridge"
	}
	return fmt.Sprintf("family %d", f)
}
