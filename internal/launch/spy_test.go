package launch

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

const known = 0x6361_6973_736f_6e21

// spy looks at the memory of each new process, as root without any capability, until its input ends. It prints how often it has found ours.
func spy() error {
	at, err := strconv.ParseInt(os.Getenv("CAISSON_AT"), 10, 64)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	go func() {
		os.Stdin.Read(make([]byte, 1))
		close(over)
	}()
	fmt.Println("ready")
	found := 0
	for last := ""; ; {
		select {
		case <-over:
			fmt.Println(found)
			return nil
		default:
		}
		b, err := os.ReadFile("/proc/loadavg")
		if err != nil {
			return err
		}
		pid := string(bytes.TrimSpace(b[bytes.LastIndexByte(b, ' '):]))
		if pid != last && readsHost(pid, at) {
			found++
			last = pid
		}
	}
}

// readsHost tries until the process has memory of its own or has ended.
func readsHost(pid string, at int64) bool {
	b := make([]byte, 8)
	for range 3000 {
		fd, err := unix.Open("/proc/"+pid+"/mem", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			return false
		}
		if err != nil {
			continue
		}
		n, _ := unix.Pread(fd, b, at)
		unix.Close(fd)
		return n == 8 && binary.NativeEndian.Uint64(b) == known
	}
	return false
}

// TestHostMemoryIsHidden: root of another sandbox, without capabilities, never gets a descriptor of our memory, neither while the child lives in it nor in the
// moment after execve has let us go on.
func TestHostMemoryIsHidden(t *testing.T) {
	needRoot(t)
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv of util-linux: ", err)
	}
	secret := new(uint64)
	*secret = known
	for name, parts := range map[string][]plan.Primitive{
		"user namespace": {clone(unix.CLONE_NEWUSER), part(func(p *plan.Plan) {
			p.While(plan.Action{Name: "maps", Do: func(r *plan.Run) error {
				dir := "/proc/" + strconv.Itoa(r.PID)
				return errors.Join(os.WriteFile(dir+"/gid_map", []byte("0 0 1"), 0), os.WriteFile(dir+"/uid_map", []byte("0 0 1"), 0))
			}})
		})},
		"no capabilities": {part(func(p *plan.Plan) {
			header := []byte{0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0} // _LINUX_CAPABILITY_VERSION_3
			if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
				header = []byte{0x20, 0x08, 0x05, 0x22, 0, 0, 0, 0}
			}
			p.Child(plan.Capabilities, plan.Call("prctl", unix.SYS_PRCTL, plan.Int(unix.PR_SET_DUMPABLE), plan.Int(0)),
				plan.Call("capset", unix.SYS_CAPSET, plan.Bytes("header", header), plan.Bytes("none", make([]byte, 24))))
		})},
	} {
		t.Run(name, func(t *testing.T) {
			c := exec.Command(setpriv, "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs", "/proc/self/exe")
			exe, err := os.Executable()
			require.NoError(t, err)
			c.Args[len(c.Args)-1] = exe
			c.Env = append(os.Environ(), helperName+"=spy", "CAISSON_AT="+strconv.FormatUint(uint64(uintptr(unsafe.Pointer(secret))), 10))
			c.Stderr = os.Stderr
			in, err := c.StdinPipe()
			require.NoError(t, err)
			out, err := c.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, c.Start())
			lines := bufio.NewScanner(out)
			require.True(t, lines.Scan())
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				require.NoError(t, run(Options{}, parts...))
			}
			in.Close()
			require.True(t, lines.Scan())
			require.Equal(t, "0", strings.TrimSpace(lines.Text()), "descriptors of our memory")
			require.NoError(t, c.Wait())
		})
	}
	require.Equal(t, uint64(known), *secret)
}
