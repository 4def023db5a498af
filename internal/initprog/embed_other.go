//go:build linux && !amd64 && !arm64

package initprog

// program is empty: the program is not built for this architecture.
const program = ""
