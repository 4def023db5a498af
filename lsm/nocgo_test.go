//go:build !cgo

package lsm_test

const withCgo = false
