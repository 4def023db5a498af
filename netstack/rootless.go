//go:build linux

package netstack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
	"github.com/caisson-dev/caisson/plan"
)

// Pasta connects the sandbox of an ordinary user to the host's network by the program pasta(1), which turns its packets into connections of the user's own. The sandbox has the host's addresses on its
// card, and sees the world as any program of the user does, but not the host's loopback. The zero value publishes nothing. The program ends with the sandbox's network.
//
// It needs a user namespace in the same sandbox, /dev/net/tun, and pasta: package passt in Debian and Fedora. Without the program it is an [*Error] with ENOENT that says so.
type Pasta struct {
	Publish []Port // TCP and UDP, without Target; ports of the host below 1024 need a privilege (ip_unprivileged_port_start)
	MTU     int    // of the card, in bytes; 0 is pasta's own: 65520
	Program string // "" is the first "pasta" in PATH
}

// Slirp does what [Pasta] does, by the program slirp4netns(1), which is older and found on more systems: IPv4 only, with addresses of its own, the sandbox has 10.0.2.100, and slower. It is of package slirp4netns.
type Slirp struct {
	Publish []Port // as in [Pasta]
	MTU     int    // of the card, in bytes, at most 65520; 0 is 65520
	Program string // "" is the first "slirp4netns" in PATH
}

// Apply asks for the program to be run.
func (s Pasta) Apply(p *plan.Plan) error {
	specs, err := s.arguments()
	if err != nil {
		return err
	}
	return helper(p, "pasta", cmp.Or(s.Program, "pasta"), "passt", s.MTU, func(r *plan.Run, program string) (running, error) { return startPasta(r, program, specs) })
}

// Apply asks for the program to be run.
func (s Slirp) Apply(p *plan.Plan) error {
	if err := checkPublished(s.Publish); err != nil {
		return err
	}
	return helper(p, "slirp4netns", cmp.Or(s.Program, "slirp4netns"), "slirp4netns", s.MTU, s.start)
}

// running is a helper program that can be ended.
type running interface{ end() error }

type helperKey struct{}

// helper records that a program connects the sandbox while the child waits, when the child has its ids.
func helper(p *plan.Plan, name, program, pkg string, mtu int, start func(*plan.Run, string) (running, error)) error {
	if mtu != 0 && (mtu < 1280 || mtu > 65520) {
		return &ValueError{"MTU", strconv.Itoa(mtu), "not between 1280 and 65520"}
	}
	if err := only(p); err != nil {
		return err
	}
	if err := (Loopback{}).Apply(p); err != nil {
		return err
	}
	action := plan.Action{Name: "connect by " + name, Undo: func(r *plan.Run) error {
		h, _ := r.Value(helperKey{}).(running)
		if h == nil {
			return nil
		}
		return h.end()
	}, Do: func(r *plan.Run) error {
		path, err := exec.LookPath(program)
		if err != nil {
			return &Error{Op: "connect without privilege", Err: errors.Join(err, syscall.ENOENT), Hint: "install the package " + pkg + ", or name the program"}
		}
		h, err := start(r, path)
		r.Set(helperKey{}, h)
		return err
	}}
	p.Late(func() error { // the maps of ids are also written while the child waits, by parts that may decide so late
		p.Late(func() error {
			if p.Cloned()&unix.CLONE_NEWUSER == 0 && os.Geteuid() != 0 {
				return &Error{Op: "connect by " + name, Err: syscall.EPERM, Hint: "the sandbox needs a user namespace of its own"}
			}
			p.While(action)
			return nil
		})
		return nil
	})
	return nil
}

func checkPublished(all []Port) error {
	for _, q := range all {
		if q.Port == 0 || q.Target.IsValid() || q.Last != 0 && q.Last < q.Port || q.Protocol != 0 && q.Protocol != firewall.TCP && q.Protocol != firewall.UDP || q.Addr.Zone() != "" {
			return &ValueError{"Publish", fmt.Sprint(q.Port), "a port, or a range, of TCP or UDP without a target is wanted"}
		}
	}
	return nil
}

// arguments are pasta's. Nothing of the host's loopback is shown to the sandbox: neither by ports that would be forwarded the other way, nor by way of the gateway's address.
func (s Pasta) arguments() ([]string, error) {
	if err := checkPublished(s.Publish); err != nil {
		return nil, err
	}
	args := []string{"--quiet", "--config-net", "--no-map-gw", "-T", "none", "-U", "none"}
	if s.MTU != 0 {
		args = append(args, "--mtu", strconv.Itoa(s.MTU))
	}
	for _, proto := range []struct {
		flag string
		n    firewall.Protocol
	}{{"-t", firewall.TCP}, {"-u", firewall.UDP}} {
		none := true
		for _, q := range s.Publish {
			if cmp.Or(q.Protocol, firewall.TCP) == proto.n {
				args, none = append(args, proto.flag, pastaPort(q)), false
			}
		}
		if none {
			args = append(args, proto.flag, "none")
		}
	}
	return args, nil
}

// pastaPort writes a port as pasta wants it: 192.0.2.1/8080-8081:80-81.
func pastaPort(q Port) string {
	last, to := max(q.Last, q.Port), cmp.Or(q.To, q.Port)
	text := fmt.Sprintf("%d-%d:%d-%d", q.Port, last, to, to+last-q.Port)
	if last == q.Port {
		text = fmt.Sprintf("%d:%d", q.Port, to)
	}
	if q.Addr.IsValid() && !q.Addr.IsUnspecified() {
		text = q.Addr.String() + "/" + text
	}
	return text
}

