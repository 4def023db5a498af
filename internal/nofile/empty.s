// Package nofile has a function without a body, which the compiler accepts only where there is assembly.
