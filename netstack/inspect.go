//go:build linux

package netstack

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
)

// Topology is what networks there are, and how they are connected, at one time.
type Topology struct {
	// Networks are the network namespaces, the caller's own first, the others in the order in which they were found.
	Networks []Network

	// Unseen are processes whose network could not be looked at, for lack of rights: the topology lacks their networks unless others of the same could be.
	Unseen []int
}

// Network is one network namespace.
type Network struct {
	Inode   uint64 // tells namespaces apart while they exist
	Path    string // where it is pinned, /run/netns/blue; or ""
	PIDs    []int  // processes in it, in the caller's pid namespace
	Devices []Device
	Routes  []Path

	NAT       []Translation // rules by which addresses are changed; those of a kernel that has ip_tables only are not among them
	NATUnseen bool          // they could not be looked at: it needs CAP_NET_ADMIN over the network
}

// Device is a network device.
type Device struct {
	Index     int
	Name      string
	Kind      string // "veth", "bridge", "device" for a physical one, ...
	MAC       net.HardwareAddr
	MTU       int  // in bytes
	Up        bool // it has been set up
	Works     bool // its cable is connected, as far as it has one
	Addresses []netip.Prefix
	Bridge    int    // index of the bridge whose port it is, in the same network; 0 is none
	Parent    *End   // the other end of a cable, or the device of which a macvlan, ipvlan or vlan is made; nil is none
	Owner     string // of a sandbox's cable: who has made it; "" is somebody else

	ReceivedBytes, SentBytes     uint64
	ReceivedPackets, SentPackets uint64
	ReceiveDropped, SendDropped  uint64 // packets
}

// End is a device of another network, or of the same.
type End struct {
	Network int // index in Topology.Networks; -1: one that could not be seen
	Index   int // of the device there
}

// Path is a route, of the main table.
type Path struct {
	To     netip.Prefix // 0.0.0.0/0 and ::/0 are default routes
	Via    netip.Addr   // the zero value: it is on the device's network
	Device int          // index
}

// Inspect looks at all networks that the caller can see: its own, those of all processes in its /proc, and those that ip-netns(8) has pinned in /run/netns. It changes nothing. To see the networks of
// others needs the right to trace them (ptrace(2)), and CAP_SYS_ADMIN to enter them; processes for which one is missing are in Unseen.
func Inspect() (*Topology, error) {
	s := &survey{}
	defer s.close()
	if err := s.add("/proc/thread-self/ns/net", "", 0); err != nil {
		return nil, failed(err, "open the own network", "")
	}
	var err error
	if s.found[0].handle, err = newHandle(); err != nil { // here no privilege is needed
		return nil, failed(err, "open netlink", "")
	}
	s.found[0].own = true
	s.processes()
	pinned, _ := filepath.Glob("/run/netns/*")
	for _, path := range pinned {
		s.add(path, path, 0) // what is no network, is none of ours
	}
	return s.look()
}

// InspectPID looks at the network of one process, without saying what is at the other ends of its cables.
func InspectPID(pid int) (*Network, error) {
	s := &survey{}
	defer s.close()
	if err := s.add("/proc/"+strconv.Itoa(pid)+"/ns/net", "", pid); err != nil {
		return nil, failed(err, "open the network of process "+strconv.Itoa(pid), "")
	}
	if err := s.dump(0); err != nil {
		return nil, err
	}
	return &s.found[0].Network, nil
}

// survey is an inspection under way.
type survey struct {
	found  []*seen
	unseen []int
}

// seen is a network with what is needed to look at it.
type seen struct {
	Network
	file   *os.File
	handle *netlink.Handle
	links  []netlink.Link
	own    bool        // that of the calling thread
	ids    map[int]int // of other networks, as this one numbers them: index in found
}

func (s *survey) close() {
	for _, n := range s.found {
		n.file.Close()
		if n.handle != nil {
			n.handle.Close()
		}
	}
}

// add opens a network, if it is a new one.
func (s *survey) add(path, pinned string, pid int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs)); err != nil || fs.Type != unix.NSFS_MAGIC {
		f.Close()
		return errors.Join(err, syscall.EINVAL)
	}
	for _, n := range s.found {
		if n.Inode == st.Ino {
			f.Close()
			n.note(pinned, pid)
			return nil
		}
	}
	n := &seen{Network: Network{Inode: st.Ino}, file: f}
	n.note(pinned, pid)
	s.found = append(s.found, n)
	return nil
}

func (n *seen) note(pinned string, pid int) {
	if pinned != "" {
		n.Path = pinned
	}
	if pid != 0 {
		n.PIDs = append(n.PIDs, pid)
	}
}

func (s *survey) processes() {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := s.add("/proc/"+e.Name()+"/ns/net", "", pid); errors.Is(err, os.ErrPermission) {
			s.unseen = append(s.unseen, pid)
		}
	}
	slices.Sort(s.unseen)
}

