package caisson_test

import (
	"io"
	"testing"

	"github.com/caisson-dev/caisson"
)

// BenchmarkTerminal: a start with and without a terminal of the sandbox's own.
func BenchmarkTerminal(b *testing.B) {
	s := caisson.New(isolated()...)
	b.Run("none", func(b *testing.B) {
		for b.Loop() {
			if err := s.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("own", func(b *testing.B) {
		for b.Loop() {
			c := s.Command("/bin/true")
			c.Terminal = &caisson.Terminal{}
			if err := c.Start(); err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, c.Terminal)
			if err := c.Wait(); err != nil {
				b.Fatal(err)
			}
			c.Terminal.Close()
		}
	})
}
