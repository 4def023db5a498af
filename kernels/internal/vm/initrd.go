//go:build linux

package vm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// initrd returns a cpio archive with the init, the job, the SELinux policy if any, and the kernel modules that it takes
// to reach the host's files.
func (j job) initrd(init, policy string) ([]byte, error) {
	var a archive
	a.add("dev", 0o40755, nil) // for the kernel's own devtmpfs and console
	a.add("modules", 0o40755, nil)
	description, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	a.add("job", 0o100644, description)
	a.addFile("init", 0o100755, init)
	if policy != "" {
		a.addFile("selinux.pol", 0o100644, policy)
	}
	modules, err := os.ReadFile(j.Modules + "/modules.dep")
	if err != nil {
		return nil, err
	}
	for i, m := range loadOrder(string(modules), "virtio_mmio", "virtio_console", "9pnet_virtio", "9p", "overlay") {
		a.addFile(fmt.Sprintf("modules/%03d%s", i, filepath.Ext(m)), 0o100644, filepath.Join(j.Modules, m))
	}
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes(), a.err
}

// loadOrder returns the files of the named modules and all that they depend on, which comes first. A line of modules.dep
// is "FILE: DEPENDENCY...", nearest first. A module that is not there is built in.
func loadOrder(modulesDep string, names ...string) []string {
	files := map[string][]string{}
	for line := range strings.Lines(modulesDep) {
		file, dependencies, _ := strings.Cut(line, ":")
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		files[name] = append([]string{file}, strings.Fields(dependencies)...)
	}
	var order []string
	seen := map[string]bool{}
	for _, name := range names {
		for i := len(files[name]) - 1; i >= 0; i-- {
			if file := files[name][i]; !seen[file] {
				seen[file] = true
				order = append(order, file)
			}
		}
	}
	return order
}

// archive is a cpio archive in the format newc (cpio(5)), with the first error of reading what goes into it.
type archive struct {
	bytes.Buffer
	err error
}

// add appends a file. The header is thirteen numbers of eight hexadecimal digits, of which a kernel wants few.
func (a *archive) add(name string, mode int, data []byte) {
	fmt.Fprintf(a, "070701%08X%08X%024X%08X%08X%032X%08X%08X%s\x00", 0, mode, 1, 0, len(data), 0, len(name)+1, 0, name)
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *archive) addFile(name string, mode int, path string) {
	data, err := os.ReadFile(path)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.add(name, mode, data)
}

func (a *archive) pad() {
	a.Write(make([]byte, -a.Len()&3))
}
