package caps_test

import (
	"testing"

	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/plan"
)

// BenchmarkStart: what dropping capabilities adds to a start.
func BenchmarkStart(b *testing.B) {
	for name, parts := range map[string][]plan.Primitive{"bare": nil, "none": {caps.Drop(caps.All)}, "docker": {caps.Docker(0, 0)}} {
		b.Run(name, func(b *testing.B) {
			p := plan.Build(parts...)
			if p.Err() != nil {
				b.Fatal(p.Err())
			}
			for b.Loop() {
				if err := startAndWait(p, launch.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		if err := plan.Build(caps.Drop(caps.All)).Err(); err != nil {
			b.Fatal(err)
		}
	}
}
