package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func test(name, action string) string {
	return `{"Action":"run","Package":"m/p","Test":"` + name + `"}
{"Action":"output","Package":"m/p","Test":"` + name + `","Output":"    p_test.go:1: why ` + name + `\n"}
{"Action":"` + action + `","Package":"m/p","Test":"` + name + `"}
`
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"host.json": test("TestBoth", "pass") + test("TestOnce", "skip") + test("TestNever", "skip") + test("TestHost", "skip"),
		"vm.json":   test("TestBoth", "pass") + test("TestOnce", "fail") + test("TestNever", "skip"),
		"other.txt": "not a record",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lanes, err := read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if n := report(&out, lanes); n != 2 {
		t.Errorf("%d tests never ran, want 2", n)
	}
	const want = `host: 4 tests, 3 skipped
	m/p TestOnce: p_test.go:1: why TestOnce
	m/p TestNever: p_test.go:1: why TestNever
	m/p TestHost: p_test.go:1: why TestHost
vm: 3 tests, 1 skipped
	m/p TestNever: p_test.go:1: why TestNever
vm: failed once, or in a lane that has failed:
	m/p TestOnce: p_test.go:1: why TestOnce
NEVER RUN: m/p TestHost
	host: p_test.go:1: why TestHost
NEVER RUN: m/p TestNever
	host: p_test.go:1: why TestNever
	vm: p_test.go:1: why TestNever
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestNothingToRead(t *testing.T) {
	if _, err := read(t.TempDir()); err == nil {
		t.Error("no error where there are no records")
	}
}
