package main

import (
	"errors"
	"io"
	"os/exec"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	oci "github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/cgroups/manager"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-dev/caisson"
	ours "github.com/caisson-dev/caisson/cgroups"
)

const (
	memory = 64 << 20
	pids   = 64
	quota  = 50000
	period = 100000
)

// cat is a process that waits until its input ends.
type cat struct {
	in   io.WriteCloser
	out  io.ReadCloser
	wait func() error
}

// starting is what exec.Cmd and caisson.Cmd have in common.
type starting interface {
	StdinPipe() (io.WriteCloser, error)
	StdoutPipe() (io.ReadCloser, error)
	Start() error
	Wait() error
}

// startCat returns when the process runs and waits: it has answered a line.
func startCat(cmd starting) (*cat, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &cat{in, out, cmd.Wait}
	_, err = in.Write([]byte{'\n'})
	if err == nil {
		_, err = io.ReadFull(out, make([]byte, 1))
	}
	if err != nil {
		return nil, errors.Join(err, c.end())
	}
	return c, nil
}

func (c *cat) end() error {
	c.in.Close()
	return c.wait()
}

// startAndEnd is a round without more.
func startAndEnd(cmd starting) error {
	c, err := startCat(cmd)
	if err != nil {
		return err
	}
	return c.end()
}

func starters() []contestant {
	plain := caisson.New()
	limited := caisson.New(ours.Limits{Memory: memory, CPUs: float64(quota) / period, PIDs: pids})
	return []contestant{
		{"os/exec alone", func(string) error { return startAndEnd(exec.Command("/bin/cat")) }},
		{"caisson alone", func(string) error { return startAndEnd(plain.Command("/bin/cat")) }},
		{"caisson", func(string) error { return startAndEnd(limited.Command("/bin/cat")) }},
		{"opencontainers", opencontainers},
		{"containerd", containerd},
	}
}

func ociGroup(name string) *oci.Cgroup {
	return &oci.Cgroup{Path: "/" + name, Resources: &oci.Resources{Memory: memory, PidsLimit: ptr(int64(pids)), CpuQuota: quota, CpuPeriod: period, SkipDevices: true, Devices: []*config.Rule{}}}
}

func ptr[T any](v T) *T { return &v }

func opencontainers(name string) error {
	cmd := exec.Command("/bin/cat")
	c, err := startCat(cmd)
	if err != nil {
		return err
	}
	group := ociGroup(name)
	m, err := manager.New(group)
	if err != nil {
		return err
	}
	if err := m.Apply(cmd.Process.Pid); err != nil {
		return err
	}
	if err := m.Set(group.Resources); err != nil {
		return err
	}
	if err := c.end(); err != nil {
		return err
	}
	return m.Destroy()
}

func resources() *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(memory))}, Pids: &specs.LinuxPids{Limit: ptr(int64(pids))},
		CPU: &specs.LinuxCPU{Quota: ptr(int64(quota)), Period: ptr(uint64(period))}}
}

func containerd(name string) error {
	cmd := exec.Command("/bin/cat")
	c, err := startCat(cmd)
	if err != nil {
		return err
	}
	add, remove, _, err := containerdGroup(name)
	if err != nil {
		return err
	}
	if err := add(cmd.Process.Pid); err != nil {
		return err
	}
	if err := c.end(); err != nil {
		return err
	}
	return remove()
}

func containerdGroup(name string) (add func(int) error, remove func() error, stat func() error, err error) {
	if cgroups.Mode() == cgroups.Unified {
		m, err := cgroup2.NewManager("/sys/fs/cgroup", "/"+name, cgroup2.ToResources(resources()))
		if err != nil {
			return nil, nil, nil, err
		}
		return func(pid int) error { return m.AddProc(uint64(pid)) }, m.Delete, func() error { _, err := m.Stat(); return err }, nil
	}
	g, err := cgroup1.New(cgroup1.StaticPath("/"+name), resources())
	if err != nil {
		return nil, nil, nil, err
	}
	return func(pid int) error { return g.AddProc(uint64(pid)) }, g.Delete, func() error { _, err := g.Stat(); return err }, nil
}

// readers make a group each and read its statistics.
func readers() (all []contestant, done func(), err error) {
	var undo []func() error
	done = func() {
		for _, f := range undo {
			f()
		}
	}
	name := "caisson-bench-stats-"
	own, err := ours.Create("/"+name+"a", ours.Limits{Memory: memory, PIDs: pids})
	if err != nil {
		return nil, done, err
	}
	undo = append(undo, own.Delete)
	group := ociGroup(name + "b")
	m, err := manager.New(group)
	if err == nil {
		err = m.Apply(-1)
	}
	if err != nil {
		return nil, done, err
	}
	undo = append(undo, m.Destroy)
	_, remove, stat, err := containerdGroup(name + "c")
	if err != nil {
		return nil, done, err
	}
	undo = append(undo, remove)
	return []contestant{
		{"caisson", func(string) error { _, err := own.Stats(); return err }},
		{"opencontainers", func(string) error { _, err := m.GetStats(); return err }},
		{"containerd", func(string) error { return stat() }},
	}, done, nil
}
