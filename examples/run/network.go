//go:build linux

package main

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/firewall"
	"github.com/caisson-dev/caisson/plan"
)

// network is what the flags say of the network. The zero value is none.
type network struct {
	kind, arg string // "bridge" and its name, "macvlan" and its parent; or "host"
	publish   []netstack.Port
	exposed   []netstack.Port // what --publish-all publishes
	all       bool
	ip        []netip.Prefix
	mac       net.HardwareAddr
	resolv    netstack.Resolv
	hosts     []netstack.HostEntry
	bandwidth netstack.Bandwidth
	egress    []firewall.Rule
}

// networks are the kinds, and whether they take an argument.
var networks = map[string]bool{"none": false, "host": false, "bridge": true, "container": true, "macvlan": true, "ipvlan": true, "pasta": false, "slirp4netns": false}

func (n *network) define(def func(func(string) error, ...string)) {
	def(n.setKind, "network", "net")
	def(each(&n.publish, parsePort), "publish", "p")
	def(n.expose, "expose")
	def(each(&n.ip, parseAddress), "ip", "ip6")
	def(value(&n.mac, net.ParseMAC), "mac-address")
	def(each(&n.resolv.Nameservers, netip.ParseAddr), "dns")
	def(each(&n.resolv.Search, nonEmpty), "dns-search")
	def(each(&n.resolv.Options, nonEmpty), "dns-option", "dns-opt")
	def(each(&n.hosts, parseHost), "add-host")
	def(value(&n.bandwidth, parseBandwidth), "bandwidth")
	def(each(&n.egress, parseEgress), "egress")
}

// setKind reads KIND or KIND:ARGUMENT.
func (n *network) setKind(s string) error {
	kind, arg, given := strings.Cut(s, ":")
	takes, known := networks[kind]
	switch {
	case s == "":
	case !known:
		return errors.New("not one of none, host, bridge[:NAME], container:PID, macvlan:PARENT, ipvlan:PARENT, pasta, slirp4netns")
	case given && (!takes || arg == ""):
		return errors.New("what is " + strconv.Quote(s) + "?")
	case takes && !given && kind != "bridge":
		return errors.New(kind + " wants more: " + kind + ":" + map[bool]string{true: "PID", false: "PARENT"}[kind == "container"])
	}
	n.kind, n.arg = kind, arg
	return nil
}

// check finds flags that do not go together.
func (n *network) check() error {
	switch {
	case !slices.Contains([]string{"bridge", "pasta", "slirp4netns"}, n.kind) && len(n.publish) > 0:
		return errors.New("--publish goes with --network bridge, pasta and slirp4netns")
	case n.kind != "bridge" && n.all:
		return errors.New("--publish-all goes with --network bridge")
	case n.kind != "bridge" && n.bandwidth != netstack.Bandwidth{}:
		return errors.New("--bandwidth goes with --network bridge")
	case n.kind != "bridge" && len(n.egress) > 0:
		return errors.New("--egress goes with --network bridge")
	case n.kind != "bridge" && n.kind != "macvlan" && n.kind != "ipvlan" && (len(n.ip) > 0 || n.mac != nil):
		return errors.New("--ip and --mac-address go with --network bridge, macvlan and ipvlan")
	case n.kind == "ipvlan" && n.mac != nil:
		return errors.New("--mac-address does not go with --network ipvlan: it is the parent's")
	}
	return nil
}

// parseAddress reads an address, with or without the length of its network's prefix.
func parseAddress(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	return netip.PrefixFrom(a, a.BitLen()), err
}

// addresses are those of a bridge's network, which knows the lengths.
func (n *network) addresses() (all []netip.Addr) {
	for _, p := range n.ip {
		all = append(all, p.Addr())
	}
	return all
}

// own reports whether the sandbox has a network of its own, as opposed to the host's or another one's.
func (n *network) own() bool { return n.kind != "host" && n.kind != "container" }

// part is the network itself.
func (n *network) part(host string) (plan.Primitive, error) {
	card := netstack.Card{MAC: n.mac}
	switch n.kind {
	case "host":
		return netstack.Host{}, nil
	case "bridge":
		policy, resolver, err := n.policy()
		return netstack.Bridge{Name: n.arg, Addresses: n.addresses(), Masquerade: true, Publish: n.published(), Hosts: []string{host}, Card: card, Bandwidth: n.bandwidth, Policy: policy, Resolver: resolver}, err
	case "pasta":
		return netstack.Pasta{Publish: n.publish}, nil
	case "slirp4netns":
		return netstack.Slirp{Publish: n.publish}, nil
	case "container":
		pid, err := strconv.Atoi(n.arg)
		if err != nil || pid <= 0 {
			return nil, errors.New("--network container: not a process: " + strconv.Quote(n.arg))
		}
		return netstack.Join{PID: pid}, nil
	}
	card.Addresses = n.ip
	switch n.kind {
	case "macvlan":
		return netstack.Macvlan{Parent: n.arg, Card: card}, nil
	case "ipvlan":
		return netstack.Ipvlan{Parent: n.arg, Card: card}, nil
	}
	return netstack.None{}, nil
}

// files are resolv.conf, hosts and hostname: the sandbox's own where it is on a network, or where something is said of them.
func (f *flags) files(host string) (all []mount, err error) {
	n := &f.network
	connected := n.own() && n.kind != "none" && n.kind != ""
	add := func(name string, data []byte, e error) {
		err = cmp.Or(err, e)
		if f.fits(name) {
			all = append(all, mount{name, chroot.File{Path: name, Data: data}})
		}
	}
	if r := n.resolv; connected || r.Nameservers != nil || r.Search != nil || r.Options != nil {
		data, e := over(r).Bytes()
		add("/etc/resolv.conf", data, e)
	}
	if connected || n.hosts != nil {
		data, e := netstack.Hosts(n.hosts...)
		add("/etc/hosts", data, e)
	}
	if connected && f.uts != "host" {
		data, e := netstack.HostnameFile(host)
		add("/etc/hostname", data, e)
	}
	return all, err
}

// fits reports whether there is, or can be, a file of that name in the root. The host's own root is read-only.
func (f *flags) fits(name string) bool {
	st, err := os.Stat(name)
	return f.ownRoot() || err == nil && st.Mode().IsRegular()
}

// over is what is asked for, and for the rest what the host has and the sandbox can use.
func over(r netstack.Resolv) netstack.Resolv {
	host, err := netstack.HostResolv()
	if err != nil {
		return r // the host has none that can be reached; names are then not found
	}
	if r.Nameservers == nil {
		r.Nameservers = host.Nameservers
	}
	if r.Search == nil {
		r.Search = host.Search
	}
	if r.Options == nil {
		r.Options = host.Options
	}
	return r
}

// parseHost reads NAME:ADDRESS, or NAME=ADDRESS.
func parseHost(s string) (h netstack.HostEntry, err error) {
	name, addr, found := strings.Cut(s, "=")
	if !found {
		name, addr, found = strings.Cut(s, ":")
	}
	if !found || name == "" {
		return h, errors.New("not NAME:ADDRESS")
	}
	h.Names = []string{name}
	h.Addr, err = netip.ParseAddr(strings.Trim(addr, "[]"))
	return h, err
}
