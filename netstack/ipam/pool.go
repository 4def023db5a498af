//go:build linux

package ipam

import (
	"net/netip"
	"strings"
	"syscall"
)

// Pool is one subnet or several, and the directory of their reservations. It is a value: all that changes is on disk, so any number of pools, in any number of processes, may
// share a directory. The zero value gives out nothing.
type Pool struct {
	// Dir is made when it is not there, for its owner only. It must be on a local file system, and writable to none who is not trusted with the addresses.
	Dir string

	// Subnets must not overlap.
	Subnets []Subnet
}

// Request is what is asked of a pool. The zero value asks for the next free address of each subnet.
type Request struct {
	// Addresses are those wanted, at most one of each subnet; subnets of which none is wanted give the next free one.
	Addresses []netip.Addr

	// Owner is who gets the reservation, for those who look and for [Pool.Sweep]. One line of at most 255 bytes.
	Owner string

	// Names are host names under which others find the owner, without white space.
	Names []string
}

// Lease is a reservation of one address of each subnet.
type Lease struct {
	Addresses []netip.Prefix // with the length of the subnet's prefix, in the order of the subnets
	Gateways  []netip.Addr   // of the subnets, in the same order

	pool  Pool
	owner string
}

// Held is a reservation of one address, as it is found on disk.
type Held struct {
	Addr  netip.Addr
	Owner string
	Names []string
}

// Check reports what makes no sense: a [*SubnetError].
func (p Pool) Check() error {
	for i, s := range p.Subnets {
		if err := s.check(); err != nil {
			return err
		}
		for _, other := range p.Subnets[:i] {
			if s.Prefix.Overlaps(other.Prefix) {
				return &SubnetError{s, "overlaps " + other.Prefix.String()}
			}
		}
	}
	return nil
}

// CheckRequest reports what makes no sense in a request to the pool: a [*RequestError], or an [*AddressError].
func (p Pool) CheckRequest(r Request) error {
	for _, text := range append([]string{r.Owner}, r.Names...) {
		if len(text) > 255 || strings.ContainsAny(text, "\n\x00") {
			return &RequestError{text, "not one line of at most 255 bytes"}
		}
	}
	for _, name := range r.Names {
		if name == "" || strings.ContainsAny(name, " \t\r#") {
			return &RequestError{name, "not a host name"}
		}
	}
	seen := map[int]netip.Addr{}
	for _, a := range r.Addresses {
		i := p.subnetOf(a)
		switch {
		case i < 0:
			return &AddressError{a, "in no subnet of the pool"}
		case a == p.Subnets[i].GatewayAddr():
			return &AddressError{a, "the gateway's own"}
		case !p.Subnets[i].usable(a):
			return &AddressError{a, "not one of a host"}
		case seen[i].IsValid():
			return &AddressError{a, "in the same subnet as " + seen[i].String()}
		}
		seen[i] = a
	}
	return nil
}

// RequestError says that a request makes no sense. It is an EINVAL for errors.Is.
type RequestError struct{ Value, Reason string }

// Error gives the value and what is wrong with it.
func (e *RequestError) Error() string { return "reserve an address: " + e.Value + ": " + e.Reason }

// Unwrap gives EINVAL.
func (e *RequestError) Unwrap() error { return syscall.EINVAL }

func (p Pool) subnetOf(a netip.Addr) int {
	for i, s := range p.Subnets {
		if a.IsValid() && s.Prefix.Contains(a) {
			return i
		}
	}
	return -1
}

// Take reserves one address of each subnet, all or none.
func (p Pool) Take(r Request) (*Lease, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := p.CheckRequest(r); err != nil {
		return nil, err
	}
	d, err := p.lock()
	if err != nil {
		return nil, err
	}
	defer d.unlock()
	l := &Lease{pool: p, owner: r.Owner}
	for _, s := range p.Subnets {
		a, err := d.take(s, r)
		if err != nil {
			d.drop(l)
			return nil, err
		}
		l.Addresses = append(l.Addresses, netip.PrefixFrom(a, s.Prefix.Bits()))
		l.Gateways = append(l.Gateways, s.GatewayAddr())
	}
	return l, nil
}

// Release gives the addresses back. What is not the lease's any more is left alone, so to release twice does no harm.
func (l *Lease) Release() error {
	d, err := l.pool.lock()
	if err != nil {
		return err
	}
	defer d.unlock()
	return d.drop(l)
}

// Leases lists what is reserved, ordered by address.
func (p Pool) Leases() ([]Held, error) {
	d, err := p.lock()
	if err != nil {
		return nil, err
	}
	defer d.unlock()
	return d.list()
}

// Release gives back all that the owner has.
func (p Pool) Release(owner string) error {
	_, err := p.Sweep(func(o string) bool { return o == owner })
	return err
}

// Sweep releases the reservations of the owners who are gone, and tells how many that were. The function is called once for each owner, under the pool's lock.
func (p Pool) Sweep(gone func(owner string) bool) (int, error) {
	d, err := p.lock()
	if err != nil {
		return 0, err
	}
	defer d.unlock()
	all, err := d.list()
	if err != nil {
		return 0, err
	}
	known, n := map[string]bool{}, 0
	for _, h := range all {
		is, asked := known[h.Owner]
		if !asked {
			is = gone(h.Owner)
			known[h.Owner] = is
		}
		if !is {
			continue
		}
		if err := d.remove(h.Addr); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
