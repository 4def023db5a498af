//go:build linux

package firewall

// OnStep has f called before each step that changes something.
func OnStep(fw *Firewall, f func(string)) { fw.step = f }

// WithPrograms chooses programs: "legacy-" is iptables-legacy-restore and so on.
func WithPrograms(h Host, ip, bridge string) Host {
	h.variants = map[string][]string{ip4tables: {ip}, ip6tables: {ip}, ebtables: {bridge}}
	return h
}
