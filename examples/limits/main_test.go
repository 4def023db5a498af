//go:build linux

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestHeld: after some seconds each hog is within its limits.
func TestHeld(t *testing.T) {
	if _, err := exec.LookPath("perl"); err != nil {
		t.Skip("needs perl (perl-base)")
	}
	var out bytes.Buffer
	long := 3 * time.Second
	if os.Getenv("CAISSON_SLOW") != "" { // the hogs are slow, too
		long = 25 * time.Second
	}
	err := run(long, &out)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		t.Skip("needs root, or a delegated control group:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	tables := strings.Split(out.String(), "\x1b[J")
	last := tables[len(tables)-1]
	for _, row := range []string{`memory .* [1-9]\d* +0\n`, `cpu `, `fork bomb .* 0 +[1-9]\d*\n`} {
		if !regexp.MustCompile(`(?m)^` + row).MatchString(last) {
			t.Errorf("%q is not in\n%s", row, last)
		}
	}
}
