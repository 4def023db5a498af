//go:build linux

package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStory: all of it, with a small model. What is known is neither stored nor sent again.
func TestStory(t *testing.T) {
	for _, p := range []string{"python3", "ldd"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip("needs ", p)
		}
	}
	if os.Geteuid() != 0 && !userOverlay() {
		t.Skip("an ordinary user may not make a user namespace, or tmpfs has no attributes of users before Linux 6.6")
	}
	var out bytes.Buffer
	if err := run(context.Background(), t.TempDir(), 8<<20, &out); err != nil {
		t.Fatal(err, "\n", out.String())
	}
	text := out.String()
	for _, want := range []string{"reads 8 files of the model, 8 MiB; tuned: False", "reads 8 files of the model, 8 MiB; tuned: True",
		"known: nothing is stored", "to store: 8.0 MiB, to transfer: 8.0 MiB", "to store: 1.0 MiB, to transfer: 1.0 MiB"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}

// userOverlay reports whether an ordinary user's sandbox can have a scratch upper.
func userOverlay() bool {
	var u unix.Utsname
	unix.Uname(&u)
	major, minor, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), ".")
	minor, _, _ = strings.Cut(minor, ".")
	newer := len(major) > 1 || major > "6" || major == "6" && (len(minor) > 1 || minor >= "6")
	return newer && exec.Command("unshare", "-Ur", "true").Run() == nil
}
