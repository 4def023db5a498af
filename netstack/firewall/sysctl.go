//go:build linux

package firewall

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/procfs"
	"github.com/caisson-dev/caisson/netstack/internal/batch"
)

// sysctls are the parameters of the network namespace of the calling thread (ip-sysctl.rst).
type sysctls struct {
	proc *procfs.FS
	on   map[string]bool // those of interfaces that the change which is being made has found on: see [Firewall.localnetWas]
}

func openSysctls() (sysctls, error) {
	proc, err := procfs.Open()
	return sysctls{proc: proc, on: map[string]bool{}}, err
}

func (s sysctls) Close() error { return s.proc.Close() }

// want sees to it that a parameter has a value. change false: it is not ours to change.
func (s sysctls) want(name, value string, change bool, hint string) error {
	have, err := s.proc.Read(name)
	have = strings.TrimSpace(have)
	if err == nil && have == value {
		return nil
	}
	e := &SysctlError{Name: sysctlName(name), Have: have, Want: value, Hint: hint}
	switch {
	case err != nil:
		e.Err, e.Have = err, "unknown"
	case !change:
		e.Err = &reason{"is not changed without being asked to", errors.ErrUnsupported}
	default:
		if e.Err = s.proc.Write(name, value); e.Err == nil {
			return nil
		}
		if errors.Is(e.Err, fs.ErrPermission) {
			e.Hint = "needs CAP_NET_ADMIN, and a writable /proc/sys"
		}
	}
	return e
}

// forwarding sees to it that packets of the families are forwarded.
func (s sysctls) forwarding(v4, v6, change bool) error {
	const hint = "set it, or ask for it with Host.Forward"
	if v4 {
		if err := s.want("sys/net/ipv4/ip_forward", "1", change, hint); err != nil {
			return err
		}
	}
	if v6 {
		return s.want("sys/net/ipv6/conf/all/forwarding", "1", change, hint)
	}
	return nil
}

// forwarding sees to it that packets of the families are forwarded. Most often they are, and the kernel says so without a file.
func (f *Firewall) forwarding(v4, v6 bool) error {
	return f.sys.forwarding(v4 && !f.forwards(unix.AF_INET), v6 && !f.forwards(unix.AF_INET6), f.host.Forward)
}

// forwards reports whether the kernel forwards packets of a family; false: it does not, or does not say so (struct netconfmsg of linux/netconf.h).
func (f *Firewall) forwards(family byte) bool {
	const ifindex, forwarding, all = 1, 2, ^uint32(0) // NETCONFA_IFINDEX, NETCONFA_FORWARDING, NETCONFA_IFINDEX_ALL
	answers, err := f.ask.Do(batch.Request{Type: unix.RTM_GETNETCONF, Body: batch.Uint32([]byte{family, 0, 0, 0}, ifindex, all)})
	if err != nil || len(answers[0]) < 4 {
		return false
	}
	for kind, v := range batch.Attrs(answers[0][4:]) {
		if kind == forwarding && len(v) == 4 {
			return binary.NativeEndian.Uint32(v) == 1
		}
	}
	return false
}

func localnetFile(name string) string { return "sys/net/ipv4/conf/" + name + "/route_localnet" }

func sysctlName(file string) string {
	// A dot in the name of an interface is written as a slash, see sysctl(8).
	swap := strings.NewReplacer("/", ".", ".", "/")
	return swap.Replace(strings.TrimPrefix(file, "sys/"))
}

// needsForwarding says which families the rules forward.
func (r Rules) needsForwarding() (v4, v6 bool) {
	note := func(is4 bool) { v4, v6 = v4 || is4, v6 || !is4 }
	for _, p := range r.Pools {
		note(p.Addr().Is4())
	}
	for _, s := range r.Services {
		note(s.Addr.Is4())
	}
	for _, p := range r.Publish {
		for _, t := range p.targets(r) {
			note(t.Is4())
		}
	}
	if r.Masquerade || r.Policy.any() {
		for _, c := range r.Cards {
			for _, a := range c.Addrs {
				note(a.Is4())
			}
		}
	}
	return v4, v6
}
