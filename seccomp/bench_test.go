package seccomp

import "testing"

// BenchmarkCompileDocker is the way from Docker's profile to the bytes for the kernel.
func BenchmarkCompileDocker(b *testing.B) {
	for b.Loop() {
		if f := DockerDefault("SYS_CHROOT"); f.Err() != nil {
			b.Fatal(f.Err())
		}
	}
}
