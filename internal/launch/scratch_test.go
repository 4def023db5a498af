//go:build linux

package launch

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// TestScratch: starts of one plan use the same memory one after the other, and never at once: what each child is told is its own, also where starts fail in between.
func TestScratch(t *testing.T) {
	dir := t.TempDir()
	p := plan.Build(plan.Func(func(p *plan.Plan) error {
		p.Child(plan.Sources, plan.Call("umask", unix.SYS_UMASK, plan.Int(0o22)))
		return nil
	}))
	require.NoError(t, p.Err())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				out := filepath.Join(dir, strings.Repeat("x", 1+(w*25+i)%90)+string(rune('a'+w)))
				text := strings.Repeat(out, 1+i%40) // more than one chunk at times
				cmd := &plan.Command{Candidates: []string{"/bin/sh"}, Args: []string{"sh", "-c", `printf %s "$TEXT" >"$1"`, "sh", out},
					Env: []string{"TEXT=" + text}, Files: make([]*os.File, 3)}
				_, err := Start(context.Background(), p, cmd, Options{Fault: 1 + i%len(p.Steps(cmd))})
				if err == nil {
					t.Error("no fault")
				}
				c, err := Start(context.Background(), p, cmd, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				reap(c.PID)
				c.Release()
				if b, err := os.ReadFile(out); err != nil || string(b) != text {
					t.Errorf("%d/%d: %d bytes, %v", w, i, len(b), err)
				}
				if i%10 == 0 {
					runtime.GC()
				}
			}
		})
	}
	wg.Wait()
}
