package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// peer is another program that starts the sandbox.
type peer struct {
	name string
	argv []string
	root bool // needs root
}

// peers gives the command lines for a sandbox. The id names the container of a starter.
func (w *workshop) peers(sandbox, id string) []peer {
	state := "--root=" + w.path("state")
	return []peer{
		{"bubblewrap", bubblewrap(sandbox, w.program()), false},
		{"bubblewrap, no init", bubblewrap(sandbox, "--as-pid-1", w.program()), false},
		{"crun", []string{"crun", state, "run", "--bundle=" + w.path(sandbox), id}, true},
		{"crun, no cgroup", []string{"crun", state, "--cgroup-manager=disabled", "run", "--bundle=" + w.path(sandbox), id}, true},
		{"runc", []string{"runc", state, "run", "--bundle=" + w.path(sandbox), id}, true},
	}
}

func bubblewrap(sandbox string, last ...string) []string {
	flags := "bwrap --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup"
	if sandbox == "B" {
		flags += " --unshare-net --unshare-user --uid 0 --gid 0"
	}
	return append(strings.Fields(flags), last...)
}

// find replaces the name of the program by its path and tries the command once. The error is what the table says.
func (p *peer) find() error {
	path, err := exec.LookPath(p.argv[0])
	if err != nil {
		return fmt.Errorf("not installed: %w", err)
	}
	p.argv[0] = path
	cmd := exec.Command(path, p.argv[1:]...)
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

type object = map[string]any

// bundle writes the config.json of a sandbox for crun and runc.
func (w *workshop) bundle(sandbox string) error {
	b, err := json.MarshalIndent(w.config(sandbox), "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(w.path(sandbox+"/config.json"), b, 0o644)
}

func (w *workshop) config(sandbox string) object {
	linux := object{"namespaces": ociNamespaces(sandbox)}
	if sandbox == "B" {
		ids := []object{{"containerID": 0, "hostID": os.Getuid(), "size": 1}}
		linux["uidMappings"], linux["gidMappings"] = ids, []object{{"containerID": 0, "hostID": os.Getgid(), "size": 1}}
	}
	return object{
		"ociVersion": "1.0.2",
		"root":       object{"path": w.path("rootfs"), "readonly": true},
		"process": object{"user": object{"uid": 0, "gid": 0}, "cwd": "/", "args": []string{w.program()},
			"env": []string{"PATH=/usr/bin:/bin"}},
		"mounts": ociMounts(),
		"linux":  linux,
	}
}

func ociNamespaces(sandbox string) (all []object) {
	names := []string{"mount", "pid", "ipc", "uts", "cgroup"}
	if sandbox == "B" {
		names = append(names, "network", "user")
	}
	for _, n := range names {
		all = append(all, object{"type": n})
	}
	return all
}

func ociMounts() []object {
	mount := func(target, fs string, options ...string) object {
		return object{"destination": target, "type": fs, "source": fs, "options": options}
	}
	return []object{
		mount("/proc", "proc", "nosuid", "nodev", "noexec"),
		mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
		mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
		mount("/dev/shm", "tmpfs", "nosuid", "nodev", "noexec", "mode=1777", "size=65536k"),
		mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"),
	}
}
