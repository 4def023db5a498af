//go:build linux

package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
)

// Resolv is the content of resolv.conf(5): how programs find the addresses of names. The zero value finds none. To place it in a sandbox is for package chroot's File, or whatever makes the root.
type Resolv struct {
	Nameservers []netip.Addr // asked in this order; the C library uses three at most
	Search      []string     // domains that are tried behind a name without a dot
	Options     []string     // "ndots:2", "edns0"
}

// ParseResolv reads resolv.conf as the C library does: what it does not know is passed over, and of search and domain the last line counts.
func ParseResolv(text []byte) (r Resolv) {
	for line := range strings.Lines(string(text)) {
		if i := strings.IndexAny(line, "#;"); i == 0 {
			continue
		}
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil {
				r.Nameservers = append(r.Nameservers, a)
			}
		case "search":
			r.Search = words[1:]
		case "domain":
			r.Search = words[1:2]
		case "options":
			r.Options = append(r.Options, words[1:]...)
		}
	}
	return r
}

// HostResolv is what a sandbox with a network of its own can use of the host's resolv.conf. Nameservers on the host's loopback cannot be reached from there, such as systemd-resolved's 127.0.0.53: then what
// that one asks itself is taken, which is where a VPN's nameservers are, too (/run/systemd/resolve/resolv.conf, else NetworkManager's no-stub-resolv.conf). Nameservers with a link-local
// address are left out. Where none is left it is an [*Error] with ENOENT: name some.
func HostResolv() (Resolv, error) { return hostResolv("/") }

func hostResolv(root string) (Resolv, error) {
	var r Resolv
	var problems error
	for i, name := range []string{"etc/resolv.conf", "run/systemd/resolve/resolv.conf", "run/NetworkManager/no-stub-resolv.conf"} {
		text, err := os.ReadFile(root + name)
		if err != nil {
			problems = errors.Join(problems, err)
			continue
		}
		next := ParseResolv(text)
		if i > 0 { // what is wanted beside nameservers is said in /etc
			next.Search, next.Options = either(r.Search, next.Search), either(r.Options, next.Options)
		}
		r = next
		r.Nameservers = slices.DeleteFunc(r.Nameservers, func(a netip.Addr) bool {
			a = a.Unmap()
			return a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.Zone() != ""
		})
		if len(r.Nameservers) > 0 {
			return r, nil
		}
	}
	return r, &Error{Op: "find a nameserver", Err: errors.Join(syscall.ENOENT, problems), Hint: "those of the host's are on its loopback, where a sandbox does not come"}
}

func either(a, b []string) []string {
	if len(a) > 0 {
		return a
	}
	return b
}

// Bytes is the file. A domain or an option with white space in it is a [*ValueError].
func (r Resolv) Bytes() ([]byte, error) {
	var b strings.Builder
	for _, a := range r.Nameservers {
		if !a.IsValid() {
			return nil, &ValueError{"Nameservers", a.String(), "not an address"}
		}
		fmt.Fprintf(&b, "nameserver %v\n", a)
	}
	for _, line := range []struct {
		word, field string
		words       []string
	}{{"search", "Search", r.Search}, {"options", "Options", r.Options}} {
		if len(line.words) == 0 {
			continue
		}
		for _, w := range line.words {
			if !isWord(w) {
				return nil, &ValueError{line.field, w, "not one word"}
			}
		}
		fmt.Fprintf(&b, "%s %s\n", line.word, strings.Join(line.words, " "))
	}
	return []byte(b.String()), nil
}

// isWord reports whether a file of words and lines can hold s as one word.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '#' || c == ';' || c == 0x85 || c == 0xa0 })
}

// HostEntry is one line of hosts(5).
type HostEntry struct {
	Addr  netip.Addr
	Names []string
}

// Hosts is the content of a hosts file: localhost, and then the entries. [Bridge.Names] gives those of a bridge. A name with white space in it, or none, is a [*ValueError].
func Hosts(entries ...HostEntry) ([]byte, error) {
	b := []byte("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, e := range entries {
		if !e.Addr.IsValid() || len(e.Names) == 0 {
			return nil, &ValueError{"Addr", e.Addr.String(), "an entry needs an address and a name"}
		}
		for _, n := range e.Names {
			if !isWord(n) {
				return nil, &ValueError{"Names", n, "not a host name"}
			}
		}
		b = fmt.Appendf(b, "%v\t%s\n", e.Addr, strings.Join(e.Names, " "))
	}
	return b, nil
}

// HostnameFile is the content of /etc/hostname: the name and a newline. What is not one word of at most 64 bytes is a [*ValueError].
func HostnameFile(name string) ([]byte, error) {
	if !isWord(name) || len(name) > 64 {
		return nil, &ValueError{"hostname", name, "not a host name of at most 64 bytes"}
	}
	return []byte(name + "\n"), nil
}
