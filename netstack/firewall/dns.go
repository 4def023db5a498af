//go:build linux

package firewall

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// question reads a query: one question about the Internet, and nothing that would be an answer (RFC 1035, section 4).
func question(query []byte) (dnsmessage.Header, dnsmessage.Question, error) {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return h, dnsmessage.Question{}, err
	}
	q, err := p.Question()
	if err != nil {
		return h, q, err
	}
	if _, more := p.Question(); more != dnsmessage.ErrSectionDone || h.Response || h.OpCode != 0 || q.Class != dnsmessage.ClassINET {
		return h, q, unix.EINVAL
	}
	return h, q, nil
}

// ask makes a query of our own: what a sandbox puts into its query besides the question goes nowhere.
func ask(id uint16, q dnsmessage.Question) ([]byte, error) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true}, Questions: []dnsmessage.Question{q}}
	return m.Pack()
}

// found is what an answer says about a question.
type foundAddrs struct {
	rcode     dnsmessage.RCode
	truncated bool
	ttl       uint32 // in seconds, the least along the way
	addrs     []netip.Addr
}

// mostAddrs is how many addresses of one answer are looked at, and mostAliases how many names lead to them.
const (
	mostAddrs   = 64
	mostAliases = 16
)

// answerTo reads the answer to a query. Addresses count only if the name that was asked for leads to them, by CNAME records of the same answer.
func answerTo(id uint16, q dnsmessage.Question, answer []byte) (foundAddrs, error) {
	var p dnsmessage.Parser
	h, err := p.Start(answer)
	if err != nil {
		return foundAddrs{}, err
	}
	again, err := p.Question()
	if err != nil {
		return foundAddrs{}, err
	}
	if h.ID != id || !h.Response || again.Type != q.Type || again.Class != q.Class || !strings.EqualFold(again.Name.String(), q.Name.String()) {
		return foundAddrs{}, unix.EINVAL // of somebody else, or to something else
	}
	if err := p.SkipAllQuestions(); err != nil {
		return foundAddrs{}, err
	}
	found := foundAddrs{rcode: h.RCode, truncated: h.Truncated}
	if found.truncated || found.rcode != dnsmessage.RCodeSuccess {
		return found, nil
	}
	records, err := p.AllAnswers()
	if err != nil {
		return foundAddrs{}, err
	}
	found.follow(q, records)
	return found, nil
}

// follow goes from the name to its addresses.
func (f *foundAddrs) follow(q dnsmessage.Question, records []dnsmessage.Resource) {
	name := q.Name.String()
	f.ttl = ^uint32(0)
	for range mostAliases {
		next := ""
		for _, r := range records {
			if !strings.EqualFold(r.Header.Name.String(), name) || r.Header.Class != dnsmessage.ClassINET {
				continue
			}
			if alias, ok := r.Body.(*dnsmessage.CNAMEResource); ok && next == "" {
				next = alias.CNAME.String()
				f.ttl = min(f.ttl, r.Header.TTL)
			}
			if a, ok := addrOf(r); ok && r.Header.Type == q.Type && len(f.addrs) < mostAddrs {
				f.addrs = append(f.addrs, a)
				f.ttl = min(f.ttl, r.Header.TTL)
			}
		}
		if next == "" || len(f.addrs) > 0 {
			break
		}
		name = next
	}
}

func addrOf(r dnsmessage.Resource) (netip.Addr, bool) {
	switch b := r.Body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(b.A), true
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(b.AAAA), true
	}
	return netip.Addr{}, false
}

// reply makes the answer for the sandbox: the addresses that it can reach now, under the name that it has asked for.
func reply(h dnsmessage.Header, q dnsmessage.Question, found foundAddrs) ([]byte, error) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: h.ID, Response: true, RecursionDesired: h.RecursionDesired, RecursionAvailable: true, RCode: found.rcode, Truncated: found.truncated},
		Questions: []dnsmessage.Question{q}}
	for _, a := range found.addrs {
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: found.ttl}}
		if a.Is4() {
			r.Body = &dnsmessage.AResource{A: a.As4()}
		} else {
			r.Body = &dnsmessage.AAAAResource{AAAA: a.As16()}
		}
		m.Answers = append(m.Answers, r)
	}
	return m.Pack()
}

// matches reports whether a name is one of the patterns: "example.com", or "*.example.com" for what is below it.
func matches(patterns []string, name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, p := range patterns {
		p = strings.ToLower(strings.TrimSuffix(p, "."))
		if below, ok := strings.CutPrefix(p, "*"); ok && strings.HasSuffix(name, below) && len(name) > len(below) || p == name {
			return true
		}
	}
	return false
}

// private reports whether an address is of no public network: a name that leads there is most often a trick to reach a neighbour (DNS rebinding).
func private(a netip.Addr) bool {
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)
	return a.IsPrivate() || shared.Contains(a) || never(a)
}

// never reports whether an address is of nobody who could be reached by it.
func never(a netip.Addr) bool {
	return a.Is4In6() || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
