//go:build linux

package firewall

// OnStep has f called before each step that changes something.
func OnStep(fw *Firewall, f func(string)) { fw.step = f }