// pasta is a pasta that runs in the background.
type pasta struct{ pidfd int }

// startPasta returns when pasta has set up the card, which is when it goes into the background.
func startPasta(r *plan.Run, program string, args []string) (running, error) {
	dir, err := os.MkdirTemp("", "pasta")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "pid")
	args = append(args[:len(args):len(args)], "--pid", file, strconv.Itoa(r.PID))
	if err := output(r.Context, exec.CommandContext(r.Context, program, args...), dir); err != nil {
		return nil, &Error{Op: "connect by pasta", Err: err}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, &Error{Op: "find pasta's process", Err: err}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, &Error{Op: "find pasta's process", Err: err}
	}
	return &pasta{fd}, nil
}

// output runs a command to its end, and makes an error of what it says: in a file, since what it leaves in the background would keep a pipe open.
func output(ctx context.Context, c *exec.Cmd, dir string) error {
	f, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		return err
	}
	defer f.Close()
	c.Stdout, c.Stderr = f, f
	if err := c.Run(); err != nil {
		said, _ := os.ReadFile(f.Name())
		return errors.Join(fmt.Errorf("%w: %s", err, bytes.TrimSpace(said)), ctx.Err())
	}
	return nil
}

// end ends pasta, which may have ended with the sandbox's network.
func (h *pasta) end() error {
	if h.pidfd < 0 {
		return nil
	}
	defer func() {
		unix.Close(h.pidfd)
		h.pidfd = -1
	}()
	if err := unix.PidfdSendSignal(h.pidfd, unix.SIGTERM, nil, 0); err != nil && err != unix.ESRCH {
		return &Error{Op: "end pasta", Err: err}
	}
	return nil
}

// slirp is a slirp4netns that runs. It ends when our end of its pipe is closed, also where we are killed.
type slirp struct {
	cmd  *exec.Cmd
	exit *os.File
	dir  string
}

func (s Slirp) start(r *plan.Run, program string) (running, error) {
	dir, err := os.MkdirTemp("", "slirp")
	if err != nil {
		return nil, err
	}
	h := &slirp{dir: dir}
	if err := s.run(r, program, h); err != nil {
		return nil, errors.Join(err, h.end())
	}
	return h, nil
}

func (s Slirp) run(r *plan.Run, program string, h *slirp) error {
	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer readyRead.Close()
	exitRead, exitWrite, err := os.Pipe()
	if err != nil {
		readyWrite.Close()
		return err
	}
	h.exit = exitWrite
	api := filepath.Join(h.dir, "api")
	h.cmd = exec.Command(program, "--configure", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp", "--mtu", strconv.Itoa(cmp.Or(s.MTU, 65520)),
		"--ready-fd", "3", "--exit-fd", "4", "--api-socket", api, strconv.Itoa(r.PID), "eth0")
	h.cmd.ExtraFiles = []*os.File{readyWrite, exitRead}
	var said bytes.Buffer
	h.cmd.Stderr = &said
	err = h.cmd.Start()
	readyWrite.Close()
	exitRead.Close()
	if err != nil {
		h.cmd = nil
		return &Error{Op: "start slirp4netns", Err: err}
	}
	stop := context.AfterFunc(r.Context, func() { readyRead.SetReadDeadline(time.Now()) })
	defer stop()
	if n, _ := readyRead.Read(make([]byte, 1)); n != 1 {
		h.cmd.Process.Kill()
		h.cmd.Wait()
		h.cmd = nil
		return &Error{Op: "connect by slirp4netns", Err: errors.Join(fmt.Errorf("it has ended: %s", bytes.TrimSpace(said.Bytes())), r.Context.Err())}
	}
	for _, q := range s.Publish {
		if err := publish(api, q); err != nil {
			return err
		}
	}
	return nil
}

// publish asks slirp4netns for ports, one by one.
func publish(api string, q Port) error {
	proto, host := "tcp", "0.0.0.0"
	if q.Protocol == firewall.UDP {
		proto = "udp"
	}
	if q.Addr.IsValid() {
		host = q.Addr.String()
	}
	for i := range max(q.Last, q.Port) - q.Port + 1 {
		text := fmt.Sprintf(`{"execute": "add_hostfwd", "arguments": {"proto": %q, "host_addr": %q, "host_port": %d, "guest_port": %d}}`, proto, host, q.Port+i, cmp.Or(q.To, q.Port)+i)
		if err := askSlirp(api, text); err != nil {
			return &Error{Op: fmt.Sprintf("publish port %d by slirp4netns", q.Port+i), Err: err}
		}
	}
	return nil
}

func askSlirp(api, text string) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: api, Net: "unix"})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	if bytes.Contains(answer[:n], []byte(`"error"`)) {
		return fmt.Errorf("%w: %s", syscall.EADDRINUSE, bytes.TrimSpace(answer[:n]))
	}
	return nil
}

// end has it end, and waits for that.
func (h *slirp) end() (err error) {
	if h.exit != nil {
		h.exit.Close()
		h.exit = nil
	}
	if h.cmd != nil {
		stop := time.AfterFunc(patience, func() { h.cmd.Process.Kill() })
		h.cmd.Wait() // however it ends
		stop.Stop()
		h.cmd = nil
	}
	return os.RemoveAll(h.dir)
}
