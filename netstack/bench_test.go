package netstack_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack"
	"github.com/caisson-dev/caisson/plan"
)

// BenchmarkStart measures the start of /bin/true with different networks: the median, without what it takes to end the sandbox. Between two starts it waits, because the kernel takes old network
// namespaces apart in the background, and holds the lock of the new ones meanwhile.
func BenchmarkStart(b *testing.B) {
	for _, c := range []struct {
		name  string
		parts func(h *world) []plan.Primitive
	}{
		{"Host", func(*world) []plan.Primitive { return []plan.Primitive{netstack.Host{}} }},
		{"Pool", func(h *world) []plan.Primitive {
			p, err := netstack.NewPool(4, netstack.Bridge{State: h.state, Masquerade: true})
			require.NoError(h.t, err)
			h.t.Cleanup(func() { p.Close() })
			return []plan.Primitive{p}
		}},
		{"None", func(*world) []plan.Primitive { return []plan.Primitive{netstack.None{}} }},
		{"Unchecked", func(h *world) []plan.Primitive {
			return []plan.Primitive{netstack.Bridge{State: h.state, Unchecked: true}}
		}},
		{"Bridge", func(h *world) []plan.Primitive { return []plan.Primitive{netstack.Bridge{State: h.state}} }},
		{"NAT", func(h *world) []plan.Primitive {
			return []plan.Primitive{netstack.Bridge{State: h.state, Masquerade: true, Publish: []netstack.Port{{Port: 8080, To: 80}}}}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			host(b, func(h *world) {
				h.state = memory(b)
				h.start("wait", nil, netstack.Bridge{State: h.state, Masquerade: true})
				q := plan.Build(c.parts(h)...)
				var all []time.Duration
				for b.Loop() {
					begin := time.Now()
					p, err := startTrue(q)
					all = append(all, time.Since(begin))
					require.NoError(b, err)
					require.NoError(b, finish(p))
					time.Sleep(20 * time.Millisecond)
				}
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-median")
				b.ReportMetric(float64(all[0].Microseconds())/1000, "ms-least")
				b.ReportMetric(0, "ns/op")
			})
		})
	}
}

// memory is a directory in memory, as /run is one most often.
func memory(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "netstack")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
