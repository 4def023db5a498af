//go:build !amd64

package seccomp

func interrupt() error  { return errSkip }
func otherABIs() error  { return errSkip }
func ownABIs() error    { return errSkip }
func dockerABIs() error { return errSkip }
