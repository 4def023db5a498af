//go:build linux

package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Find returns the path of a kernel or policy that kernels/prepare.sh has made: names without a slash are looked up in
// the directory CAISSON_KERNELS_DIR, by default caisson/kernels in the user's cache directory.
func Find(name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("no name: want a directory, or the name of a kernel made by kernels/prepare.sh")
	}
	path := name
	if !strings.Contains(name, "/") {
		dir, err := cacheDir()
		if err != nil {
			return "", err
		}
		path = filepath.Join(dir, name)
	}
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

func cacheDir() (string, error) {
	if dir := os.Getenv("CAISSON_KERNELS_DIR"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "caisson", "kernels"), err
}

// BuildInit compiles a program that calls Guest, a package of this module, into a directory.
func BuildInit(pkg, arch, dir string) (string, error) {
	init := filepath.Join(dir, "init-"+arch)
	c := exec.Command("go", "build", "-o", init, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch, "GOOS=linux")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return init, nil
}