func (s *survey) look() (*Topology, error) {
	for i := 0; i < len(s.found); i++ {
		err := s.dump(i)
		if errors.Is(err, os.ErrPermission) && i > 0 {
			s.unseen = append(s.unseen, s.found[i].PIDs...)
			s.found[i].file.Close()
			s.found = slices.Delete(s.found, i, i+1)
			i--
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	t := &Topology{Unseen: s.unseen}
	for _, n := range s.found {
		for i, l := range n.links {
			n.Devices[i].Parent = s.end(n, l)
		}
		slices.Sort(n.PIDs)
		t.Networks = append(t.Networks, n.Network)
	}
	return t, nil
}

// dump lists what is in a network.
func (s *survey) dump(i int) (err error) {
	n := s.found[i]
	if n.handle == nil {
		if n.handle, err = (target{ns: n.file}).open(); err != nil {
			return err
		}
	}
	if n.links, err = retried(n.handle.LinkList); err != nil {
		return failed(err, "list devices", "")
	}
	list, err := retried(func() ([]netlink.Addr, error) { return n.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return failed(err, "list addresses", "")
	}
	for _, l := range n.links {
		d := deviceOf(l)
		for _, a := range list {
			if p := prefixOf(a.IPNet); a.LinkIndex == d.Index && p.IsValid() {
				d.Addresses = append(d.Addresses, p)
			}
		}
		n.Devices = append(n.Devices, d)
	}
	if err := n.routes(); err != nil {
		return err
	}
	return n.translations()
}

func deviceOf(l netlink.Link) Device {
	a := l.Attrs()
	d := Device{Index: a.Index, Name: a.Name, Kind: l.Type(), MAC: a.HardwareAddr, MTU: a.MTU, Bridge: a.MasterIndex, Owner: owner.Of(a.Name),
		Up: a.RawFlags&unix.IFF_UP != 0, Works: a.RawFlags&unix.IFF_LOWER_UP != 0}
	if s := a.Statistics; s != nil {
		d.ReceivedBytes, d.SentBytes, d.ReceivedPackets, d.SentPackets = s.RxBytes, s.TxBytes, s.RxPackets, s.TxPackets
		d.ReceiveDropped, d.SendDropped = s.RxDropped, s.TxDropped
	}
	return d
}

func (n *seen) routes() error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := retried(func() ([]netlink.Route, error) { return n.handle.RouteList(nil, family) })
		if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) {
			continue
		}
		if err != nil {
			return failed(err, "list routes", "")
		}
		for _, r := range list {
			p := Path{To: prefixOf(r.Dst), Device: r.LinkIndex}
			if !p.To.IsValid() {
				p.To = defaultRoute(family)
			}
			if a, ok := netip.AddrFromSlice(r.Gw); ok {
				p.Via = a.Unmap()
			}
			n.Routes = append(n.Routes, p)
		}
	}
	return nil
}

func defaultRoute(family int) netip.Prefix {
	if family == netlink.FAMILY_V4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// end finds the device at the other end: in the same network, or in one that this network has a number for.
func (s *survey) end(n *seen, l netlink.Link) *End {
	a := l.Attrs()
	switch {
	case a.ParentIndex == 0 || a.ParentIndex == a.Index && a.NetNsID < 0:
		return nil
	case a.NetNsID < 0:
		return &End{slices.Index(s.found, n), a.ParentIndex}
	}
	if n.ids == nil {
		n.ids = map[int]int{}
		for i, other := range s.found {
			if id, err := n.handle.GetNetNsIdByFd(int(other.file.Fd())); err == nil && id >= 0 {
				n.ids[id] = i
			}
		}
	}
	if i, ok := n.ids[a.NetNsID]; ok {
		return &End{i, a.ParentIndex}
	}
	return &End{-1, a.ParentIndex}
}

// Device finds a device of the network by its index; nil: there is none.
func (n *Network) Device(index int) *Device {
	for i := range n.Devices {
		if n.Devices[i].Index == index {
			return &n.Devices[i]
		}
	}
	return nil
}

// String gives the device's name, kind and addresses. A name that a terminal would take for more than text is quoted: root of a sandbox may choose any.
func (d Device) String() string {
	var b strings.Builder
	name := d.Name
	if strings.Contains(name, " ") {
		name = strconv.QuoteToASCII(name)
	}
	b.WriteString(plainly(name) + " (" + d.Kind + ")")
	for _, a := range d.Addresses {
		b.WriteString(" " + a.String())
	}
	if !d.Up {
		b.WriteString(" down")
	}
	return b.String()
}

// plainly quotes what a terminal would take for more than text.
func plainly(name string) string {
	if strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c > '~' }) {
		return strconv.QuoteToASCII(name)
	}
	return name
}
