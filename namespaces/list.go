//go:build linux

package namespaces

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Info is a namespace that has processes, as lsns(8) shows it.
type Info struct {
	Kind      Set    // one kind
	Inode     uint64 // the number in brackets in /proc/PID/ns, and lsns's NS
	Processes int    // how many processes are in it, not counting threads
	PID       int    // the lowest of them, in the pid namespace of /proc
	UID       uint32 // the user to whom /proc/PID of that process belongs
	Command   string // its arguments with spaces between them, or its name where it has none
}

// List gives the namespaces of all processes whose /proc/PID/ns the caller may read, by their inodes; to see those of
// other users needs CAP_SYS_PTRACE (ptrace(2), PTRACE_MODE_READ_FSCREDS). Processes that begin or end meanwhile may be
// missing. Namespaces without a process, held by a descriptor or a mount, are not found.
func List() ([]Info, error) {
	type key struct {
		kind  Set
		inode uint64
	}
	found := map[key]*Info{}
	err := eachProcess(func(dir *os.File, pid int) error {
		for k := range All.Each() {
			inode, err := inodeOf(dir, k)
			if err != nil {
				return err
			}
			id := key{k, inode}
			if found[id] == nil {
				found[id] = &Info{Kind: k, Inode: inode, PID: pid}
			}
			found[id].Processes++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	list := make([]Info, 0, len(found))
	for i := range maps.Values(found) {
		i.describe()
		list = append(list, *i)
	}
	slices.SortFunc(list, func(a, b Info) int { return cmp.Or(cmp.Compare(a.Inode, b.Inode), cmp.Compare(a.Kind, b.Kind)) })
	return list, nil
}

// Processes gives the processes that are in the namespace, in the pid namespace of /proc, in ascending order, as far as
// the caller may see; see [List].
func (n *Namespace) Processes() (pids []int, err error) {
	err = eachProcess(func(dir *os.File, pid int) error {
		inode, err := inodeOf(dir, n.kind)
		if err == nil && inode == n.id.Inode {
			pids = append(pids, pid)
		}
		return err
	})
	return pids, err
}

// eachProcess calls f with the directory of each process, lowest pid first. A process that has ended, or that is not the
// caller's to see, is passed over: f's error says so.
func eachProcess(f func(dir *os.File, pid int) error) error {
	proc, err := openProc()
	if err != nil {
		return err
	}
	defer proc.Close()
	pids, err := processes(proc)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		dir, err := openIn(proc, strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY)
		if err == nil {
			err = f(dir, pid)
			dir.Close()
		}
		if err != nil && !passedOver(err) {
			return fail(plan.Errno(err), "look at process %d", pid)
		}
	}
	return nil
}

func passedOver(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ESRCH)
}

func processes(proc *os.File) (pids []int, err error) {
	d, err := openIn(proc, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, fail(err, "open /proc")
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fail(plan.Errno(err), "read /proc")
	}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// inodeOf reads the link ns/KIND, "net:[4026531840]". It is 0 where the kernel lacks the kind.
func inodeOf(dir *os.File, k Set) (uint64, error) {
	text, err := readlink(dir, "ns/"+k.kind().file)
	if err == syscall.ENOENT {
		if _, gone := readlink(dir, "ns/"+User.kind().file); gone == nil {
			return 0, nil
		}
	}
	if err != nil {
		return 0, err
	}
	return parseLink(text)
}

func parseLink(text string) (uint64, error) {
	_, rest, _ := strings.Cut(text, ":[")
	number, ok := strings.CutSuffix(rest, "]")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil {
		return 0, syscall.EINVAL
	}
	return n, nil
}

// describe fills in what is known about the process; it may have ended.
func (i *Info) describe() {
	dir := "/proc/" + strconv.Itoa(i.PID)
	var st unix.Stat_t
	if unix.Stat(dir, &st) == nil {
		i.UID = st.Uid
	}
	text, _ := os.ReadFile(dir + "/cmdline")
	if len(text) == 0 {
		text, _ = os.ReadFile(dir + "/comm")
	}
	i.Command = strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}
