package netstack_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

// unprivileged tests one of the helper programs as an ordinary user: a server on a published port is reached, one on the host's loopback is not.
func unprivileged(t *testing.T, program, pkg string, part func(publish ...netstack.Port) plan.Primitive) {
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%v: it is in %s", err, pkg)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("%v: the kernel's module tun makes it", err)
	}
	if !ordinary(t, true) {
		return
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("ordinary users may not open it: %v", err)
	}
	f.Close()
	h := &world{t: t, state: t.TempDir()}
	defer h.end()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := uint16(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	b, err := h.try("serve", []string{":80", "rootless"}, namespaces.User|namespaces.PID, part(netstack.Port{Port: n, To: 80}))
	if errors.Is(err, syscall.EPERM) && plan.Errno(err) == syscall.EPERM {
		t.Skipf("this system forbids user namespaces to ordinary users: %v", err)
	}
	require.NoError(t, err)
	line, err := b.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	require.NoError(t, dialHost(h, fmt.Sprintf("127.0.0.1:%d", n)))

	private, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer private.Close()
	go serve(private, "secret of the host's")
	_, port, _ := net.SplitHostPort(private.Addr().String())
	for _, gateway := range []string{"127.0.0.1", "10.0.2.2", gatewayOf(t)} {
		require.NotContains(t, h.run("dial", []string{net.JoinHostPort(gateway, port), "400ms"}, namespaces.User, part()), "secret", gateway)
	}
	v := h.look(namespaces.User, part())
	require.Greater(t, len(v.Devices), 1)
	require.NotEmpty(t, v.Routes)
}

// gatewayOf is the host's gateway.
func gatewayOf(t *testing.T) string {
	v, err := look()
	require.NoError(t, err)
	for _, r := range v.Routes {
		var to, via string
		if n, _ := fmt.Sscanf(r, "%s via %s", &to, &via); n == 2 && to == "0.0.0.0/0" {
			return via
		}
	}
	return "192.0.2.1"
}

func TestPasta(t *testing.T) {
	unprivileged(t, "pasta", "passt", func(q ...netstack.Port) plan.Primitive { return netstack.Pasta{Publish: q} })
}

func TestSlirp(t *testing.T) {
	unprivileged(t, "slirp4netns", "slirp4netns", func(q ...netstack.Port) plan.Primitive { return netstack.Slirp{Publish: q} })
}

func TestHelperIsMissing(t *testing.T) {
	for _, part := range []plan.Primitive{netstack.Pasta{Program: "/none/pasta"}, netstack.Slirp{Program: "/none/slirp"}} {
		plantest.Check(t, part, namespaces.User)
		w := &world{t: t}
		_, err := w.try("look", nil, namespaces.User, part)
		if errors.Is(err, syscall.EPERM) && os.Geteuid() != 0 {
			t.Skipf("this system forbids user namespaces to ordinary users: %v", err)
		}
		require.ErrorIs(t, err, syscall.ENOENT)
		require.ErrorContains(t, err, "install the package")
	}
}

func TestHelperValues(t *testing.T) {
	for _, p := range []netstack.Port{{}, {Port: 9, Last: 8}, {Port: 9, Protocol: 132}} {
		require.ErrorIs(t, plan.Build(namespaces.User, netstack.Pasta{Publish: []netstack.Port{p}}).Err(), syscall.EINVAL)
		require.ErrorIs(t, plan.Build(namespaces.User, netstack.Slirp{Publish: []netstack.Port{p}}).Err(), syscall.EINVAL)
	}
	require.ErrorIs(t, plan.Build(namespaces.User, netstack.Pasta{MTU: 100}).Err(), syscall.EINVAL)
	require.Error(t, plan.Build(namespaces.User, netstack.Pasta{}, netstack.Bridge{}).Err())
}
