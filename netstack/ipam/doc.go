//go:build linux

// Package ipam gives out addresses: from pools of IPv4, IPv6 or both, to any number of processes at once, with reservations that are files.
//
// A [Pool] has a directory and one subnet or several. [Pool.Take] reserves one address of each subnet, those asked for or the next free ones:
//
//	pool := ipam.Pool{
//		Dir: "/run/example/pool",
//		Subnets: []ipam.Subnet{
//			{Prefix: netip.MustParsePrefix("10.9.0.0/16")},
//			{Prefix: netip.MustParsePrefix("fd09::/64")},
//		},
//	}
//	lease, err := pool.Take(ipam.Request{Owner: "web"})
//	if err != nil {
//		return err
//	}
//	defer lease.Release()
//
// # What is on disk
//
// Each reserved address is one small file in the directory "leases" of the pool, named by the address, and contains who has it. It is complete under its name or not there: it is
// written elsewhere and renamed. So a crash at any point loses nothing and blocks nothing. All changes are made under the lock of one file (flock(2)), which the kernel gives
// up when a process ends.
//
// A reservation stays until it is released, also when the process that made it has ended: [Pool.Sweep] releases those of owners of whom the caller knows that they are gone.
//
// # Which address is next
//
// The one after that which was given out last, so that an address is used again as late as possible: neighbours may still know it. In a subnet of 64 thousand with ten
// thousand leases this costs the same as in an empty one; where long runs of addresses are taken, the list of leases is read once instead of trying each.
//
// # Privileges and errors
//
// Needed is what the files need. What makes no sense is a [*SubnetError] with EINVAL; a pool with no free address is an [*ExhaustedError] with ENOSPC; an address that another has is a [*TakenError]
// with EADDRINUSE, which names who; one that is in no subnet or not to be given out, an [*AddressError] with EADDRNOTAVAIL. The rest is an error of package os.
package ipam
