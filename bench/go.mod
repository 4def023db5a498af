module github.com/caisson-dev/caisson/bench

go 1.26.0

require (
	github.com/caisson-dev/caisson v0.0.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/moby/profiles/seccomp v0.3.0 // indirect
	github.com/moby/sys/mountinfo v0.7.2 // indirect
	github.com/opencontainers/runtime-spec v1.2.1 // indirect
	golang.org/x/net v0.48.0 // indirect
)

replace github.com/caisson-dev/caisson => ../
