package overlay_test

import (
	"strings"
	"testing"

	"github.com/caisson-dev/caisson/overlay"
	"github.com/caisson-dev/caisson/plan"
)

// FuzzStack: whatever names and values there are, nothing of them comes into the text of options, and a plan prints on lines of its own.
func FuzzStack(f *testing.F) {
	f.Add("/a", "/b", "/u", "/w", "on", true)
	f.Add("/a,b", "/b:c\\d", "", "", "off,upperdir=/etc", false)
	f.Add("/\n", "/a/../\n/x", "/u//", "/u/w", "null", false)
	f.Add("", "/", "..", "/w\x00", "", true)
	f.Fuzz(func(t *testing.T, a, b, upper, work, value string, readOnly bool) {
		s := overlay.Stack{Lower: []string{a, b}, Upper: upper, Work: work, UUID: overlay.Setting(value), ReadOnly: readOnly}
		p := plan.Build(overlay.Root(s))
		if p.Err() != nil {
			return
		}
		for _, step := range p.Steps(nil) {
			if strings.ContainsAny(step.String(), "\n\r") {
				t.Errorf("%q", step)
			}
		}
		text := overlay.OldText(s)
		rest := strings.Trim(strings.TrimPrefix(text, "lowerdir=0:1"), "abcdefghijklmnopqrstuvwxyzUW,=")
		if !strings.HasPrefix(text, "lowerdir=0:1") || rest != "" {
			t.Errorf("%q", text)
		}
	})
}
