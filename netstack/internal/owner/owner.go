//go:build linux

// Package owner says whose a device or a lease is, in a way that others can verify: it names a file that a living process keeps locked.
//
// A process has one owner for each network namespace in which it makes devices, as long as it has any there. The kernel gives up the lock when the process
// ends, however it ends; then whoever comes next removes what bears the owner's name, and nothing else.
package owner

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/batch"
)

// Prefix begins the names of all devices on the host's side.
const Prefix = "cs"

// idSize is the number of hexadecimal digits of an owner's name: with [Prefix], a dash, and six digits of a counter a device has room for it.
const idSize = 6

// Owner is this process in one network namespace.
type Owner struct {
	ID     string
	Dir    string          // of the namespace: locks of owners are in Dir/owners
	Handle *netlink.Handle // speaks to the namespace
	Batch  *batch.Conn     // does, too
	Net    *os.File        // the namespace

	key   key
	lock  *os.File
	count atomic.Uint32
	users int
	swept time.Time
	kept  map[any]io.Closer
	mu    sync.Mutex // of swept and kept
}

// key tells namespaces apart; none that is in the table can be reused, since its owner keeps it open.
type key struct {
	state      string
	dev, inode uint64
}

// living are the owners of this process. The lock is a matter of the process as a whole, as its life is, so the table is, too.
var living struct {
	sync.Mutex
	owners map[key]*Owner
}

// Enter gives this process's owner for the network namespace of the calling thread. It is to be left.
func Enter(state string) (*Owner, error) {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		ns.Close()
		return nil, os.NewSyscallError("fstat", err)
	}
	k := key{state, uint64(st.Dev), st.Ino}
	living.Lock()
	defer living.Unlock()
	if o := living.owners[k]; o != nil {
		ns.Close()
		o.users++
		return o, o.keep()
	}
	o, err := enter(k, ns)
	if err != nil {
		ns.Close()
		return nil, err
	}
	if living.owners == nil {
		living.owners = map[key]*Owner{}
	}
	living.owners[k] = o
	return o, nil
}

func enter(k key, ns *os.File) (*Owner, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	b, err := batch.Open(unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, err
	}
	o := &Owner{key: k, Handle: h, Batch: b, Net: ns, users: 1, Dir: filepath.Join(k.state, netName(k))}
	if err := o.makeLock(); err != nil {
		h.Close()
		b.Close()
		return nil, err
	}
	return o, nil
}

// netName names the namespace: by its cookie, which is never used again (socket(7), SO_NETNS_COOKIE, Linux 5.14), or by its inode.
func netName(k key) string {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(s)
		if cookie, err := unix.GetsockoptUint64(s, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
			return "net-" + strconv.FormatUint(cookie, 10)
		}
	}
	return "inode-" + strconv.FormatUint(k.inode, 10)
}

// makeLock makes a fresh lock file and locks it. Between the two it could be taken for that of somebody dead, and removed: then another one is made.
func (o *Owner) makeLock() error {
	dir := filepath.Join(o.Dir, "owners")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for range 64 {
		var b [idSize / 2]byte
		rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		f, err := os.OpenFile(filepath.Join(dir, id), os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil && linked(f) {
			o.ID, o.lock = id, f
			return nil
		}
		f.Close()
	}
	return fmt.Errorf("no owner could be made in %s: %w", dir, unix.EAGAIN)
}

func linked(f *os.File) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0
}

// keep sees to it that the lock file is still there: a cleaner of /run may have removed it, and we would be taken for dead.
func (o *Owner) keep() error {
	if linked(o.lock) {
		return nil
	}
	path := filepath.Join(o.Dir, "owners", o.ID)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return os.NewSyscallError("flock", err)
	}
	o.lock.Close()
	o.lock = f
	return nil
}

// Leave ends one use. The last one gives up the lock.
func (o *Owner) Leave() error {
	living.Lock()
	defer living.Unlock()
	if o.users--; o.users > 0 {
		return nil
	}
	delete(living.owners, o.key)
	err := os.Remove(filepath.Join(o.Dir, "owners", o.ID))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, c := range o.kept {
		err = errors.Join(err, c.Close())
	}
	o.lock.Close()
	o.Handle.Close()
	o.Batch.Close()
	o.Net.Close()
	return err
}

// Keep gives what one of the users has opened, or opens it; it is closed with the last use of the owner.
func (o *Owner) Keep(key any, open func() (io.Closer, error)) (io.Closer, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.kept[key]; c != nil {
		return c, nil
	}
	c, err := open()
	if err != nil {
		return nil, err
	}
	if o.kept == nil {
		o.kept = map[any]io.Closer{}
	}
	o.kept[key] = c
	return c, nil
}

// Name gives a name for a device of the host's side that no other has: cs1a2b3c-1, cs1a2b3c-2.
func (o *Owner) Name() string {
	return Prefix + o.ID + "-" + strconv.FormatUint(uint64(o.count.Add(1)), 36)
}

// Of gives the owner's ID in a device's name, or "".
func Of(device string) string {
	rest, ok := strings.CutPrefix(device, Prefix)
	if !ok || len(rest) < idSize+2 || rest[idSize] != '-' || !validID(rest[:idSize]) {
		return ""
	}
	return rest[:idSize]
}

func validID(id string) bool {
	_, err := hex.DecodeString(id)
	return err == nil && len(id) == idSize && strings.ToLower(id) == id
}

// pause is how long after a sweep the next one is due: those who come to a namespace sweep first, so this is for who stays.
const pause = 30 * time.Second

// Due reports whether the dead should be looked for now.
func (o *Owner) Due() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.swept) < pause {
		return false
	}
	o.swept = time.Now()
	return true
}

// Dead gives those whose process has ended, each with the lock that this call has taken, so that nobody else removes the same things meanwhile.
func (o *Owner) Dead() ([]Corpse, error) {
	dir := filepath.Join(o.Dir, "owners")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var dead []Corpse
	for _, e := range entries {
		if e.Name() == o.ID || !validID(e.Name()) {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, e.Name()), os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // it has left just now
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !linked(f) {
			f.Close()
			continue
		}
		dead = append(dead, Corpse{e.Name(), f, dir})
	}
	return dead, nil
}

// Corpse is an owner whose process has ended.
type Corpse struct {
	ID   string
	lock *os.File
	dir  string
}

// Bury removes the owner when nothing of its is left; otherwise the next sweep tries again.
func (c Corpse) Bury(clean bool) error {
	defer c.lock.Close()
	if !clean {
		return nil
	}
	return os.Remove(filepath.Join(c.dir, c.ID))
}

// Alive reports whether the owner with this ID lives: whether the lock is held.
func Alive(owners, id string) bool {
	if !validID(id) {
		return false
	}
	f, err := os.OpenFile(filepath.Join(owners, id), os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
}

// In runs f on a thread in the namespace, which is thrown away afterwards.
func In(ns *os.File, f func() error) error {
	return Apart(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// Apart runs f on a thread of its own, which ends with it. The first thread of the process would stay, and with it what /proc/self shows; it waits while another one serves.
func Apart(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		err := Apart(f)
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
