module github.com/caisson-dev/caisson/bench

go 1.26.0

require (
	github.com/caisson-dev/caisson v0.0.0
	golang.org/x/sys v0.49.0
)

replace github.com/caisson-dev/caisson => ../
