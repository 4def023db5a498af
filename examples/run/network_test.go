//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/netstack/firewall"
)

func TestParsePort(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	for text, want := range map[string]netstack.Port{
		"80":                   {To: 80},
		"8080:80":              {Port: 8080, To: 80},
		"127.0.0.1:8080:80":    {Addr: local, Port: 8080, To: 80},
		"127.0.0.1::80":        {Addr: local, To: 80},
		"[fd00::1]:8080:80":    {Addr: netip.MustParseAddr("fd00::1"), Port: 8080, To: 80},
		"53:53/udp":            {Protocol: firewall.UDP, Port: 53, To: 53},
		"8000-8010:80-90/sctp": {Protocol: firewall.SCTP, Port: 8000, Last: 8010, To: 80},
	} {
		got, err := parsePort(text)
		if want.Protocol == 0 {
			want.Protocol = got.Protocol
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", ":", "x", "0", "65536", "-1", "80-", "1:2:3:4", "8000-8001:80", "80-70:80-70", "1.2.3:80:80", "80/", "80/icmp", "+80", "1.2.3.4:80"} {
		if got, err := parsePort(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestExpose(t *testing.T) {
	f, err := parse(strings.Fields("--network bridge -P -p 8000-8001:90-91 -p 53/udp --expose 80 --expose 90-92 --expose 53/udp --expose 53 --expose 80/tcp x"))
	must(t, err)
	var got []string
	for _, p := range f.network.published() {
		got = append(got, fmt.Sprint(p.Port, ":", p.To, "/", p.Protocol))
	}
	if want := "8000:90/any 0:53/udp 0:80/tcp 0:92/tcp 0:53/tcp"; strings.Join(got, " ") != want {
		t.Errorf("%v; want %s", got, want)
	}
	for _, bad := range []string{"", "0", "80-79", "65536", "1:2", "80/icmp", "x"} {
		if _, err := parse([]string{"--expose", bad, "x"}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// lonely is a place with a network and a /run of its own, which stand for the host's.
type lonely struct{ holder *exec.Cmd }

func alone(t *testing.T) lonely {
	t.Helper()
	needRoot(t)
	c := exec.Command("sh", "-c", "mount -t tmpfs run /run && ip link set lo up && echo ready && exec cat")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS}
	stdin, err := c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() {
		stdin.Close()
		c.Wait()
	})
	wait(t, out, "ready")
	l := lonely{c}
	if o := l.try(t, in([]string{"--network", "bridge"}, "true")...); strings.Contains(o.stderr, "nf_tables") {
		t.Skip("no packet filter in this kernel: ", o.stderr)
	}
	return l
}

// command is run in that place.
func (l lonely) command(args ...string) *exec.Cmd {
	c := command(0, args...)
	c.Args = append([]string{"nsenter", "-t", strconv.Itoa(l.holder.Process.Pid), "-n", "-m", "--", c.Path}, c.Args[1:]...)
	c.Path, c.Err = exec.LookPath("nsenter")
	return c
}

func (l lonely) try(t *testing.T, args ...string) outcome {
	t.Helper()
	return end(t, l.command(args...))
}

// serving starts a server in a sandbox, and waits until it answers. It gives the pid of the sandbox's first process.
func (l lonely) serving(t *testing.T, flags ...string) string {
	t.Helper()
	c := l.command(in(append([]string{"--init"}, flags...), "serve", ":80")...)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	})
	wait(t, out, "ready")
	all, err := exec.Command("pgrep", "-P", strconv.Itoa(c.Process.Pid)).Output()
	must(t, err)
	return strings.TrimSpace(string(all))
}

// TestBridge: a server on a bridge is reached by its neighbour and by a port of the host's, which nobody else gets meanwhile.
func TestBridge(t *testing.T) {
	l := alone(t)
	l.serving(t, "--network", "bridge", "--ip", "10.77.0.50", "--mac-address", "02:00:00:00:00:07", "-p", "8080:80")
	l.try(t, in([]string{"--network", "bridge:caisson0", "--ip", "10.77.0.51"}, "ask", "10.77.0.50:80")...).has(t, 0, "hello 10.77.0.51", "")
	if o := l.try(t, in([]string{"--network", "host"}, "ask", "10.77.0.1:8080")...); !strings.HasPrefix(o.stdout, "hello ") {
		t.Fatal("the published port is not there: ", o)
	}
	l.try(t, in([]string{"--network", "none"}, "ask", "10.77.0.50:80")...).has(t, 1, "dial tcp 10.77.0.50:80: connect: network is unreachable", "")
	l.try(t, in([]string{"--network", "bridge", "-p", "8080:81"}, "true")...).fails(t, 125, "8080")
	l.try(t, in([]string{"--network", "bridge", "--ip", "10.77.0.50"}, "true")...).fails(t, 125, "10.77.0.50")
	l.try(t, in([]string{"--network", "bridge", "--ip", "10.9.9.9"}, "true")...).fails(t, 125, "10.9.9.9")
}

// TestPublishAll: what is exposed gets ports of the host's that were free, but for what has one already.
func TestPublishAll(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("needs nft(8) to see which ports were chosen: package nftables")
	}
	l := alone(t)
	l.serving(t, "--network", "bridge", "-p", "8080:81", "--expose", "80-81/tcp", "-P")
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(l.holder.Process.Pid), "-n", "--", nft, "list", "map", "inet", "caisson-v1", "anywhere4").CombinedOutput()
	must(t, err)
	chosen := regexp.MustCompile(`tcp \. (\d+) [^:]*: 10\.77\.\d+\.\d+ \. (\d+)`).FindAllStringSubmatch(string(out), -1)
	slices.SortFunc(chosen, func(a, b []string) int { return strings.Compare(a[2], b[2]) })
	if len(chosen) != 2 || chosen[0][2] != "80" || chosen[1][2] != "81" || chosen[1][1] != "8080" {
		t.Fatal(string(out))
	}
	if o := l.try(t, in([]string{"--network", "host"}, "ask", "10.77.0.1:"+chosen[0][1])...); !strings.HasPrefix(o.stdout, "hello ") {
		t.Fatal("the chosen port is not there: ", o)
	}
	l.try(t, in([]string{"--network", "none", "-P"}, "true")...).fails(t, 125, "--publish-all")
}

// TestNetworkFiles: names and their server are the sandbox's own.
func TestNetworkFiles(t *testing.T) {
	l := alone(t)
	rootfs := t.TempDir()
	flags := []string{"--rootfs", rootfs, "--network", "bridge", "--hostname", "box", "--dns", "10.0.0.1", "--dns-search", "example.org", "--dns-option", "ndots:2", "--add-host", "db:10.0.0.9"}
	l.try(t, in(flags, "cat", "/etc/resolv.conf")...).has(t, 0, "nameserver 10.0.0.1\nsearch example.org\noptions ndots:2", "")
	l.try(t, in(flags, "cat", "/etc/hostname")...).has(t, 0, "box", "")
	if o := l.try(t, in(flags, "cat", "/etc/hosts")...); !strings.Contains(o.stdout, "10.0.0.9\tdb") || !strings.Contains(o.stdout, "127.0.0.1\tlocalhost") {
		t.Fatal(o)
	}
	if left, _ := filepath.Glob(rootfs + "/etc/*"); len(left) != 3 {
		t.Fatal("mount points that nobody needs: ", left)
	}
}

// TestJoinNetwork: the network of another process, and of none.
func TestJoinNetwork(t *testing.T) {
	l := alone(t)
	server := l.serving(t, "--network", "bridge", "--ip", "10.77.0.50")
	if o := l.try(t, in([]string{"--network", "container:" + server}, "addresses")...); o.code != 0 || !strings.Contains(o.stdout, "10.77.0.50/16") {
		t.Fatal(o)
	}
	l.try(t, in([]string{"--network", "container:0"}, "true")...).fails(t, 125, "not a process")
	l.try(t, in([]string{"--network", "container:4194305"}, "true")...).fails(t, 125, "no such process")
}

// withTun runs run as an ordinary user who may open /dev/net/tun, as most systems have it.
func withTun(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	c := command(os.Geteuid(), args...)
	if os.Geteuid() != 0 {
		return c
	}
	tun := filepath.Join(programs(), "tun")
	if err := unix.Mknod(tun, unix.S_IFCHR, int(unix.Mkdev(10, 200))); err != unix.EEXIST {
		must(t, err)
	}
	must(t, os.Chmod(tun, 0o666))
	c.Args = append([]string{"sh", "-c", `mount --bind "$0" /dev/net/tun && exec setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"`, tun, c.Path}, c.Args[1:]...)
	c.Path = "/bin/sh"
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS} // where all mounts are private
	return c
}

// TestPasta: an ordinary user's sandbox has a network, by the program pasta, and a port.
func TestPasta(t *testing.T) {
	needUser(t)
	flags := []string{"--network", "pasta", "-p", "127.0.0.1:18080:80", "--init"}
	if _, err := exec.LookPath("pasta"); err != nil {
		end(t, command(ordinary(), in(flags, "true")...)).fails(t, 125, "passt")
		t.Skip("there is no pasta")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip(err)
	}
	c := withTun(t, in(flags, "serve", ":80")...)
	out, err := c.StdoutPipe()
	must(t, err)
	var complaint strings.Builder
	c.Stderr = &complaint
	must(t, c.Start())
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	})
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		c.Wait()
		if strings.Contains(complaint.String(), "tun") && os.Geteuid() != 0 {
			t.Skip("ordinary users may not open it: ", complaint.String())
		}
		t.Fatal(line, complaint.String())
	}
	if o := try(t, in([]string{"--network", "host"}, "ask", "127.0.0.1:18080")...); o.code != 0 || !strings.HasPrefix(o.stdout, "hello ") {
		t.Fatal(o)
	}
}
