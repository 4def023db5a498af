//go:build linux

package firewall_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
)

// TestWithoutNFTables: a process for which there is no nf_tables, because a filter answers for the kernel, as one without it would.
func TestWithoutNFTables(t *testing.T) {
	notInSoftware(t)
	w := newWorld(t)
	w.xhost() // skips where there are no iptables
	w.host.in(func() {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "FIREWALL_TEST=withoutNFTables", "FIREWALL_DIR="+w.dir)
		out, err := cmd.CombinedOutput()
		require.NoErrorf(t, err, "%s", out)
		require.Equal(t, []string{
			"nftables: true firewall: change the tables: the kernel has no nf_tables",
			"probe: iptables",
			"published",
			"a policy that changes: true",
			"neither: true true",
			"done", ""}, strings.Split(string(out), "\n"))
	})
}

// withoutNFTables runs in a process of its own.
func withoutNFTables() error {
	if err := refuseNetfilter(); err != nil {
		return err
	}
	host := firewall.Host{Dir: os.Getenv("FIREWALL_DIR"), Forward: true}
	host.Backend = firewall.NFTables
	_, err := host.Open()
	fmt.Println("nftables:", errors.Is(err, errors.ErrUnsupported), err)
	host.Backend = firewall.Probe
	fw, err := host.Open()
	if err != nil {
		return err
	}
	fmt.Println("probe:", fw.Backend())
	rules := firewall.Rules{Cards: []firewall.Card{{Name: "uplink", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}}, Masquerade: true, Publish: []firewall.Port{{Port: 8080}}}
	held, err := fw.Add("web", rules)
	if err != nil {
		return err
	}
	fmt.Println("published")
	rules.Policy.Egress.Otherwise = firewall.Drop // connections cannot be ended either
	fmt.Println("a policy that changes:", errors.Is(held.Set(rules), errors.ErrUnsupported))
	if err := errors.Join(held.Remove(), fw.Close()); err != nil {
		return err
	}
	_, err = firewall.WithPrograms(host, "missing-", "missing-").Open()
	fmt.Println("neither:", errors.Is(err, errors.ErrUnsupported), errors.Is(err, exec.ErrNotFound))
	return nil
}

// refuseNetfilter makes socket(AF_NETLINK, _, NETLINK_NETFILTER) fail in all threads, as on a kernel that has no nfnetlink.
func refuseNetfilter() error {
	const nr, family, protocol = 0, 16, 32 // offsets in struct seccomp_data, where the lower half of an argument comes first
	load := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: k}
	}
	orAllow := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: skip}
	}
	filter := []unix.SockFilter{
		load(nr), orAllow(unix.SYS_SOCKET, 5), load(family), orAllow(unix.AF_NETLINK, 3), load(protocol), orAllow(unix.NETLINK_NETFILTER, 1),
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}
