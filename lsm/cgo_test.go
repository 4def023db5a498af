//go:build cgo

package lsm_test

const withCgo = true // package net brings it into the test
