package caisson_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/caisson-dev/caisson"

// primitives are the packages that wrap one primitive of the kernel each.
var primitives = []string{"namespaces", "cgroups", "overlay", "caps", "seccomp", "lsm", "netstack", "chroot"}

// TestImportDiagram holds the diagram of RATIONALE.md: a primitive imports plan and internal packages, never another
// primitive nor the root; the root imports no primitive; plan imports nothing of the module but internal packages below it.
func TestImportDiagram(t *testing.T) {
	packages := imports(t)
	require.Contains(t, packages, ".")
	require.Contains(t, packages, "plan")
	for dir, list := range packages {
		for _, i := range list {
			require.Truef(t, allowed(dir, i), "%s must not import %s", dir, i)
		}
	}
}

func TestImportDiagramRefuses(t *testing.T) {
	for _, bad := range [][2]string{{"chroot", "namespaces"}, {"seccomp", "."}, {".", "chroot"}, {"plan", "internal/launch"},
		{"internal/launch", "."}, {"internal/sys", "plan"}, {"plan", "chroot"}, {"chroot", "internal/launch"}} {
		require.Falsef(t, allowed(bad[0], bad[1]), "%s may import %s", bad[0], bad[1])
	}
}

// below lists what the lower layers may import of the module; they are the foundation, so the list is short.
var below = map[string][]string{
	"internal/sys":      {},
	"internal/nofile":   {},
	"internal/dumpable": {},
	"internal/pty":      {},
	"internal/initprog": {},
	"plan":              {"internal/sys", "internal/nofile"},
	"plan/plantest":     {"plan"},
	"internal/procfs":   {},
	"internal/mnt":      {"plan", "internal/procfs"},
	"internal/launch":   {"plan", "internal/sys", "internal/dumpable", "internal/initprog"},
	".":                 {"plan", "internal/launch", "internal/sys", "internal/initprog", "internal/pty"},
}

func allowed(dir, imported string) bool {
	if list, ok := below[dir]; ok {
		return slices.Contains(list, imported)
	}
	top, _, _ := strings.Cut(dir, "/")
	if slices.Contains(primitives, top) {
		return imported == "plan" || imported == top && dir != top || strings.HasPrefix(imported, top+"/") ||
			strings.HasPrefix(imported, "internal/") && imported != "internal/launch"
	}
	return true // examples, presets, kernels: above everything
}

// imports reads which packages of the module each package imports, tests left out.
func imports(t *testing.T) map[string][]string {
	found := map[string][]string{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || nested(name)) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := path.Dir(filepath.ToSlash(name))
		if found[dir] == nil {
			found[dir] = []string{}
		}
		for _, i := range f.Imports {
			if rest, ok := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module); ok {
				found[dir] = append(found[dir], path.Join(".", strings.TrimPrefix(rest, "/")))
			}
		}
		return nil
	})
	require.NoError(t, err)
	return found
}

// nested reports whether a directory is a module of its own.
func nested(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}
