//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain makes the test binary be the program that is tested, or the command in it, when it has its name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "supervise":
		main()
	case "dial":
		dial()
	default:
		os.Exit(m.Run())
	}
}

// dial says what each way to the network gives.
func dial() {
	c, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		fmt.Println("connect:", err)
	} else {
		b, _ := io.ReadAll(c)
		fmt.Printf("connect: %s\n", b)
	}
	_, err = net.Dial("udp", os.Args[1])
	fmt.Println("udp:", err)
	port := net.TCPAddrFromAddrPort(must(net.ResolveTCPAddr("tcp", os.Args[1])).AddrPort()).Port
	fd := must(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0))
	fmt.Println("fast open:", unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}))
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	fmt.Println("sctp:", err)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// users runs the test as who runs it, and as nobody too if that is root.
func users(t *testing.T, f func(t *testing.T, dir string, supervise func(args ...string) string)) {
	for name, uid := range map[string]int{"user": 65534, "own": os.Geteuid()} {
		if name == "user" && uid != os.Geteuid() && os.Geteuid() != 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := must(os.MkdirTemp("/var/tmp", "caisson-supervise"))
			defer os.RemoveAll(dir)
			program := filepath.Join(dir, "test")
			require.NoError(t, os.Chmod(dir, 0o755))
			require.NoError(t, os.WriteFile(program, must(os.ReadFile(must(os.Executable()))), 0o755))
			f(t, dir, func(args ...string) string {
				c := exec.CommandContext(t.Context(), program, args...)
				c.Args[0], c.Dir = "supervise", "/"
				if uid != os.Geteuid() {
					c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
				}
				var out bytes.Buffer
				c.Stdout, c.Stderr = &out, &out
				if err := c.Run(); err != nil {
					fmt.Fprintln(&out, err)
				}
				return out.String()
			})
		})
	}
}

func TestMkdir(t *testing.T) {
	users(t, func(t *testing.T, dir string, supervise func(args ...string) string) {
		granted := filepath.Join(dir, "granted")
		require.NoError(t, os.Mkdir(granted, 0o777))
		require.NoError(t, os.Chmod(granted, 0o777))
		require.NoError(t, os.Symlink("..", filepath.Join(granted, "up")))
		out := supervise("-mkdir", granted, "--", "sh", "-c", "cd "+granted+` && mkdir one one/two `+granted+`/three ./one/../four && echo made
			mkdir up/five; mkdir ../six; mkdir `+dir+`/seven; mkdir /tmp/eight; touch nine; ls`)
		require.Contains(t, out, "made\n")
		for _, d := range []string{"one/two", "three", "four"} {
			require.DirExists(t, filepath.Join(granted, d), out)
		}
		for _, d := range []string{"five", "six", "seven", "granted/nine"} {
			require.NoFileExists(t, filepath.Join(dir, d), out)
			require.NoDirExists(t, filepath.Join(dir, d), out)
		}
		require.Contains(t, out, "is refused")
		require.Contains(t, out, "four\none\nthree\n")
	})
}

func TestConnect(t *testing.T) {
	l := must(net.Listen("tcp4", "127.0.0.1:0"))
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("hello"))
			c.Close()
		}
	}()
	users(t, func(t *testing.T, dir string, supervise func(args ...string) string) {
		dial := filepath.Join(dir, "dial")
		require.NoError(t, os.Link(filepath.Join(dir, "test"), dial))
		rest := `udp: .*permission denied
fast open: permission denied
sctp: permission denied`
		require.Regexp(t, "(?s)connect: hello\n"+rest, supervise("-connect", l.Addr().String(), "--", dial, l.Addr().String()))
		require.Regexp(t, "(?s)connect: .*permission denied\n"+rest, supervise("-connect", "127.0.0.1:1", "--", dial, l.Addr().String()))
	})
}

func TestUsage(t *testing.T) {
	users(t, func(t *testing.T, dir string, supervise func(args ...string) string) {
		require.Contains(t, supervise(), "no command")
		require.Contains(t, supervise("-connect", "nowhere", "--", "true"), "nowhere")
		require.Contains(t, supervise("-mkdir", dir+"/none", "--", "true"), "no such file")
		require.Contains(t, supervise("--", "sh", "-c", "exit 3"), "exit status 3")
	})
}
