//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// many sets up so many sandboxes on one bridge, all at once there; and then as many by hand.
func (b *bench) many(n int) error {
	if err := crowd("caisson", n, b.pause, func(int) (func(), error) {
		c, err := started(b.bridge())
		if err != nil {
			return nil, err
		}
		return func() { end(c) }, nil
	}); err != nil {
		return err
	}
	if _, err := exec.LookPath("ip"); err != nil {
		fmt.Println("by hand is left out:", err)
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil { // a host without the sandboxes that are being taken apart
		return fmt.Errorf("unshare: %w", err)
	}
	if _, err := output(exec.Command("sh", "-ec", `ip link add br0 address 02:00:00:00:00:01 type bridge
ip addr add 10.77.0.1/16 dev br0
ip addr add fd77:ca15:50::1/64 dev br0 nodad
ip link set br0 up`)); err != nil {
		return err
	}
	made := 0
	return crowd("by hand, with ip", n, b.pause, func(i int) (func(), error) {
		made++ // the kernel removes a device somewhat after its network
		return handMade(i, fmt.Sprint("v", made))
	})
}

// handMade is what Bridge makes, without rules, by two processes of ip(8): the kernel's work is the same, and the rest does not grow.
func handMade(i int, name string) (func(), error) {
	s, err := newSpaceWithout()
	if err != nil {
		return nil, err
	}
	outer := exec.Command("ip", "-batch", "-")
	outer.Stdin = strings.NewReader(strings.NewReplacer("NAME", name, "PID", s.pid()).Replace(`link add NAME type veth peer name eth0 netns PID
link set NAME addrgenmode none master br0
link set NAME up
`))
	inner := s.command("ip", "-batch", "-")
	inner.Stdin = strings.NewReader(fmt.Sprintf(`link set lo up
link set eth0 addrgenmode none up
addr add 10.77.%d.%d/16 dev eth0
addr add fd77:ca15:50::%x/64 dev eth0 nodad
addr add fe80::%x/64 dev eth0 nodad
route add default via 10.77.0.1
route add default via fd77:ca15:50::1
`, (i+2)>>8&255, (i+2)&255, i+2, i+2))
	for _, c := range []*exec.Cmd{outer, inner} {
		if _, err := output(c); err != nil {
			s.end()
			return nil, err
		}
	}
	return s.end, nil
}

// crowd makes n of something, and compares the first of them with the last: as they come, one after the other at once, and in peace, when there are two or n of them and nothing else is going on.
func crowd(what string, n int, pause time.Duration, set func(i int) (func(), error)) error {
	var ends []func()
	defer func() {
		for _, end := range ends {
			end()
		}
	}()
	times := make([]time.Duration, 0, n)
	next := func() error {
		begin := time.Now()
		end, err := set(len(ends))
		if err != nil {
			return fmt.Errorf("%s %d: %w", what, len(ends)+1, err)
		}
		times, ends = append(times, time.Since(begin)), append(ends, end)
		return nil
	}
	peace := func() (all []time.Duration, err error) {
		time.Sleep(3 * time.Second)
		for range 30 {
			time.Sleep(5 * pause) // until the one before has been taken apart
			if err := next(); err != nil {
				return nil, err
			}
			k := len(ends) - 1
			all = append(all, times[k])
			ends[k]()
			times, ends = times[:k], ends[:k]
		}
		return all, nil
	}
	if err := next(); err != nil { // it makes the bridge, too
		return err
	}
	lonely, err := peace()
	if err != nil {
		return err
	}
	for range n - 2 {
		if err := next(); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	crowded, err := peace()
	if err != nil {
		return err
	}
	tenth := max(n/10, 1)
	compareTimes(what+", one after the other", n, times[1:1+tenth], times[len(times)-tenth:])
	compareTimes(what+", in peace", n, lonely, crowded)
	return nil
}

func compareTimes(what string, n int, first, last []time.Duration) {
	fmt.Printf("%-36s first %6.2f ms, the last of %d %6.2f ms: %.2f ms more, %.2f times as long; least %.2f and %.2f ms\n", what,
		ms(median(first)), n, ms(median(last)), ms(median(last)-median(first)), float64(median(last))/float64(median(first)), ms(slices.Min(first)), ms(slices.Min(last)))
}
