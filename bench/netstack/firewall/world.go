package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// space is a network namespace.
type space struct{ file *os.File }

// in runs f on a thread in the namespace, which ends with it.
func (s space) in(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func newSpace() (s space, err error) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.file, err = os.Open("/proc/thread-self/ns/net")
		}
		if err == nil {
			err = exec.Command("ip", "link", "set", "lo", "up").Run()
		}
		done <- err
	}()
	return s, <-done
}

// world is a host with a bridge, one sandbox on it and room for others, and somebody outside.
type world struct{ host, outside, sandbox, others space }

func newWorld() (*world, error) {
	w := &world{}
	for _, s := range []*space{&w.host, &w.outside, &w.sandbox, &w.others} {
		made, err := newSpace()
		if err != nil {
			return nil, err
		}
		*s = made
	}
	err := w.host.in(func() error {
		steps := []func() error{
			func() error { return veth("uplink", w.outside, 0) },
			func() error {
				return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "caisson0", HardwareAddr: net.HardwareAddr{2, 0x88, 0, 0, 0, 1}}})
			},
			func() error {
				return ip("addr add 192.0.2.1/24 dev uplink; addr add 10.88.0.1/16 dev caisson0; link set uplink up; link set caisson0 up")
			},
			func() error { return w.port("v0", w.sandbox) },
		}
		for _, s := range steps {
			if err := s(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := w.outside.in(func() error { return ip("addr add 192.0.2.2/24 dev uplink; link set uplink up") }); err != nil {
		return nil, err
	}
	return w, w.sandbox.in(func() error {
		return ip("addr add 10.88.0.2/16 dev v0; link set v0 up; route add default via 10.88.0.1")
	})
}

// ip runs several commands of ip(8).
func ip(commands string) error {
	for c := range strings.SplitSeq(commands, "; ") {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", c, err, out)
		}
	}
	return nil
}

func veth(name string, far space, master int) error {
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MasterIndex: master, Flags: net.FlagUp}, PeerName: name, PeerNamespace: netlink.NsFd(int(far.file.Fd()))})
}

func (w *world) port(name string, far space) error {
	br, err := netlink.LinkByName("caisson0")
	if err != nil {
		return err
	}
	return veth(name, far, br.Attrs().Index)
}

func (w *world) card(i int) error { return w.port(fmt.Sprint("v", i), w.others) }

// rules are those of the i-th sandbox.
func (w *world) rules(i int) firewall.Rules {
	addr := netip.AddrFrom4([4]byte{10, 88, byte(i / 200), byte(2 + i%200)})
	return firewall.Rules{Masquerade: true, Isolated: true, Publish: []firewall.Port{{Port: uint16(10000 + i), To: 80}},
		Cards: []firewall.Card{{Name: fmt.Sprint("v", i), Bridge: "caisson0", Addrs: []netip.Addr{addr}}}}
}

// byHand is what a person would write.
const byHand = `table ip hand {
	chain pre { type nat hook prerouting priority -100; policy accept; tcp dport 10000 dnat to 10.88.0.2:80; }
	chain post { type nat hook postrouting priority 100; policy accept; ip saddr 10.88.0.2 ip daddr != 10.88.0.0/16 masquerade; }
}
`

func nft(script string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

func nftAddRemove() error {
	if err := nft(byHand); err != nil {
		return err
	}
	return nft("delete table ip hand")
}

// streams measures both ways through the host, with our rules and with those by hand, in turns.
func streams(w *world, fw *firewall.Firewall, length time.Duration) error {
	for _, s := range []struct {
		name     string
		from, to space
		port     int
		addr     string
	}{{"out, masqueraded", w.sandbox, w.outside, 99, "192.0.2.2:99"}, {"in, published", w.outside, w.sandbox, 80, "192.0.2.1:10000"}} {
		var l net.Listener
		err := s.to.in(func() (err error) {
			l, err = net.Listen("tcp", fmt.Sprint(":", s.port))
			return err
		})
		if err != nil {
			return err
		}
		go sink(l)
		if err := turns(s.name, s.from, s.addr, w, fw, length); err != nil {
			return err
		}
		l.Close()
	}
	return nil
}

func turns(name string, from space, addr string, w *world, fw *firewall.Firewall, length time.Duration) error {
	var ours, hand []float64
	for range 7 {
		h, err := fw.Add("one", w.rules(0))
		if err != nil {
			return err
		}
		rate, err := from.stream(addr, length)
		if err != nil {
			return err
		}
		ours = append(ours, rate)
		if err := h.Remove(); err != nil {
			return err
		}
		if err := nft(byHand); err != nil {
			return err
		}
		if rate, err = from.stream(addr, length); err != nil {
			return err
		}
		hand = append(hand, rate)
		if err := nft("delete table ip hand"); err != nil {
			return err
		}
	}
	slices.Sort(ours)
	slices.Sort(hand)
	fmt.Printf("%-24s caisson %.2f Gbit/s, by hand %.2f Gbit/s: %.3f\n", name, ours[3], hand[3], ours[3]/hand[3])
	return nil
}

func sink(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go io.Copy(io.Discard, struct{ io.Reader }{c})
	}
}

// stream sends for a time and gives Gbit/s.
func (s space) stream(addr string, length time.Duration) (rate float64, err error) {
	err = s.in(func() error {
		c, err := net.DialTimeout("tcp", addr, 3*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		buf, began, n := make([]byte, 1<<17), time.Now(), 0
		for time.Since(began) < length {
			k, err := c.Write(buf)
			if err != nil {
				return err
			}
			n += k
		}
		rate = float64(n) * 8 / time.Since(began).Seconds() / 1e9
		return nil
	})
	return rate, err
}
