package netstack_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/firewall"
	"github.com/caisson-dev/caisson/plan"
)

// bothBackends calls f with each of them, on a host of its own.
func bothBackends(t *testing.T, f func(h *world, by netstack.Backend)) {
	t.Run("nftables", func(t *testing.T) { host(t, func(h *world) { f(h, firewall.NFTables) }) })
	t.Run("iptables", func(t *testing.T) {
		xtables(t)
		host(t, func(h *world) { f(h, firewall.IPTables) })
	})
}

// slowPrograms leaves out a test with iptables where each program takes a tenth of a second.
func slowPrograms(t testing.TB, by netstack.Backend) {
	t.Helper()
	if by == firewall.IPTables && os.Getenv("VMRUN") != "" {
		t.Skip("VMRUN is set: too many programs for a machine in software")
	}
}

// xtables sees to it that iptables can keep the rules of bridges here, or skips. It tells whether the kernel itself has ebtables, without nf_tables.
func xtables(t *testing.T) (old bool) {
	t.Helper()
	asRoot(t)
	for _, program := range []string{"iptables-legacy-save", "ip6tables-legacy-save", "ebtables-nft", "ebtables-legacy"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v: it is in the packages iptables and ebtables", err)
		}
	}
	if out, err := elsewhere("iptables-legacy-save", "-t", "nat"); err != nil && strings.Contains(out, "able does not exist") {
		t.Skipf("a kernel without ip_tables: %s", out)
	}
	if os.Getenv("VMRUN") != "" {
		exec.Command("modprobe", "br_netfilter").Run()
	}
	if _, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-ip6tables"); err != nil {
		t.Skip("a kernel without br_netfilter: ", err)
	}
	_, err := elsewhere("ebtables-legacy", "-t", "nat", "-L")
	if err != nil { // that of nf_tables, which has the same language, stands for it
		dir := t.TempDir()
		for _, name := range []string{"", "-restore"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "ebtables-legacy"+name), []byte("#!/bin/sh\nexec ebtables-nft"+name+` "$@"`+"\n"), 0o755))
		}
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	}
	return err == nil
}

// elsewhere runs a program in a network of its own.
func elsewhere(name string, args ...string) (string, error) {
	c := exec.Command(name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := c.CombinedOutput()
	return string(out), err
}

// TestProbedBackend: a process for which there is no nf_tables, as on a kernel without it, has its rules kept by iptables without saying so.
func TestProbedBackend(t *testing.T) {
	old := xtables(t)
	host(t, func(h *world) {
		c := exec.Command(self(), h.state)
		c.Env = append(os.Environ(), "NETSTACK_TEST=probed")
		out, err := c.CombinedOutput()
		require.NoError(t, err, string(out))
		if !old {
			require.Contains(t, string(out), "unsupported: true")
			require.Contains(t, string(out), "ebtables")
			require.Equal(t, []string{"caisson0"}, h.devices(), "nothing half built")
			return
		}
		require.Equal(t, "inside at 10.77.0.2:80\ninside at [fd77:ca15:50::2]:80\ninside at 127.0.0.1:8080\n", string(out))
		require.Equal(t, []string{"caisson0"}, h.devices())
	})
}

// probed starts a sandbox of a process that cannot speak to nf_tables, and asks it over both families.
func probed(state string) error {
	if err := errors.Join(os.Unsetenv("NETSTACK_TEST"), withoutNFTables()); err != nil {
		return err
	}
	q := plan.Build(netstack.Bridge{State: state, Masquerade: true, Publish: []netstack.Port{{Port: 8080, To: 80}}})
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p, err := launch.Start(context.Background(), q, command("serve", []string{":80", "inside"}, nil, w, w), launch.Options{})
	if err != nil {
		fmt.Println("unsupported:", errors.Is(err, errors.ErrUnsupported), err)
		return nil
	}
	w.Close()
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "ready\n" {
		return fmt.Errorf("%q: %w", line, err)
	}
	for _, address := range []string{"10.77.0.2:80", "[fd77:ca15:50::2]:80", "127.0.0.1:8080"} {
		c, err := net.DialTimeout("tcp", address, dialTime)
		if err != nil {
			return err
		}
		io.CopyN(os.Stdout, c, 6)
		fmt.Println(" at", address)
		c.Close()
	}
	unix.Kill(p.PID, unix.SIGKILL)
	return finish(p)
}

// withoutNFTables has socket(AF_NETLINK, _, NETLINK_NETFILTER) fail in all threads, and in what they start.
func withoutNFTables() error {
	const nr, family, protocol = 0, 16, 32 // in struct seccomp_data, where the lower half of an argument comes first
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	orAllow := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: skip}
	}
	verdict := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET, K: k} }
	filter := []unix.SockFilter{load(nr), orAllow(unix.SYS_SOCKET, 5), load(family), orAllow(unix.AF_NETLINK, 3), load(protocol), orAllow(unix.NETLINK_NETFILTER, 1),
		verdict(unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)), verdict(unix.SECCOMP_RET_ALLOW)}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}
