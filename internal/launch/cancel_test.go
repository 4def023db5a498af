package launch

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/plan"
)

// TestCancelInSetup: the context ends while a call of the child blocks.
func TestCancelInSetup(t *testing.T) {
	for name, opt := range ways {
		for _, twice := range []bool{false, true} {
			for _, how := range []string{"plain", "dies", "served", "action"} {
				t.Run(fmt.Sprintf("%s, two children %t, %s", name, twice, how), func(t *testing.T) {
					if twice {
						needRoot(t)
					}
					unchanged(t)
					g := newGate(t, plan.Names)
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					parts := []plan.Primitive{g.part}
					if twice {
						parts = append(parts, joinOwn("pid"))
					}
					undone := false
					parts = append(parts, part(func(p *plan.Plan) {
						p.Before(plan.Action{Name: "before", Do: func(*plan.Run) error { return nil },
							Undo: func(*plan.Run) error { undone = true; return nil }})
						switch how {
						case "dies":
							p.DieWithParent()
						case "served":
							p.While(plan.Action{Name: "nothing", Do: func(*plan.Run) error { return nil }})
						case "action":
							p.While(plan.Action{Name: "wait", Do: func(r *plan.Run) error {
								cancel()
								<-r.Context.Done()
								return r.Context.Err()
							}})
						}
					}))
					if how != "action" {
						go func() {
							g.reached()
							cancel()
						}()
					}
					within(t, 5*time.Second, func() {
						p, err := Start(ctx, plan.Build(parts...), trueCommand(), opt)
						require.Nil(t, p)
						require.ErrorIs(t, err, context.Canceled)
					})
					require.True(t, undone)
				})
			}
		}
	}
}

// TestCancelAnywhere: at a random moment. Either the command runs or the error is the context's.
func TestCancelAnywhere(t *testing.T) {
	unchanged(t)
	for name, opt := range ways {
		for i := range loops(100) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.Int64N(int64(3*time.Millisecond))))
			parts := []plan.Primitive{does(plan.Names, sleep(200*time.Microsecond))}
			if i%2 == 0 && os.Geteuid() == 0 {
				parts = append(parts, joinOwn("pid"))
			}
			if i%3 == 0 {
				parts = append(parts, served(func(*plan.Run) error { return nil }), dies())
			}
			p, err := Start(ctx, plan.Build(parts...), trueCommand(), opt)
			if err == nil {
				_, err = finish(p)
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, context.DeadlineExceeded, name)
			}
			cancel()
		}
	}
}

// TestEndedContext: nothing is begun.
func TestEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p := plan.Build(part(func(p *plan.Plan) {
		p.Before(plan.Action{Name: "x", Do: func(*plan.Run) error { t.Error("begun"); return nil }})
	}))
	_, err := Start(ctx, p, trueCommand(), Options{})
	require.ErrorIs(t, err, context.Canceled)
}

// TestCandidates: as execvp(3) does with the directories of PATH.
func TestCandidates(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode fs.FileMode) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(text), mode))
		return name
	}
	denied := write("denied", "#!/bin/sh\n", 0o644)
	broken := write("broken", "neither", 0o755)
	loop := filepath.Join(dir, "loop")
	require.NoError(t, os.Symlink(loop, loop))
	missing, notDir := filepath.Join(dir, "missing"), denied+"/x"
	for _, c := range []struct {
		name       string
		candidates []string
		want       error
	}{
		{"first", []string{"/bin/true", missing}, nil},
		{"last", []string{missing, notDir, denied, dir, "/bin/true"}, nil},
		{"none", []string{missing, missing}, syscall.ENOENT},
		{"not a directory", []string{missing, notDir}, syscall.ENOTDIR},
		{"denied wins over missing", []string{denied, missing}, syscall.EACCES},
		{"denied is last", []string{missing, denied}, syscall.EACCES},
		{"directory", []string{dir, missing, notDir}, syscall.EACCES},
		{"no program ends the search", []string{broken, "/bin/true"}, syscall.ENOEXEC},
		{"loop ends the search", []string{loop, "/bin/true"}, syscall.ELOOP},
		{"one", []string{missing}, syscall.ENOENT},
	} {
		for name, opt := range ways {
			t.Run(c.name+", "+name, func(t *testing.T) {
				unchanged(t)
				cmd := trueCommand()
				cmd.Candidates = c.candidates
				p := plan.Build()
				proc, err := Start(context.Background(), p, cmd, opt)
				if c.want != nil {
					require.ErrorIs(t, err, c.want)
					e := err.(*plan.Error)
					require.Equal(t, len(p.Steps(cmd)), e.Step)
					require.Equal(t, e.Steps, e.Step)
					require.Equal(t, "launch", e.Primitive)
					return
				}
				require.NoError(t, err)
				ws, err := finish(proc)
				require.NoError(t, err)
				require.Zero(t, ws)
			})
		}
	}
}
