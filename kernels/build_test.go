//go:build linux

package kernels

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caisson-dev/caisson/kernels/internal/vm"
)

// build has the module's test binaries, which are made once per architecture and shared by the machines.
type build struct {
	module string // the module's root
	dir    string // of the binaries
	once   map[string]func() (programs, error)
}

// programs are for one architecture.
type programs struct {
	init   string
	tests  []testBinary
	broken []error // packages whose tests cannot be compiled
}

type testBinary struct {
	pkg  string // import path
	name string // the same within the module
	dir  string
	file string
}

func newBuild(t *testing.T) *build {
	mod, err := output(exec.Command("go", "env", "GOMOD"))
	if err != nil {
		t.Fatal(err)
	}
	b := &build{module: filepath.Dir(mod), dir: t.TempDir()}
	b.once = map[string]func() (programs, error){
		"amd64": sync.OnceValues(func() (programs, error) { return b.compile("amd64") }),
		"arm64": sync.OnceValues(func() (programs, error) { return b.compile("arm64") }),
	}
	if err := watch(b.module); err != nil {
		t.Fatal(err)
	}
	return b
}

// watch reads every directory of the module, and by that tells go test what the result depends on: go test does not know
// that the compilers it cannot see read these files.
func watch(module string) error {
	return filepath.WalkDir(module, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) { // another package's test has tidied up
			return nil
		}
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		return err
	})
}

// programs fails the test for each package that does not compile, and returns the others.
func (b *build) programs(t *testing.T, arch string) programs {
	t.Helper()
	p, err := b.once[arch]()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range p.broken {
		t.Error(err)
	}
	return p
}

func (b *build) compile(arch string) (p programs, err error) {
	if p.init, err = vm.BuildInit("./vmrun", arch, b.dir); err != nil {
		return p, err
	}
	tests, err := b.list(arch)
	if err != nil {
		return p, err
	}
	for _, test := range tests {
		// Without symbol table and debugging information it links twice as fast; stack traces do not need them.
		if _, err := output(b.goTool(arch, "test", "-c", "-ldflags=-s -w", "-o", test.file, test.pkg)); err != nil {
			p.broken = append(p.broken, err)
		} else {
			p.tests = append(p.tests, test)
		}
	}
	return p, nil
}

// list finds the packages that have tests, except the lane itself. Nested modules are not among them.
func (b *build) list(arch string) ([]testBinary, error) {
	const format = "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}\t{{.Dir}}{{end}}"
	out, err := output(b.goTool(arch, "list", "-e", "-f", format, "./..."))
	if err != nil {
		return nil, err
	}
	var tests []testBinary
	for line := range strings.Lines(out + "\n") {
		pkg, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		name, err := filepath.Rel(b.module, dir)
		if err != nil || pkg == "" || lane(name) {
			continue
		}
		file := filepath.Join(b.dir, strings.ReplaceAll(name, "/", "_")+"."+arch+".test")
		tests = append(tests, testBinary{pkg: pkg, name: name, dir: dir, file: file})
	}
	return tests, nil
}

// lane says whether a package is part of the lane: all here is the host's side but the guest's own tests.
func lane(name string) bool {
	return name == "kernels" || strings.HasPrefix(name, "kernels/") && name != "kernels/guest"
}

// goTool runs at the module's root. Without cgo the binaries are static, and run where no C library is.
func (b *build) goTool(arch string, args ...string) *exec.Cmd {
	c := exec.Command("go", args...)
	c.Dir = b.module
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	return c
}

func output(c *exec.Cmd) (string, error) {
	var complaint strings.Builder
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, complaint.String())
	}
	return strings.TrimSpace(string(out)), err
}
