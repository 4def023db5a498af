//go:build linux

package firewall

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// Resolver answers the questions of sandboxes whose policies have rules with names: it asks others, pins the addresses that it hears for as long as they are valid, and
// only then answers. It knows the sandboxes on the same bridge by their [Rules].Names itself. It answers for these and for the names in the rules alone, and for addresses (A, AAAA) alone; of other records there are none. Everything else is refused, which closes the
// way out of a sandbox by questions for names that nobody has.
type Resolver struct {
	// Upstream are the resolvers that are asked, one after the other, until one answers. At least one.
	Upstream []netip.AddrPort

	// Private takes answers with addresses of private networks, too (RFC 1918, RFC 4193, RFC 6598). False: they are left out, since whoever owns an allowed name could let it point to the host or its
	// neighbours. Loopback, link-local and multicast addresses are always left out.
	Private bool

	// Forward answers for all other names, too, to sandboxes that have a Policy.Resolver and no rule with names: their policies are about addresses, and hold as they are. Still
	// for addresses alone.
	Forward bool

	// Dial connects to an upstream resolver; network is "udp" or "tcp". Nil: as net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

const (
	perUpstream = 2 * time.Second  // how long one upstream resolver may take
	perStream   = 10 * time.Second // how long a sandbox may keep a connection
	atOnce      = 256              // questions; further ones are lost, as on a busy network
)

// Serve answers questions of sandboxes whose rules this Firewall holds, until the context is done, or a socket fails: nil, or the socket's error. The sockets listen at the address of Policy.Resolver; either of them may
// be nil. Serve closes them.
func (r Resolver) Serve(ctx context.Context, f *Firewall, packets net.PacketConn, streams net.Listener) error {
	if len(r.Upstream) == 0 {
		return &RuleError{"Resolver.Upstream", "", "there is nobody to ask"}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &serving{Resolver: r, ctx: ctx, f: f, slots: make(chan struct{}, atOnce)}
	var wg sync.WaitGroup
	for _, serve := range []func() error{func() error { return s.packets(packets) }, func() error { return s.streams(streams) }} {
		wg.Go(func() { cancel(serve()) })
	}
	<-ctx.Done()
	if packets != nil {
		packets.Close()
	}
	if streams != nil {
		streams.Close()
	}
	wg.Wait()
	s.running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// serving is a Resolver at work.
type serving struct {
	Resolver
	ctx     context.Context
	f       *Firewall
	slots   chan struct{}
	running sync.WaitGroup
}

// begin runs work in a goroutine if there is a free slot.
func (s *serving) begin(work func()) bool {
	select {
	case s.slots <- struct{}{}:
	default:
		return false
	}
	s.running.Go(func() {
		defer func() { <-s.slots }()
		work()
	})
	return true
}

func (s *serving) packets(conn net.PacketConn) error {
	if conn == nil {
		<-s.ctx.Done()
		return nil
	}
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		query := append([]byte(nil), buf[:n]...)
		s.begin(func() {
			if answer := s.answer(addrFrom(from), query, 512); answer != nil {
				conn.WriteTo(answer, from)
			}
		})
	}
}

func (s *serving) streams(l net.Listener) error {
	if l == nil {
		<-s.ctx.Done()
		return nil
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if !s.begin(func() { s.stream(c) }) {
			c.Close()
		}
	}
}

// stream answers questions that come over one connection.
func (s *serving) stream(c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(s.ctx, func() { c.Close() })
	defer stop()
	c.SetDeadline(time.Now().Add(perStream))
	for {
		query, err := readFramed(c)
		if err != nil {
			return
		}
		answer := s.answer(addrFrom(c.RemoteAddr()), query, 65535)
		if answer == nil || writeFramed(c, answer) != nil {
			return
		}
	}
}

func readFramed(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFramed(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

func addrFrom(a net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap().WithZone("")
}

// answer gives the answer to a query, of at most a size; nil where there should be none.
func (s *serving) answer(from netip.Addr, query []byte, size int) []byte {
	h, q, err := question(query)
	if err != nil {
		return nil // no query at all, or one that no program asks
	}
	found := s.find(from, q)
	answer, err := reply(h, q, found)
	if err != nil || len(answer) > size { // is asked for again by TCP
		answer, err = reply(h, q, foundAddrs{truncated: true})
	}
	if err != nil {
		return nil
	}
	return answer
}

// find asks, and pins what it hears.
func (s *serving) find(from netip.Addr, q dnsmessage.Question) foundAddrs {
	held, sets, named := s.f.setsFor(from, q.Name.String(), q.Type == dnsmessage.TypeA)
	if held == nil {
		return foundAddrs{rcode: dnsmessage.RCodeRefused}
	}
	if label, ok := oneLabel(q.Name.String()); ok {
		found, err := s.neighbour(from, label, q.Type)
		switch {
		case err != nil:
			return foundAddrs{rcode: dnsmessage.RCodeServerFailure}
		case found.rcode == dnsmessage.RCodeSuccess:
			return s.pin(held, sets, found)
		case sets == nil:
			return found
		}
	}
	switch {
	case sets == nil && (named || !s.Forward):
		return foundAddrs{rcode: dnsmessage.RCodeRefused}
	case q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA:
		return foundAddrs{}
	}
	found, err := s.upstream(q)
	if err != nil {
		return foundAddrs{rcode: dnsmessage.RCodeServerFailure}
	}
	found.addrs = s.acceptable(found.addrs)
	return s.pin(held, sets, found)
}

func (s *serving) acceptable(addrs []netip.Addr) (list []netip.Addr) {
	for _, a := range addrs {
		if !never(a) && (s.Private || !private(a)) {
			list = append(list, a)
		}
	}
	return list
}

// upstream asks one resolver after the other.
func (s *serving) upstream(q dnsmessage.Question) (found foundAddrs, err error) {
	for _, u := range s.Upstream {
		found, err = s.exchange("udp", u, q)
		if err == nil && found.truncated {
			found, err = s.exchange("tcp", u, q)
		}
		if err == nil && found.rcode != dnsmessage.RCodeServerFailure && found.rcode != dnsmessage.RCodeRefused {
			return found, nil
		}
	}
	return found, err
}

// exchange asks once. The number of the query and the port that it comes from are random; what does not fit to the question is passed over.
func (s *serving) exchange(network string, to netip.AddrPort, q dnsmessage.Question) (foundAddrs, error) {
	ctx, cancel := context.WithTimeout(s.ctx, perUpstream)
	defer cancel()
	dial := s.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	c, err := dial(ctx, network, to.String())
	if err != nil {
		return foundAddrs{}, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	var number [2]byte
	rand.Read(number[:])
	id := binary.BigEndian.Uint16(number[:])
	query, err := ask(id, q)
	if err != nil {
		return foundAddrs{}, err
	}
	if network == "tcp" {
		return overStream(c, id, q, query)
	}
	return overPackets(c, id, q, query)
}

func overStream(c net.Conn, id uint16, q dnsmessage.Question, query []byte) (foundAddrs, error) {
	if err := writeFramed(c, query); err != nil {
		return foundAddrs{}, err
	}
	answer, err := readFramed(c)
	if err != nil {
		return foundAddrs{}, err
	}
	found, err := answerTo(id, q, answer)
	if err == nil && found.truncated {
		err = unix.EMSGSIZE
	}
	return found, err
}

func overPackets(c net.Conn, id uint16, q dnsmessage.Question, query []byte) (foundAddrs, error) {
	if _, err := c.Write(query); err != nil {
		return foundAddrs{}, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return foundAddrs{}, err
		}
		if found, err := answerTo(id, q, buf[:n]); err == nil {
			return found, nil
		}
	}
}
