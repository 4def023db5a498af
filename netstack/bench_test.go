package netstack_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/plan"
)

// BenchmarkStart measures the start of /bin/true: with nothing but a network namespace, and with a card on a bridge. What it takes to end the sandbox is not in it.
func BenchmarkStart(b *testing.B) {
	for _, c := range []struct {
		name  string
		parts func(h *world) []plan.Primitive
	}{
		{"None", func(*world) []plan.Primitive { return []plan.Primitive{netstack.None{}} }},
		{"Bridge", func(h *world) []plan.Primitive { return []plan.Primitive{netstack.Bridge{State: h.state}} }},
	} {
		b.Run(c.name, func(b *testing.B) {
			host(b, func(h *world) {
				q := plan.Build(c.parts(h)...)
				for b.Loop() {
					p, err := startTrue(q)
					b.StopTimer()
					require.NoError(b, err)
					require.NoError(b, finish(p))
					time.Sleep(30 * time.Millisecond) // the kernel takes old network namespaces apart in the background, and keeps the lock of the new ones meanwhile
					b.StartTimer()
				}
			})
		})
	}
}
