//go:build linux

package namespaces

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/dumpable"
	"github.com/caisson-dev/caisson/internal/sys"
	"github.com/caisson-dev/caisson/plan"
)

// IDs are the id maps of a new user namespace (user_namespaces(7), Linux 3.8). As a part of a sandbox they ask for the
// namespace, too; at most one part gives them.
//
// Without privilege the caller can map one user id and one group id, its own. CAP_SETUID and CAP_SETGID in the caller's
// user namespace, and CAP_SETFCAP where its id 0 is mapped (Linux 5.12), allow all ids that are there. Without them,
// other ids are mapped by the programs newuidmap(1) and newgidmap(1), which allow what /etc/subuid and /etc/subgid
// grant; see [SubordinateIDs].
//
// The command is then user and group 0 inside where 0 is mapped; else what its own id, the caller's, is mapped to; else
// the first id of the first range. It has no supplementary groups where it may drop them. A command that is not user 0
// loses its capabilities when it is executed, as always (capabilities(7)).
//
// The zero value is an error: both maps must have a range. A wrong range is a [*RangeError].
type IDs struct {
	UIDs, GIDs []Range
	Setgroups  Setgroups // whether processes inside may change their supplementary groups
}

// Setgroups says whether setgroups(2) works in a new user namespace (/proc/PID/setgroups, Linux 3.19). A process that
// can drop a group can reach what is forbidden to that group; this is why the kernel denies it to those who map their
// own group without privilege.
type Setgroups uint8

// What to do about setgroups(2).
const (
	SetgroupsDefault Setgroups = iota // allowed where the kernel lets the caller allow it, else denied
	DenySetgroups                     // denied
	AllowSetgroups                    // allowed, or an error with EPERM
)

// String gives "default", "deny" or "allow".
func (s Setgroups) String() string {
	switch s {
	case SetgroupsDefault:
		return "default"
	case DenySetgroups:
		return "deny"
	case AllowSetgroups:
		return "allow"
	}
	return fmt.Sprintf("setgroups(%d)", uint8(s))
}

// MapRoot maps the caller's effective user and group to 0, as unshare -r does. It needs no privilege.
func MapRoot() IDs { return MapTo(0, 0) }

// KeepIDs maps the caller's effective user and group to themselves. It needs no privilege.
func KeepIDs() IDs { return MapTo(uint32(os.Geteuid()), uint32(os.Getegid())) }

// MapTo maps the caller's effective user and group to uid and gid. It needs no privilege.
func MapTo(uid, gid uint32) IDs {
	return IDs{UIDs: []Range{{uid, uint32(os.Geteuid()), 1}}, GIDs: []Range{{gid, uint32(os.Getegid()), 1}}}
}

// Apply asks for a user namespace with these maps.
func (m IDs) Apply(p *plan.Plan) error {
	c, err := currentCaller()
	if err != nil {
		return err
	}
	return m.applyFor(p, c)
}

// caller is what decides which maps the kernel accepts.
type caller struct {
	uid, gid         uint32
	setuid, setgid   bool // the capabilities
	deniesSetgroups  bool // its own user namespace does, and so will all below it
	findUID, findGID func() (string, error)
}

func currentCaller() (caller, error) {
	c := caller{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), setuid: hasCap(unix.CAP_SETUID), setgid: hasCap(unix.CAP_SETGID),
		findUID: func() (string, error) { return findHelper("newuidmap") },
		findGID: func() (string, error) { return findHelper("newgidmap") }}
	policy, err := os.ReadFile("/proc/self/setgroups")
	if err != nil {
		return c, fail(plan.Errno(err), "open /proc/self/setgroups")
	}
	c.deniesSetgroups = strings.TrimSpace(string(policy)) == "deny"
	return c, nil
}

// findHelper finds a program of shadow-utils.
func findHelper(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	e := unsupported("find "+name, "there is no such program").(*Error)
	e.Hint = "without CAP_SETUID and CAP_SETGID, subordinate ids need newuidmap and newgidmap, which Debian has in its package uidmap"
	return "", e
}

func (m IDs) applyFor(p *plan.Plan, c caller) error {
	writes, dropGroups, err := m.writes(c)
	if err != nil {
		return err
	}
	if err := p.Claim(plan.IDMap); err != nil {
		return err
	}
	p.Clone(unix.CLONE_NEWUSER)
	for _, w := range writes {
		p.While(w)
	}
	p.Late(func() error {
		takeIDs(p, inside(m.UIDs, c.uid), inside(m.GIDs, c.gid), dropGroups)
		return nil
	})
	return nil
}

// writes are what makes the maps those of a process in a new user namespace, and whether that may then drop its groups.
func (m IDs) writes(c caller) (writes []plan.Action, dropGroups bool, err error) {
	if err := m.check(); err != nil {
		return nil, false, err
	}
	uid := mapFile{name: "uid", ranges: m.UIDs, own: c.uid, privileged: c.setuid, find: c.findUID}
	gid := mapFile{name: "gid", ranges: m.GIDs, own: c.gid, privileged: c.setgid, find: c.findGID}
	for _, f := range []*mapFile{&uid, &gid} {
		if err := f.choose(); err != nil {
			return nil, false, err
		}
	}
	allowed := gid.trusted() && !c.deniesSetgroups
	if m.Setgroups == AllowSetgroups && !allowed {
		return nil, false, &Error{Op: "allow setgroups", Err: syscall.EPERM, Hint: "needs CAP_SETGID or subordinate group ids, and a user namespace that allows it"}
	}
	deny := m.Setgroups == DenySetgroups || !gid.trusted()
	if deny { // before the map, without privilege
		writes = append(writes, writing("setgroups", "deny"))
	}
	return append(writes, gid.action(), uid.action()), allowed && !deny, nil
}

