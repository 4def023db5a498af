//go:build linux

package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/caisson-dev/caisson/plan"
)

// Card is a network device as the sandbox sees it. The zero value leaves all to the part that makes the device. A card without an IPv6 address, given here or by the part, has no IPv6 at all, and none configures
// itself by what a router says (accept_ra).
type Card struct {
	// Name is the device's name inside, 1 to 15 bytes. "" is the next free one of eth0, eth1, ..., in the order of the parts; [Move] keeps the name instead.
	Name string

	// MAC is the hardware address. nil is one that the kernel chooses.
	MAC net.HardwareAddr

	// MTU is the largest packet in bytes, 68 to 65535, with IPv6 at least 1280. 0 is the part's own default.
	MTU int

	// Addresses are added to those that the part itself gives. IPv6 addresses are used at once, without looking for duplicates (RFC 4862, 5.4: the sandbox's
	// start would wait a second or two for it).
	Addresses []netip.Prefix

	// Routes are added when the addresses are there, in this order.
	Routes []Route

	// Rules are policy rules, added after the routes (ip-rule(8)).
	Rules []Rule

	// Neighbours are permanent entries of the tables by which addresses of the network are found (arp(7)).
	Neighbours []Neighbour
}

// Route says where packets to a destination go: over the card that it belongs to.
type Route struct {
	To     netip.Prefix // the zero value is the default route of Via's family
	Via    netip.Addr   // the gateway; the zero value is none: the destination is on the card's network
	Source netip.Addr   // address preferred for packets that have none yet; the zero value leaves it to the kernel
	Metric int          // routes with a smaller one are preferred; 0 is the kernel's default
	MTU    int          // of the route, in bytes; 0 is the card's
	Table  int          // routing table; 0 is main
	OnLink bool         // Via is on the card's network, though no address says so
}

// Rule chooses a routing table for packets (ip-rule(8)).
type Rule struct {
	From, To netip.Prefix // the zero value is any, of the other's family; one of them must be given
	Table    int          // where the packets' routes are looked up, 1 to 2^31-1
	Priority int          // smaller ones are asked first; 0 is the kernel's choice
}

// Neighbour is a host on the card's network whose hardware address is known beforehand.
type Neighbour struct {
	Addr netip.Addr
	MAC  net.HardwareAddr
}

func (c Card) check() error {
	if c.Name != "" {
		if err := checkName("Name", c.Name); err != nil {
			return err
		}
	}
	if err := checkMTU(c.MTU); err != nil {
		return err
	}
	if err := checkMAC(c.MAC); err != nil {
		return err
	}
	for _, a := range c.Addresses {
		if err := checkAddress(a); err != nil {
			return err
		}
		if a.Addr().Is6() && c.MTU != 0 && c.MTU < 1280 {
			return &ValueError{"MTU", strconv.Itoa(c.MTU), "IPv6 needs 1280"}
		}
	}
	return c.checkRoutes()
}

func (c Card) checkRoutes() error {
	for _, r := range c.Routes {
		if err := r.check(); err != nil {
			return err
		}
	}
	for _, r := range c.Rules {
		if err := r.check(); err != nil {
			return err
		}
	}
	for _, n := range c.Neighbours {
		if !n.Addr.IsValid() || n.Addr.Zone() != "" || len(n.MAC) != 6 {
			return &ValueError{"Neighbours", n.Addr.String(), "needs an address and a hardware address of 6 bytes"}
		}
	}
	return nil
}

func (r Route) check() error {
	text := fmt.Sprintf("%v via %v", r.To, r.Via)
	switch {
	case !r.To.IsValid() && !r.Via.IsValid():
		return &ValueError{"Routes", text, "neither a destination nor a gateway"}
	case r.To.IsValid() && r.To.Masked() != r.To:
		return &ValueError{"Routes", text, "bits after the prefix are set"}
	case r.To.IsValid() && r.Via.IsValid() && r.To.Addr().Is4() != r.Via.Is4() && r.To.Addr().Is6():
		return &ValueError{"Routes", text, "destination and gateway are of different families"}
	case r.To.IsValid() && r.Via.IsValid() && r.To.Addr().Is4() && r.Via.Is6():
		return &ValueError{"Routes", text, "destination and gateway are of different families"}
	case r.Via.Zone() != "" || r.Metric < 0 || r.MTU < 0 || r.Table < 0:
		return &ValueError{"Routes", text, "a zone or a negative number"}
	}
	return nil
}

func (r Rule) check() error {
	text := fmt.Sprintf("from %v to %v table %d", r.From, r.To, r.Table)
	switch {
	case !r.From.IsValid() && !r.To.IsValid():
		return &ValueError{"Rules", text, "neither a source nor a destination"}
	case r.From.IsValid() && r.To.IsValid() && r.From.Addr().Is4() != r.To.Addr().Is4():
		return &ValueError{"Rules", text, "source and destination are of different families"}
	case r.From.IsValid() && r.From.Masked() != r.From || r.To.IsValid() && r.To.Masked() != r.To:
		return &ValueError{"Rules", text, "bits after the prefix are set"}
	case r.Table < 1 || int64(r.Table) > 1<<31-1 || r.Priority < 0 || int64(r.Priority) > 1<<31-1:
		return &ValueError{"Rules", text, "table or priority out of range"}
	}
	return nil
}

// checkName holds the kernel's rules for names of devices, and refuses what the kernel would take for a pattern.
func checkName(field, name string) error {
	switch {
	case name == "":
		return &ValueError{field, name, "empty"}
	case len(name) > 15:
		return &ValueError{field, name, fmt.Sprintf("%d bytes, and a device's name has at most 15", len(name))}
	case name == "." || name == ".." || name == "lo" || name == "all" || name == "default":
		return &ValueError{field, name, "not a name for a device"}
	}
	for _, b := range []byte(name) {
		if b <= ' ' || b >= 0x7f || strings.IndexByte(`/:%"\`, b) >= 0 {
			return &ValueError{field, name, "has a character that a device's name must not have"}
		}
	}
	return nil
}

func checkMTU(n int) error {
	if n != 0 && (n < 68 || n > 65535) {
		return &ValueError{"MTU", strconv.Itoa(n), "not between 68 and 65535"}
	}
	return nil
}

func checkMAC(mac net.HardwareAddr) error {
	switch {
	case mac == nil:
		return nil
	case len(mac) != 6:
		return &ValueError{"MAC", mac.String(), "not 6 bytes"}
	case mac[0]&1 != 0 || mac.String() == "00:00:00:00:00:00":
		return &ValueError{"MAC", mac.String(), "not the address of one device"}
	}
	return nil
}

func checkAddress(a netip.Prefix) error {
	switch {
	case !a.IsValid() || a.Addr().Zone() != "" || a.Addr().Is4In6():
		return &ValueError{"Addresses", a.String(), "not an address with the length of its prefix"}
	case a.Addr().IsUnspecified() || a.Addr().IsMulticast():
		return &ValueError{"Addresses", a.String(), "not the address of one host"}
	}
	return nil
}

// claim gives the card its name and sees to it that no other has it.
func (c Card) claim(p *plan.Plan) (Card, error) {
	if c.Name == "" {
		for i := 0; ; i++ {
			if c.Name = "eth" + strconv.Itoa(i); !p.Has(deviceClaim(c.Name)) {
				break
			}
		}
	}
	return c, p.Claim(deviceClaim(c.Name))
}

func deviceClaim(name string) string { return "network device " + strconv.Quote(name) }
