package caisson_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson"
)

// TestSoak starts many commands of several kinds, some at once, and looks for what is left of them. CAISSON_SOAK sets how many.
func TestSoak(t *testing.T) {
	n := 1000
	if slow() {
		n = 100
	}
	if text := os.Getenv("CAISSON_SOAK"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	mark := fmt.Sprintf("CAISSON_SOAK_MARK=%d.", os.Getpid())
	kinds := soaks(t, mark)
	for _, kind := range kinds { // what the runtime opens and keeps is there from here on
		require.NoError(t, kind())
	}
	before, namespaces := look(t), namespaceSet(t)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := worker; i < n; i += 4 {
				if err := kinds[i/4%len(kinds)](); err != nil {
					t.Error(i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	before.unchanged(t)
	require.True(t, noZombie(t), "no child")
	require.Empty(t, marked(t, mark))
	if os.Getenv("VMRUN") != "1" {
		return // others on this machine make namespaces, too; none of them has a process of ours
	}
	for ns := range namespaceSet(t) {
		require.Contains(t, namespaces, ns)
	}
}

// soaks are kinds of starts. Each gives an error when it did not end as it should.
func soaks(t *testing.T, mark string) []func() error {
	s := box(t)
	marked := func(c *caisson.Cmd) *caisson.Cmd {
		c.Env = append(os.Environ(), mark)
		return c
	}
	kinds := []func() error{
		func() error { return marked(caisson.New().Command("/bin/true")).Run() },
		func() error { return marked(s.Command("/bin/true")).Run() },
		func() error { return marked(s.With(caisson.DieWithParent{}).Command("/bin/true")).Run() },
		func() error { return wantError(marked(s.Command("/caisson/none")).Run()) },
		func() error {
			c := marked(s.Command("/bin/true"))
			c.SetOptions(caisson.LaunchOptions{Fault: 20})
			return wantError(c.Run())
		},
		func() error {
			out, err := marked(s.Command("sh", "-c", "sleep 3600 & sleep 3600 & echo out")).Output()
			return wantText(string(out), "out\n", err)
		},
		func() error { return killed(marked(s.Command("cat"))) },
		func() error { return canceledSoak(s, marked) },
		func() error { return execSoak(s, marked) },
	}
	init := func() error { return marked(s.With(caisson.Init{}).Command("sh", "-c", "sleep 3600 & :")).Run() }
	if w := sandboxed(world{init: true}, s.With(caisson.Init{})); !w.refused(init()) {
		kinds = append(kinds, init)
	}
	return kinds
}

func wantError(err error) error {
	if err == nil {
		return fmt.Errorf("no error")
	}
	return nil
}

func wantText(got, want string, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

func killed(c *caisson.Cmd) error {
	if _, err := c.StdinPipe(); err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	if err := c.Process.Kill(); err != nil {
		return err
	}
	return wantError(c.Wait())
}

// canceledSoak cancels a start at any of its stages.
func canceledSoak(s caisson.Sandbox, marked func(*caisson.Cmd) *caisson.Cmd) error {
	ctx, cancel := context.WithCancel(context.Background())
	c := marked(s.CommandContext(ctx, "cat"))
	if _, err := c.StdinPipe(); err != nil {
		cancel()
		return err
	}
	go cancel()
	return wantError(c.Run())
}

func execSoak(s caisson.Sandbox, marked func(*caisson.Cmd) *caisson.Cmd) error {
	c := marked(s.Command("cat"))
	in, err := c.StdinPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	out, err := marked(c.Process.Exec("echo", "further")).Output()
	in.Close()
	if e := c.Wait(); err == nil {
		err = e
	}
	return wantText(string(out), "further\n", err)
}