func (m IDs) check() error {
	if m.Setgroups > AllowSetgroups {
		return invalid("setgroups", m.Setgroups.String()+" is no policy")
	}
	if err := checkMap("uid", m.UIDs); err != nil {
		return err
	}
	return checkMap("gid", m.GIDs)
}

// takeIDs makes the child the user that it is to be inside. It is recorded late, after calls that open the child's own
// files in /proc: a change of the user takes those files away from it.
func takeIDs(p *plan.Plan, uid, gid uint32, dropGroups bool) {
	if dropGroups {
		p.Child(plan.Users, plan.Call("setgroups", sys.Setgroups, plan.Int(0), plan.Null()))
	}
	u, g := idArg(uid), idArg(gid)
	p.Child(plan.Users, plan.Call("setresgid", sys.Setresgid, g, g, g), plan.Call("setresuid", sys.Setresuid, u, u, u))
}

func idArg(id uint32) plan.Arg { return plan.Number(uint64(id), strconv.FormatUint(uint64(id), 10)) }

// mapFile is one of uid_map and gid_map.
type mapFile struct {
	name       string // "uid" or "gid"
	ranges     []Range
	own        uint32
	privileged bool // the caller has the capability for it
	find       func() (string, error)
	helper     string // the program that writes it; "": we do
}

// choose decides who writes the map.
func (f *mapFile) choose() (err error) {
	if !f.privileged && !f.onlyOwn() {
		f.helper, err = f.find()
	}
	return err
}

// onlyOwn reports whether the map is one that needs no privilege.
func (f *mapFile) onlyOwn() bool {
	return len(f.ranges) == 1 && f.ranges[0].Size == 1 && f.ranges[0].Outside == f.own
}

// trusted reports whether whoever writes the map may leave setgroups allowed.
func (f *mapFile) trusted() bool { return f.privileged || f.helper != "" }

func (f *mapFile) action() plan.Action {
	if f.helper == "" {
		return writing(f.name+"_map", mapText(f.ranges))
	}
	return f.helping()
}

// writing writes a file of the child's in /proc, in one write.
func writing(name, text string) plan.Action {
	return plan.Action{Name: fmt.Sprintf("write /proc/PID/%s %q", name, text), Ready: keepProc, Do: func(r *plan.Run) error {
		err := keepProc(r)
		if err != nil {
			return err
		}
		proc := r.Value(procKey{}).(*os.File)
		err = patiently(r.Context, func() error { return writeProc(proc, r.PID, name, text) })
		if err != nil {
			return &Error{Op: "write " + name, Err: err, Hint: mapHint(plan.Errno(err))}
		}
		return nil
	}}
}

func mapHint(e syscall.Errno) string {
	switch e {
	case syscall.EPERM:
		return "an outside id is not mapped in the caller's own user namespace, or not the caller's to map; mapping its id 0 needs CAP_SETFCAP"
	case syscall.EACCES:
		return "the caller is not dumpable, PR_SET_DUMPABLE, or has joined a namespace in the same sandbox"
	case syscall.EINVAL:
		return "before Linux 4.15 a map has at most 5 ranges"
	}
	return ""
}

// helping runs newuidmap or newgidmap.
func (f *mapFile) helping() plan.Action {
	args := strings.Fields(mapText(f.ranges))
	return plan.Action{Name: f.helper + " PID " + strings.Join(args, " "), Do: func(r *plan.Run) error {
		return patiently(r.Context, func() error { return runHelper(r, f.helper, args) })
	}}
}

func runHelper(r *plan.Run, helper string, args []string) error {
	var said strings.Builder
	c := exec.CommandContext(r.Context, helper, append([]string{strconv.Itoa(r.PID)}, args...)...)
	c.Env, c.Stderr = []string{"LC_ALL=C"}, &said
	err := c.Run()
	if err == nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(r.PID), &st) == nil && st.Uid != uint32(os.Geteuid()) {
		err = syscall.EACCES // the helper took the child for somebody else's, as writeProc would have done
	} else if ended := new(exec.ExitError); errors.As(err, &ended) {
		err = syscall.EPERM
	}
	return &Error{Op: helper, Err: err, Hint: strings.TrimSpace(said.String())}
}

// patiently repeats what is refused while another start in this process has cleared the dumpable flag of the memory that
// the child shares with us (prctl(2), PR_SET_DUMPABLE): its files in /proc are root's then.
func patiently(ctx context.Context, do func() error) error {
	err := do()
	if !errors.Is(err, syscall.EACCES) {
		return err
	}
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for range 100 {
		if err := do(); !errors.Is(err, syscall.EACCES) {
			return err
		}
		if dumpable.Wait(short) != nil {
			break
		}
		time.Sleep(50 * time.Microsecond)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return do()
}
