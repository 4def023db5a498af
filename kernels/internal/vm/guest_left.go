//go:build linux

package vm

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// inventory counts, by name, what a test must not leave behind: processes, mounts and cgroups.
func inventory() map[string]int {
	left := map[string]int{}
	for _, names := range [][]string{processes(), mounts(), cgroups()} {
		for _, name := range names {
			left[name]++
		}
	}
	return left
}

// leftovers returns what was not there before, after a time of grace for what is just ending. Processes are killed, so
// that the next command does not meet them.
func leftovers(before map[string]int) []string {
	var left []string
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if left = since(before); len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	if len(left) > 0 {
		unix.Kill(-1, unix.SIGKILL)
		reapAll(0)
	}
	return left
}

func since(before map[string]int) []string {
	reapAll(unix.WNOHANG)
	var left []string
	for name, n := range inventory() {
		if n > before[name] {
			left = append(left, name)
		}
	}
	slices.Sort(left)
	return left
}

// reapAll ends when there are no more children, or with WNOHANG, none that has ended.
func reapAll(options int) {
	for {
		if pid, err := unix.Wait4(-1, nil, options, nil); err == unix.ECHILD || err == nil && pid == 0 {
			return
		}
	}
}

// processes leaves out init and the kernel's threads, which are the children of process 2.
func processes() []string {
	var names []string
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		b, err := os.ReadFile(file)
		i := strings.LastIndex(string(b), ")") // the name before it may hold anything
		if err != nil || i < 0 || pid <= 2 {
			continue
		}
		if f := strings.Fields(string(b)[i+1:]); len(f) > 1 && f[1] != "2" {
			args, _ := os.ReadFile(filepath.Dir(file) + "/cmdline")
			names = append(names, strings.TrimSpace("process "+string(b)[:i+1]+" "+strings.ReplaceAll(string(args), "\x00", " ")))
		}
	}
	return names
}

// mounts are those of this mount namespace: what a test mounts in one of its own goes with it.
func mounts() []string {
	b, _ := os.ReadFile("/proc/self/mounts")
	var names []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 {
			names = append(names, "mount "+f[1]+" ("+f[2]+")")
		}
	}
	return names
}

func cgroups() []string {
	var names []string
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			names = append(names, "cgroup "+path)
		}
		return nil
	})
	return names
}
