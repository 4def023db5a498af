//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// pluginDirs are where distributions put the plugins of containernetworking.
var pluginDirs = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

// plugins measures the chain bridge, portmap, firewall: each a program of its own, as an engine that speaks CNI executes them. The network namespace is made beforehand, and not measured.
func (b *bench) plugins() error {
	dir := ""
	for _, d := range pluginDirs {
		if _, err := os.Stat(filepath.Join(d, "portmap")); err == nil {
			dir = d
		}
	}
	if dir == "" {
		fmt.Println("the plugins of containernetworking are not installed: package containernetworking-plugins")
		return nil
	}
	c := chain{dir: dir, state: b.state}
	var times []time.Duration
	for i := range max(b.rounds/4, 5) {
		d, err := c.round(fmt.Sprint("bench-", os.Getpid(), "-", i))
		if err != nil {
			return fmt.Errorf("plugins of containernetworking: %w", err)
		}
		times = append(times, d)
		time.Sleep(b.pause)
	}
	fmt.Printf("%-28s %6.2f ms\n", "plugins, without the start", ms(median(times)))
	return nil
}

type chain struct{ dir, state string }

// round adds a network namespace to a network, and takes it out again.
func (c chain) round(id string) (time.Duration, error) {
	sleep := exec.Command("unshare", "-n", "sleep", "100")
	if err := sleep.Start(); err != nil {
		return 0, err
	}
	defer func() {
		sleep.Process.Kill()
		sleep.Wait()
	}()
	ns := fmt.Sprintf("/proc/%d/ns/net", sleep.Process.Pid)
	for begin := time.Now(); same(ns, "/proc/thread-self/ns/net"); time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Second {
			return 0, fmt.Errorf("unshare(1) has made no network namespace")
		}
	}
	begin := time.Now()
	result, err := c.all("ADD", id, ns, nil)
	d := time.Since(begin)
	if err != nil {
		return 0, err
	}
	_, err = c.all("DEL", id, ns, result)
	return d, err
}

func same(a, b string) bool {
	x, _ := os.Readlink(a)
	y, _ := os.Readlink(b)
	return x == y
}

// all executes the chain; each plugin gets the result of the one before.
func (c chain) all(verb, id, ns string, result json.RawMessage) (json.RawMessage, error) {
	names := []string{"bridge", "portmap", "firewall"}
	if verb == "DEL" {
		names = []string{"firewall", "portmap", "bridge"}
	}
	for _, name := range names {
		next, err := c.one(name, verb, id, ns, result)
		if err != nil {
			return nil, err
		}
		if verb == "ADD" {
			result = next
		}
	}
	return result, nil
}

func (c chain) one(name, verb, id, ns string, result json.RawMessage) (json.RawMessage, error) {
	conf := map[string]any{"cniVersion": "1.0.0", "name": "bench", "type": name}
	switch name {
	case "bridge":
		conf["bridge"], conf["isGateway"], conf["ipMasq"] = "cni-bench", true, true
		conf["ipam"] = map[string]any{"type": "host-local", "subnet": "10.201.0.0/16", "dataDir": filepath.Join(c.state, "host-local"), "routes": []any{map[string]any{"dst": "0.0.0.0/0"}}}
	case "portmap":
		conf["runtimeConfig"] = map[string]any{"portMappings": []any{map[string]any{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}}}
	case "firewall":
		conf["backend"] = "iptables"
	}
	if result != nil {
		conf["prevResult"] = result
	}
	in, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(c.dir, name))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+id, "CNI_NETNS="+ns, "CNI_IFNAME=eth0", "CNI_PATH="+c.dir)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, verb, err, strings.TrimSpace(string(out)))
	}
	return out, nil
}
