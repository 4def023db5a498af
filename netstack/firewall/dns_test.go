//go:build linux

package firewall

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMatches(t *testing.T) {
	for name, want := range map[string]bool{"example.com.": true, "EXAMPLE.com": true, "www.example.com": false, "a.b.example.org.": true, "example.org": false,
		"notexample.org": false, "example.com.evil.net": false, "": false, ".": false} {
		require.Equal(t, want, matches([]string{"Example.com", "*.example.org."}, name), name)
	}
}

func TestPrivateAddresses(t *testing.T) {
	for a, want := range map[string]bool{"10.1.2.3": true, "100.64.0.1": true, "127.0.0.1": true, "169.254.169.254": true, "fd00::1": true, "fe80::1": true, "::1": true, "::": true,
		"::ffff:10.0.0.1": true, "::ffff:192.0.2.1": true, "224.0.0.1": true, "192.0.2.1": false, "100.128.0.1": false, "2001:db8::1": false} {
		require.Equal(t, want, private(netip.MustParseAddr(a)), a)
	}
}

func packed(t testing.TB, m dnsmessage.Message) []byte {
	b, err := m.Pack()
	require.NoError(t, err)
	return b
}

func exampleQuestion() dnsmessage.Question {
	return dnsmessage.Question{Name: dnsmessage.MustNewName("example.com."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
}

func exampleAnswer(id uint16, q dnsmessage.Question) dnsmessage.Message {
	return dnsmessage.Message{Header: dnsmessage.Header{ID: id, Response: true}, Questions: []dnsmessage.Question{q}, Answers: []dnsmessage.Resource{
		{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}, Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("b.net.")}},
		{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("b.net."), Class: dnsmessage.ClassINET, TTL: 30}, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}},
		{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("c.net."), Class: dnsmessage.ClassINET, TTL: 30}, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 99}}}}}
}

// TestAnswer: what was not asked for, or was asked for by somebody else, is not taken.
func TestAnswer(t *testing.T) {
	q := exampleQuestion()
	found, err := answerTo(7, q, packed(t, exampleAnswer(7, q)))
	require.NoError(t, err)
	require.Equal(t, foundAddrs{ttl: 30, addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, found)
	for name, change := range map[string]func(*dnsmessage.Message){
		"id":       func(m *dnsmessage.Message) { m.ID = 8 },
		"query":    func(m *dnsmessage.Message) { m.Response = false },
		"question": func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("b.net.") },
		"type":     func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA },
		"none":     func(m *dnsmessage.Message) { m.Questions = nil },
	} {
		m := exampleAnswer(7, q)
		change(&m)
		_, err := answerTo(7, q, packed(t, m))
		require.Error(t, err, name)
	}
	loop := exampleAnswer(7, q)
	loop.Answers[0].Body = &dnsmessage.CNAMEResource{CNAME: q.Name}
	found, err = answerTo(7, q, packed(t, loop))
	require.NoError(t, err)
	require.Empty(t, found.addrs)
}

func FuzzQuestion(f *testing.F) {
	f.Add(packed(f, dnsmessage.Message{Header: dnsmessage.Header{ID: 1, RecursionDesired: true}, Questions: []dnsmessage.Question{exampleQuestion()}}))
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 192, 12, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, query []byte) {
		h, q, err := question(query)
		if err != nil {
			return
		}
		again, err := ask(h.ID, q)
		if err != nil {
			return // a name that cannot be written
		}
		if _, q2, err := question(again); err != nil || q2 != q {
			t.Fatalf("%v becomes %v: %v", q, q2, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	q := exampleQuestion()
	f.Add(packed(f, exampleAnswer(7, q)))
	f.Fuzz(func(t *testing.T, answer []byte) {
		found, err := answerTo(7, q, answer)
		if err != nil {
			return
		}
		for _, a := range found.addrs {
			if !a.Is4() {
				t.Fatalf("%v is no answer to a question for A", a)
			}
		}
		if len(found.addrs) > mostAddrs {
			t.Fatal("too many")
		}
		if b, err := reply(dnsmessage.Header{ID: 1}, q, found); err == nil {
			var m dnsmessage.Message
			if err := m.Unpack(b); err != nil {
				t.Fatalf("the reply cannot be read: %v", err)
			}
		}
	})
}
