//go:build linux

package plan

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/nofile"
)

// Command is what the child executes at the end of a plan.
type Command struct {
	Candidates []string   // paths tried in turn, as execvp(3) does with PATH; resolved in the new root
	Args, Env  []string   // argv and envp as they are
	Dir        string     // working directory in the new root; "" leaves it
	Files      []*os.File // the command's descriptors 0, 1, 2 and so on; nil is closed
	Init       bool       // an init process runs as PID 1 and starts the command
}

// dir enters the working directory. Magic links are refused: /proc/self/fd/N would be a way out of the root for as long as
// some descriptor of the host is open (CVE-2024-21626).
func (c *Command) dir(s Slot) []Op {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	size := int(unsafe.Sizeof(how))
	b := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&how)), size)...)
	return []Op{
		Call("openat2", unix.SYS_OPENAT2, Number(atFDCWD, "AT_FDCWD"), Str(c.Dir),
			Struct("{O_PATH|O_DIRECTORY|O_CLOEXEC, RESOLVE_NO_MAGICLINKS}", b), Int(size)).Save(s).
			Hint(syscall.ENOENT, "the working directory does not exist in the sandbox").
			Hint(syscall.ELOOP, "a working directory through /proc/PID/fd or the like is refused"),
		Call("fchdir", unix.SYS_FCHDIR, Saved(s)),
	}
}

const atFDCWD = ^uint64(99) // -100

// nofile undoes what the Go runtime has done to the soft limit of descriptors.
func nofileOp() (Op, bool) {
	lim, changed := nofile.Original()
	if !changed {
		return Op{}, false
	}
	b := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&lim)), int(unsafe.Sizeof(lim)))...)
	text := "{" + Int(int(lim.Cur)).text + ", " + Int(int(lim.Max)).text + "}"
	return Call("prlimit64", unix.SYS_PRLIMIT64, Int(0), Number(unix.RLIMIT_NOFILE, "RLIMIT_NOFILE"), Struct(text, b), Null()), true
}
