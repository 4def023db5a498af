//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caisson-dev/caisson/kernels/internal/vm"
)

// What a person does, for each architecture: go test -exec vmrun, with a coverage that has to come back to the host.
func TestGoTestExec(t *testing.T) {
	if os.Getenv("VMRUN") == "1" || testing.Short() || runtime.GOARCH != "amd64" {
		t.Skip("boots machines, which takes time and an amd64 host")
	}
	vmrun, err := vm.BuildInit(".", "amd64", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for arch, kernel := range map[string]string{"amd64": "6.12", "arm64": "arm64"} {
		t.Run(arch, func(t *testing.T) {
			path, err := vm.Find(kernel)
			if err := errors.Join(err, vm.Missing(path)); err != nil {
				t.Skipf("%v; kernels/prepare.sh gets it", err)
			}
			profile := filepath.Join(t.TempDir(), "cover")
			c := exec.Command("go", "test", "-count=1", "-v", "-coverprofile", profile, "-exec", vmrun, "../internal/record")
			c.Env = append(os.Environ(), "VMRUN_KERNEL="+kernel, "CGO_ENABLED=0", "GOARCH="+arch)
			out, err := c.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestRead ") {
				t.Errorf("%v\n%s", err, out)
			}
			if b, err := os.ReadFile(profile); err != nil || !strings.Contains(string(b), "record.go:") {
				t.Errorf("coverage: %v\n%s", err, b)
			}
		})
	}
}

func TestModule(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := module(dir), filepath.Dir(filepath.Dir(dir)); got != want {
		t.Errorf("module(%s) = %s, want %s", dir, got, want)
	}
	if got := module("/proc"); got != "/proc" {
		t.Errorf("module(/proc) = %s", got)
	}
}
