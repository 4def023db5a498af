//go:build linux

package firewall

import (
	"errors"
	"io/fs"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// What is published on 127.0.0.1 is translated to the sandbox's address, and the kernel routes packets from or to 127.0.0.0/8 only over interfaces that have
// route_localnet. With it, whoever is behind the interface could reach what listens on 127.0.0.1 of the host; the chain raw forbids that for the interfaces in the set
// localnet, which come into it before the parameter is changed, and leave it after it has been changed back.

// The owners of what belongs to no single one: a bridge over which 127.0.0.1 is translated.
const (
	sharedOff = ".off" // route_localnet was off before
	sharedOn  = ".on"  // somebody else had it on
)

// noteLocalnet adds interfaces to the set. One that is there already stays as it is: the kernel does not mind.
func (f *Firewall) noteLocalnet(names []string, add func(*nftables.Set, []nftables.SetElement) error) {
	for _, n := range names {
		add(f.sets[setID{false, localnet}], []nftables.SetElement{{Key: interfaceName(n), Comment: f.localnetWas(n)}})
	}
}

// localnetWas says whether somebody else has route_localnet on.
func (f *Firewall) localnetWas(name string) string {
	have, err := f.sys.proc.Read(localnetFile(name))
	f.sys.on[name] = err == nil && have == "1\n"
	if f.sys.on[name] {
		return sharedOn
	}
	return sharedOff
}

func (f *Firewall) allowLocalnet(names []string) error {
	defer clear(f.sys.on)
	for _, n := range names {
		f.step("route_localnet of " + n)
		if f.sys.on[n] {
			continue
		}
		if err := f.sys.want(localnetFile(n), "1", true, "it lets the host reach what is published on 127.0.0.1"); err != nil {
			return err
		}
	}
	return nil
}

// forbidLocalnet takes back what allowLocalnet did.
func (f *Firewall) forbidLocalnet() error {
	list, err := f.conn.GetSetElements(f.sets[setID{false, localnet}])
	if err != nil {
		return refused("", err)
	}
	for _, e := range list {
		if e.Comment != sharedOff {
			continue
		}
		if err := f.forbidOne(unix.ByteSliceToString(e.Key)); err != nil {
			return err
		}
	}
	return nil
}

func (f *Firewall) forbidOne(name string) error {
	f.step("route_localnet of " + name)
	err := f.sys.want(localnetFile(name), "0", true, "")
	if errors.Is(err, fs.ErrNotExist) { // the bridge may be gone
		return nil
	}
	return err
}
