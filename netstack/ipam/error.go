//go:build linux

package ipam

import (
	"fmt"
	"net/netip"
	"syscall"
)

// SubnetError says that a subnet, or a set of them, makes no sense. It is an EINVAL for errors.Is.
type SubnetError struct {
	Subnet Subnet
	Reason string
}

// Error names the prefix.
func (e *SubnetError) Error() string {
	return fmt.Sprintf("address pool %v: %s", e.Subnet.Prefix, e.Reason)
}

// Unwrap gives EINVAL.
func (e *SubnetError) Unwrap() error { return syscall.EINVAL }

// ExhaustedError says that a subnet has no free address. It is an ENOSPC for errors.Is.
type ExhaustedError struct{ Subnet Subnet }

// Error names the prefix.
func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("address pool %v has no free address", e.Subnet.Prefix)
}

// Unwrap gives ENOSPC.
func (e *ExhaustedError) Unwrap() error { return syscall.ENOSPC }

// TakenError says that an address is reserved already. It is an EADDRINUSE for errors.Is.
type TakenError struct {
	Addr  netip.Addr
	Owner string // who has it
}

// Error names the address and who has it.
func (e *TakenError) Error() string { return fmt.Sprintf("%v is reserved by %q", e.Addr, e.Owner) }

// Unwrap gives EADDRINUSE.
func (e *TakenError) Unwrap() error { return syscall.EADDRINUSE }

// AddressError says that an address is not one that the pool gives out. It is an EADDRNOTAVAIL for errors.Is.
type AddressError struct {
	Addr   netip.Addr
	Reason string
}

// Error names the address.
func (e *AddressError) Error() string { return fmt.Sprintf("%v: %s", e.Addr, e.Reason) }

// Unwrap gives EADDRNOTAVAIL.
func (e *AddressError) Unwrap() error { return syscall.EADDRNOTAVAIL }
