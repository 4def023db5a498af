//go:build linux

package initprog

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// name is what the program is called in its argv and in /proc/PID/maps.
const name = "caisson-init"

// execName makes it execute the command in its own place.
const execName = "caisson-exec"

// Error says which step failed. Err unwraps to the errno where there is one, to
// EINVAL for arguments and records, and to errors.ErrUnsupported where there is no
// program for the architecture. Errors of a reader come through ReadRecord as they
// are.
type Error struct {
	Op  string // a system call, "arguments" or "record"
	Err error
}

// Error implements error.
func (e *Error) Error() string { return name + ": " + e.Op + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Supported reports whether there is a program for the architecture.
func Supported() bool { return program != "" }

// Open returns a new memfd that holds the program, sealed and close-on-exec. The
// caller closes it; one descriptor serves any number of starts.
//
// The seals are F_SEAL_SEAL, SHRINK, GROW and WRITE, and since Linux 6.3 also
// F_SEAL_EXEC: no one can change the bytes or the mode, whoever opens the file
// through /proc. It needs Linux 3.17 and no privilege. EACCES means that the PID
// namespace forbids executable memfds (sysctl vm.memfd_noexec is 2, Linux 6.3).
// On other architectures than amd64 and arm64 the error wraps
// errors.ErrUnsupported. See memfd_create(2), fcntl(2) (file sealing).
func Open() (*os.File, error) {
	if program == "" {
		return nil, &Error{"open", fmt.Errorf("no program for this architecture: %w", errors.ErrUnsupported)}
	}
	fd, err := create(unix.MemfdCreate)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if err := fill(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// create asks for MFD_EXEC, without which vm.memfd_noexec=1 takes the execute
// bits away. Kernels before 6.3 do not know the flag and need none.
func create(memfd func(name string, flags int) (int, error)) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := memfd(name, flags|unix.MFD_EXEC)
	if err == unix.EINVAL {
		fd, err = memfd(name, flags)
	}
	if err == unix.EACCES {
		return -1, &Error{"memfd_create", fmt.Errorf("%w (sysctl vm.memfd_noexec=2 forbids executable memfds)", err)}
	}
	if err != nil {
		return -1, &Error{"memfd_create", err}
	}
	return fd, nil
}

// fill writes the program and seals the file.
func fill(f *os.File) error {
	if _, err := io.WriteString(f, program); err != nil {
		return &Error{"write", err}
	}
	return seal(func(seals int) error {
		_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
		return err
	})
}

// seal adds all seals at once: after F_SEAL_SEAL nothing can be added. Kernels
// before 6.3 refuse F_SEAL_EXEC.
func seal(add func(seals int) error) error {
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	err := add(seals | unix.F_SEAL_EXEC)
	if err == unix.EINVAL {
		err = add(seals)
	}
	if err != nil {
		return &Error{"fcntl F_ADD_SEALS", err}
	}
	return nil
}

// Args returns the argv of the program. Report is the number that the report
// descriptor will have in the new process. Candidates are the paths of the
// command's program, tried in order; each must contain a slash, as the program
// knows no PATH. Argv is the command's own, argv[0] first.
//
// No candidate, no argv, a descriptor out of range, a candidate without a slash
// and a NUL byte are errors that wrap EINVAL.
func Args(report int, candidates, argv []string) ([]string, error) {
	return args(name, report, candidates, argv)
}

// ExecArgs is Args for a program that executes the command in its own place: no process is between, and the only record is
// one of kind Failed. Until then /proc/self/exe is the sealed memfd and not the host's binary, which is what a script
// that begins with #!/proc/self/exe would get hold of (CVE-2019-5736).
func ExecArgs(report int, candidates, argv []string) ([]string, error) {
	return args(execName, report, candidates, argv)
}

func args(name string, report int, candidates, argv []string) ([]string, error) {
	if err := checkArgs(report, candidates, argv); err != nil {
		return nil, &Error{"arguments", fmt.Errorf("%w: %w", err, unix.EINVAL)}
	}
	list := make([]string, 0, 3+len(candidates)+len(argv))
	list = append(list, name, strconv.Itoa(report), strconv.Itoa(len(candidates)))
	list = append(list, candidates...)
	return append(list, argv...), nil
}

func checkArgs(report int, candidates, argv []string) error {
	switch {
	case report < 0 || report > math.MaxInt32:
		return fmt.Errorf("descriptor %d", report)
	case len(candidates) == 0:
		return errors.New("no candidate for the program")
	case len(argv) == 0:
		return errors.New("no argv[0]")
	}
	for _, c := range candidates {
		if !strings.Contains(c, "/") {
			return fmt.Errorf("candidate %q without a slash", c)
		}
	}
	return errors.Join(checkNUL(candidates), checkNUL(argv))
}

// checkNUL refuses what the kernel would cut short in silence.
func checkNUL(list []string) error {
	for _, s := range list {
		if strings.Contains(s, "\x00") {
			return fmt.Errorf("NUL byte in %q", s)
		}
	}
	return nil
}
