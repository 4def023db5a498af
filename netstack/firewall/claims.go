//go:build linux

package firewall

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// claims is what an owner's file says of him, for others: the tables of iptables would take the same port twice.
type claims struct{ Rules Rules }

// note writes claims into an owner's file. Somebody who reads it takes the first value alone, so that what is left of a longer one does no harm.
func note(f *os.File, c claims) error {
	text, err := json.Marshal(c)
	if err != nil {
		return failed(err, "note the rules")
	}
	if _, err := f.WriteAt(append(text, '\n'), 0); err != nil {
		return failed(err, "note the rules")
	}
	return failed(f.Truncate(int64(len(text)+1)), "note the rules")
}

// touch says that something has changed.
func (d *lockDir) touch() error {
	now := unix.NsecToTimeval(time.Now().UnixNano())
	return failed(unix.Futimes(int(d.file.Fd()), []unix.Timeval{now, now}), "note the rules")
}

// others reads the claims of all other owners. Files are written under the directory's lock.
func (d *lockDir) others(self string) (map[string]claims, error) {
	ids, err := d.ids()
	if err != nil {
		return nil, err
	}
	all := map[string]claims{}
	for _, id := range ids {
		if id == self {
			continue
		}
		if all[id], err = d.claims(id); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// claims reads what an owner has noted: nothing, if he has just begun.
func (d *lockDir) claims(id string) (c claims, err error) {
	text, err := os.ReadFile(d.path + "/" + id)
	if err == nil && len(text) > 0 {
		err = json.NewDecoder(bytes.NewReader(text)).Decode(&c)
	}
	return c, failed(err, "read the rules of %s", id)
}

// claimed finds what of the rules another owner has; nil if nothing is found.
func (d *lockDir) claimed(self string, r Rules) error {
	all, err := d.others(self)
	if err != nil {
		return err
	}
	mine := r.things()
	for id, c := range all {
		for _, p := range c.Rules.Pools {
			if i := slices.IndexFunc(r.Pools, p.Overlaps); i >= 0 {
				return &ConflictError{What: "pool " + r.Pools[i].String(), Owner: id}
			}
		}
		for thing := range c.Rules.things() {
			if what, ok := mine[thing]; ok {
				return &ConflictError{What: what, Owner: id}
			}
		}
	}
	return nil
}

// things are what only one owner can have, with what people call them.
func (r Rules) things() map[string]string {
	things := map[string]string{}
	for _, c := range r.Cards {
		things["card "+c.Name] = "interface " + c.Name
	}
	for a := range r.addrs() {
		things["address "+a.String()] = "address " + a.String()
	}
	for _, p := range r.Publish {
		for _, b := range p.bindings(r) {
			things["port "+strconv.Itoa(int(b.protocol))+" "+netip.AddrPortFrom(b.addr, b.port).String()] = b.String()
		}
	}
	for _, s := range r.Services {
		what := fmt.Sprintf("%v port %d of %v", s.Protocol.orTCP(), s.Port, s.Addr)
		things["service "+what] = what
	}
	return things
}
