//go:build linux

package netstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caisson-dev/caisson/netstack/firewall"
	"github.com/caisson-dev/caisson/netstack/internal/owner"
)

// asks reports whether there is somebody who answers the sandbox's questions for names.
func (b Bridge) asks() bool { return len(b.Resolver.Upstream) > 0 }

// checkResolver refuses names that nobody would find addresses for, and a resolver that is in the way of another one.
func (b Bridge) checkResolver() error {
	r := b.Resolver
	named := false
	for _, rule := range b.Policy.Egress.Rules {
		named = named || len(rule.Names) > 0
	}
	switch {
	case !b.asks() && (r.Private || r.Forward || r.Dial != nil):
		return &ValueError{"Resolver", "", "its Upstream is empty, so that there is nobody to ask"}
	case !b.asks() && named:
		return &ValueError{"Policy", "Names", "without a Resolver nobody finds their addresses"}
	case b.asks() && len(b.Policy.Resolver) > 0:
		return &ValueError{"Policy", fmt.Sprint(b.Policy.Resolver), "the bridge has a Resolver, whose address stands there"}
	case b.asks() && len(b.Subnets) == 0:
		return &ValueError{"Resolver", "", "the bridge has no address at which it could listen"}
	}
	return nil
}

// labels are the host names under which neighbours may ask for the sandbox: those of one label (RFC 1123, 2.1).
func labels(hosts []string) (list []string) {
	other := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}
	for _, h := range hosts {
		if h != "" && len(h) <= 63 && !strings.ContainsFunc(h, other) {
			list = append(list, h)
		}
	}
	return list
}

// answering is a Resolver at work for sandboxes of one bridge.
type answering struct {
	at   []netip.AddrPort
	stop context.CancelFunc
	done sync.WaitGroup
}

// Close ends it.
func (a *answering) Close() error {
	a.stop()
	a.done.Wait()
	return nil
}

// resolverKey tells resolvers apart. Two with a Dial of their own are the same if they are copies of one value.
type resolverKey struct {
	firewall *firewall.Firewall
	bridge   string
	what     string
	own      *netip.AddrPort
}

// answers gives the addresses at which the sandbox's questions are answered, by the same for all that ask the same of the process.
func (t *port) answers(o *owner.Owner, f *firewall.Firewall) ([]netip.AddrPort, error) {
	r := t.Resolver
	key := resolverKey{f, t.Name, fmt.Sprint(t.lease.Gateways, r.Upstream, r.Private, r.Forward), nil}
	if r.Dial != nil {
		key.own = &r.Upstream[0]
	}
	c, err := o.Keep(key, func() (io.Closer, error) { return answer(o, f, r, t.lease.Gateways) })
	if err != nil {
		return nil, &Error{Op: "answer questions on", Device: t.Name, Err: err}
	}
	return c.(*answering).at, nil
}

// answer listens at one gateway of each family.
func answer(o *owner.Owner, f *firewall.Firewall, r firewall.Resolver, gateways []netip.Addr) (*answering, error) {
	if r.Dial == nil { // questions leave from the host's network, which need not be that of the thread
		r.Dial = func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = owner.In(o.Net, func() (err error) {
				c, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return c, err
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	a := &answering{stop: stop}
	for _, g := range gateways {
		if len(a.at) > 0 && a.at[0].Addr().Is4() == g.Is4() || len(a.at) > 1 {
			continue
		}
		var packets net.PacketConn
		var streams net.Listener
		err := owner.In(o.Net, func() (err error) {
			packets, streams, err = listen(g)
			return err
		})
		if err != nil {
			return nil, errors.Join(err, a.Close())
		}
		a.at = append(a.at, netip.AddrPortFrom(g, port16(streams)))
		a.done.Go(func() { r.Serve(ctx, f, packets, patient{streams}) }) // ends with the context: what else would end it is waited for
	}
	return a, nil
}

func port16(l net.Listener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }

// listen finds a port that is free for both protocols.
func listen(at netip.Addr) (p net.PacketConn, l net.Listener, err error) {
	for range 64 {
		if l, err = net.Listen("tcp", netip.AddrPortFrom(at, 0).String()); err != nil {
			return nil, nil, err
		}
		if p, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			return p, l, nil
		}
		l.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, nil, err
}

// patient is a listener that a process without free descriptors does not end: a sandbox could have opened them.
type patient struct{ net.Listener }

// Accept waits until there are some again.
func (p patient) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return c, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
