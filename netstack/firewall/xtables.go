//go:build linux

package firewall

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// The programs of xtables. Each has tables of its own in the kernel.
const (
	ip4tables = "iptables"
	ip6tables = "ip6tables"
	ebtables  = "ebtables" // frames on bridges
)

// xprefix begins the names of the chains that all owners share. It has the version of the layout in it.
const xprefix = "caisson-v1-"

// xline is one line of a chain, as iptables(8) and ebtables(8) write it.
type xline struct {
	tool, table, chain string
	first              bool // before what is in the chain, and not behind it
	text               string
}

// xchain is a chain that all owners share: its own lines are before those of the owners (head), or behind them (tail).
type xchain struct {
	tool, table, name string
	hook              string // the built-in chain whose first line leads here
	head, tail        []string
}

// xlayout lists the shared chains, those that are jumped to before those that jump.
func xlayout() (list []xchain) {
	for _, tool := range []string{ip4tables, ip6tables} {
		list = append(list, xlayoutIP(tool)...)
	}
	chain := func(table, name, hook string, head ...string) {
		list = append(list, xchain{tool: ebtables, table: table, name: xprefix + name, hook: hook, head: head})
	}
	// A frame is steered only after it has been checked, whoever's rules come first.
	chain("nat", "check", "")
	chain("nat", "steer", "")
	chain("nat", "arrived", "PREROUTING", "-j caisson-v1-check", "-j caisson-v1-steer")
	chain("filter", "to", "")
	chain("filter", "from", "")
	chain("filter", "advert", "")
	// Frames that were for the host, and that br_netfilter has translated to a neighbour's address; see bridgedRules.
	chain("filter", "bridged", "FORWARD", "-j caisson-v1-advert", "--pkttype-type host -j RETURN")
	// Frames that the bridge itself would take, such as those of the spanning tree, do not come by PREROUTING.
	chain("filter", "control", "INPUT", "-j caisson-v1-advert", "-p IPv4 -j RETURN", "-p IPv6 -j RETURN", "-p ARP -j RETURN")
	return list
}

func xlayoutIP(tool string) (list []xchain) {
	chain := func(table, name, hook string, head ...string) {
		list = append(list, xchain{tool: tool, table: table, name: xprefix + name, hook: hook, head: head})
	}
	last := func(text string) { list[len(list)-1].tail = []string{text} }
	loopback, multicast := "127.0.0.0/8", "224.0.0.0/3"
	toLoopback, discovery := []string{}, []string{}
	if tool == ip6tables {
		loopback, multicast = "::1/128", "ff00::/8"
		toLoopback = []string{"-d ::1/128 -j RETURN"} // see translateRules
		discovery = xdiscovery("")
	}
	established := "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
	chain("raw", "raw", "PREROUTING")
	chain("filter", "to", "")
	chain("filter", "from", "")
	chain("filter", "private", "")
	last("-j DROP")
	chain("filter", "fwd", "FORWARD", established)
	chain("filter", "input", "INPUT", append([]string{established}, discovery...)...)
	chain("filter", "own", "OUTPUT")
	for _, name := range []string{"dns", "svc", "addr", "any", "masq-to", "hair"} {
		chain("nat", name, "")
	}
	translate := []string{"-j caisson-v1-svc", "-j caisson-v1-addr", "-j caisson-v1-any"}
	chain("nat", "in", "PREROUTING", append([]string{"-d " + loopback + " -j RETURN", "-j caisson-v1-dns"}, translate...)...)
	chain("nat", "out", "OUTPUT", append(toLoopback, translate...)...)
	chain("nat", "leave", "", "-d "+multicast+" -j RETURN")
	last("-j MASQUERADE")
	chain("nat", "masq", "POSTROUTING", "-s "+loopback+" -j caisson-v1-masq-to", "-m conntrack --ctstate DNAT -j caisson-v1-hair")
	return list
}

// xdiscovery lets the messages by which a host finds its neighbours pass, whatever their source.
func xdiscovery(match string) []string {
	var list []string
	for _, kind := range []string{"133", "135", "136"} {
		list = append(list, match+"-p ipv6-icmp --icmpv6-type "+kind+" -j RETURN")
	}
	return list
}

// xhash stands for an id in the names of chains, which have 28 characters at most.
func xhash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:6])
}

// xown names a chain of one owner's own.
func xown(id, what string) string { return "caisson-" + xhash(id) + "-" + what }

// ownerOfChain gives the hash in the name of a chain of one owner's own, or "".
func ownerOfChain(name string) string {
	rest, ok := strings.CutPrefix(name, "caisson-")
	hash, _, ok2 := strings.Cut(rest, "-")
	if !ok || !ok2 || len(hash) != 12 || strings.Trim(hash, "0123456789abcdef") != "" {
		return ""
	}
	return hash
}

// ours reports whether a chain is one of this package.
func ours(name string) bool { return strings.HasPrefix(name, xprefix) || ownerOfChain(name) != "" }

// listed is what a program shows of a table, as far as it is ours.
type listed struct {
	chains []string            // ours
	lines  map[string][]string // of a chain: without its name; of built-in chains too
}

// owners are the hashes of those who have something there; ids has those that are known by name.
func (l listed) owners() (hashes map[string]bool, ids map[string]string) {
	hashes, ids = map[string]bool{}, map[string]string{}
	for _, c := range l.chains {
		if h := ownerOfChain(c); h != "" {
			hashes[h] = true
		}
		for _, line := range l.lines[c] {
			if h, id := ownerOfLine(line); h != "" {
				hashes[h] = true
				if id != "" {
					ids[h] = id
				}
			}
		}
	}
	return hashes, ids
}

// ownerOfLine finds out whose line it is: the comment says so, or the chain of his own that it leads to. Lines of the layout have neither; the comments of what all share begin with a dot.
func ownerOfLine(line string) (hash, id string) {
	words := strings.Fields(line)
	if i := slices.Index(words, "--comment"); i >= 0 && i+1 < len(words) {
		id := strings.Trim(words[i+1], `"`)
		if strings.HasPrefix(id, ".") {
			return "", ""
		}
		return xhash(id), id
	}
	if i := slices.Index(words, "-j"); i >= 0 && i+1 < len(words) {
		return ownerOfChain(words[i+1]), ""
	}
	return "", ""
}

// parseSave reads what iptables-save writes: tables by name.
func parseSave(text string) map[string]listed {
	tables, table := map[string]listed{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
			tables[table] = listed{lines: map[string][]string{}}
		case strings.HasPrefix(line, ":") && table != "":
			t := tables[table]
			if name, _, _ := strings.Cut(line[1:], " "); ours(name) {
				t.chains = append(t.chains, name)
			}
			tables[table] = t
		case strings.HasPrefix(line, "-A ") && table != "":
			chain, rest, _ := strings.Cut(line[3:], " ")
			tables[table].lines[chain] = append(tables[table].lines[chain], rest)
		}
	}
	return tables
}

// parseList reads what ebtables -L writes of one table.
func parseList(text string) listed {
	l, chain := listed{lines: map[string][]string{}}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "Bridge chain: "); ok {
			chain, _, _ = strings.Cut(name, ",")
			if ours(chain) {
				l.chains = append(l.chains, chain)
			}
			continue
		}
		if strings.HasPrefix(line, "-") && chain != "" {
			l.lines[chain] = append(l.lines[chain], line)
		}
	}
	return l
}
