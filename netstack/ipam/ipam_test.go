package ipam_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/netstack/ipam"
)

// TestMain is a process that takes addresses, too.
func TestMain(m *testing.M) {
	if dir := os.Getenv("IPAM_TEST"); dir != "" {
		for {
			l, err := dual(dir).Take(ipam.Request{Owner: fmt.Sprint(os.Getpid())})
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			fmt.Println(l.Addresses[0].Addr())
		}
	}
	os.Exit(m.Run())
}

func subnet(p string) ipam.Subnet { return ipam.Subnet{Prefix: netip.MustParsePrefix(p)} }

func dual(dir string) ipam.Pool {
	return ipam.Pool{Dir: dir, Subnets: []ipam.Subnet{subnet("10.9.0.0/16"), subnet("fd09::/64")}}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func take(t *testing.T, p ipam.Pool, want ...netip.Addr) *ipam.Lease {
	t.Helper()
	l, err := p.Take(ipam.Request{Owner: "me", Addresses: want})
	require.NoError(t, err)
	return l
}

func TestTake(t *testing.T) {
	p := dual(t.TempDir())
	l := take(t, p)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.9.0.2/16"), netip.MustParsePrefix("fd09::2/64")}, l.Addresses)
	require.Equal(t, []netip.Addr{addr("10.9.0.1"), addr("fd09::1")}, l.Gateways)
	require.NoError(t, l.Release())
	require.NoError(t, l.Release(), "twice")
	require.Equal(t, "10.9.0.3", take(t, p).Addresses[0].Addr().String(), "an address rests as long as possible")
	require.Equal(t, "10.9.7.7", take(t, p, addr("10.9.7.7")).Addresses[0].Addr().String())
	require.Equal(t, "10.9.0.4", take(t, p).Addresses[0].Addr().String(), "one that was asked for does not lead away")
	held, err := p.Leases()
	require.NoError(t, err)
	require.Len(t, held, 6)
	require.Equal(t, "me", held[0].Owner)
	require.NoError(t, p.Release("me"))
	held, err = p.Leases()
	require.NoError(t, err)
	require.Empty(t, held)
}

// TestReleaseIsOfItsOwn: an address that was given to somebody else meanwhile is left alone.
func TestReleaseIsOfItsOwn(t *testing.T) {
	p := dual(t.TempDir())
	l := take(t, p)
	require.NoError(t, p.Release("me"))
	_, err := p.Take(ipam.Request{Owner: "you", Addresses: []netip.Addr{addr("10.9.0.2")}})
	require.NoError(t, err)
	require.NoError(t, l.Release())
	held, err := p.Leases()
	require.NoError(t, err)
	require.Equal(t, "you", held[0].Owner)
}

func TestRefused(t *testing.T) {
	p := dual(t.TempDir())
	take(t, p, addr("10.9.0.9"))
	for _, c := range []struct {
		want  []netip.Addr
		errno syscall.Errno
		text  string
	}{
		{[]netip.Addr{addr("10.9.0.9")}, syscall.EADDRINUSE, `10.9.0.9 is reserved by "me"`},
		{[]netip.Addr{addr("10.9.0.1")}, syscall.EADDRNOTAVAIL, "the gateway's own"},
		{[]netip.Addr{addr("10.9.0.0")}, syscall.EADDRNOTAVAIL, "not one of a host"},
		{[]netip.Addr{addr("10.9.255.255")}, syscall.EADDRNOTAVAIL, "not one of a host"},
		{[]netip.Addr{addr("fd09::")}, syscall.EADDRNOTAVAIL, "not one of a host"},
		{[]netip.Addr{addr("192.0.2.1")}, syscall.EADDRNOTAVAIL, "in no subnet"},
		{[]netip.Addr{addr("::ffff:10.9.0.5")}, syscall.EADDRNOTAVAIL, "in no subnet"},
		{[]netip.Addr{addr("fd09::7%eth0")}, syscall.EADDRNOTAVAIL, "in no subnet"},
		{[]netip.Addr{{}}, syscall.EADDRNOTAVAIL, "in no subnet"},
		{[]netip.Addr{addr("10.9.0.5"), addr("10.9.0.6")}, syscall.EADDRNOTAVAIL, "same subnet as 10.9.0.5"},
	} {
		_, err := p.Take(ipam.Request{Addresses: c.want})
		require.ErrorIs(t, err, c.errno, c.want)
		require.ErrorContains(t, err, c.text)
	}
	held, err := p.Leases()
	require.NoError(t, err)
	require.Len(t, held, 2, "all or nothing")
	for _, r := range []ipam.Request{{Owner: "a\nb"}, {Owner: strings.Repeat("x", 256)}, {Names: []string{"a b"}}, {Names: []string{""}}, {Names: []string{"a#b"}}} {
		_, err := p.Take(r)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	_, err = ipam.Pool{Subnets: p.Subnets}.Take(ipam.Request{})
	require.ErrorIs(t, err, syscall.EINVAL)
}

func TestSubnets(t *testing.T) {
	for text, bad := range map[string]ipam.Subnet{
		"not valid":               {},
		"10.9.0.0/16 is meant":    {Prefix: netip.MustParsePrefix("10.9.0.1/16")},
		"not a range":             subnet("224.0.0.0/8"),
		"not a range for hosts":   subnet("0.0.0.0/0"),
		"10.8.0.1 is outside":     {Prefix: netip.MustParsePrefix("10.9.0.0/16"), Gateway: addr("10.8.0.1")},
		"last address is before":  {Prefix: netip.MustParsePrefix("10.9.0.0/16"), First: addr("10.9.0.9"), Last: addr("10.9.0.8")},
		"IPv4 address in IPv6":    {Prefix: netip.PrefixFrom(addr("::ffff:10.9.0.0"), 112)},
		"fe80:: is outside":       {Prefix: netip.MustParsePrefix("fd09::/64"), First: addr("fe80::")},
		"127.0.0.0/8: not a rang": subnet("127.0.0.0/8"),
	} {
		err := ipam.Pool{Subnets: []ipam.Subnet{bad}}.Check()
		require.ErrorIs(t, err, syscall.EINVAL, text)
		require.ErrorContains(t, err, text)
	}
	err := ipam.Pool{Subnets: []ipam.Subnet{subnet("10.0.0.0/8"), subnet("10.9.0.0/16")}}.Check()
	require.ErrorContains(t, err, "overlaps 10.0.0.0/8")
}

// TestWhole gives out small subnets to the last address, and no further.
func TestWhole(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.9.0.0/29":  "10.9.0.2 10.9.0.3 10.9.0.4 10.9.0.5 10.9.0.6",
		"10.9.0.0/31":  "10.9.0.1",
		"10.9.0.4/30":  "10.9.0.6",
		"fd09::/126":   "fd09::2 fd09::3",
		"fd09::/127":   "fd09::1",
		"10.9.0.77/32": "",
	} {
		p := ipam.Pool{Dir: t.TempDir(), Subnets: []ipam.Subnet{subnet(prefix)}}
		var got []string
		for {
			l, err := p.Take(ipam.Request{})
			if err != nil {
				require.ErrorIs(t, err, syscall.ENOSPC)
				break
			}
			got = append(got, l.Addresses[0].Addr().String())
		}
		require.Equal(t, want, strings.Join(got, " "), prefix)
	}
	p := ipam.Pool{Dir: t.TempDir(), Subnets: []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/16"), First: addr("10.9.3.1"), Last: addr("10.9.3.2"), Gateway: addr("10.9.3.2")}}}
	require.Equal(t, "10.9.3.1", take(t, p).Addresses[0].Addr().String())
	_, err := p.Take(ipam.Request{})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, "10.9.0.1", take(t, p, addr("10.9.0.1")).Addresses[0].Addr().String(), "outside of the bounds, and asked for")
}

// TestNearlyFull finds the one free address behind hundreds of taken ones.
func TestNearlyFull(t *testing.T) {
	p := ipam.Pool{Dir: t.TempDir(), Subnets: []ipam.Subnet{subnet("10.9.0.0/23")}}
	for range 509 {
		take(t, p)
	}
	_, err := p.Take(ipam.Request{})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, os.Remove(filepath.Join(p.Dir, "leases", "10.9.1.7")))
	require.Equal(t, "10.9.1.7", take(t, p).Addresses[0].Addr().String())
}

func TestSweep(t *testing.T) {
	p := dual(t.TempDir())
	for _, o := range []string{"a", "b", "a"} {
		_, err := p.Take(ipam.Request{Owner: o, Names: []string{"host-" + o, "x"}})
		require.NoError(t, err)
	}
	asked := map[string]int{}
	n, err := p.Sweep(func(o string) bool { asked[o]++; return o == "a" })
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.Equal(t, map[string]int{"a": 1, "b": 1}, asked)
	held, err := p.Leases()
	require.NoError(t, err)
	require.Len(t, held, 2)
	require.Equal(t, []string{"host-b", "x"}, held[0].Names)
}

// TestCrash leaves what a crash may leave: none of it is in the way.
func TestCrash(t *testing.T) {
	p := dual(t.TempDir())
	take(t, p)
	require.NoError(t, os.WriteFile(filepath.Join(p.Dir, "fresh"), []byte("half"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(p.Dir, "last-10.9.0.0-16"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(p.Dir, "leases", "not an address"), nil, 0o600))
	require.Equal(t, "10.9.0.3", take(t, p).Addresses[0].Addr().String())
	require.NoError(t, os.RemoveAll(filepath.Join(p.Dir, "leases")))
	take(t, p)
	held, err := p.Leases()
	require.NoError(t, err)
	require.Len(t, held, 2)
}

// TestProcesses: four processes, two of which are killed, and goroutines take addresses at once. None is given twice.
func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	var outs []*strings.Builder
	var cmds []*exec.Cmd
	for range 4 {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), "IPAM_TEST="+dir)
		var b strings.Builder
		c.Stdout = &b
		require.NoError(t, c.Start())
		cmds, outs = append(cmds, c), append(outs, &b)
	}
	var wg sync.WaitGroup
	mine := make([][]string, 4)
	for i := range mine {
		wg.Go(func() {
			for range 50 {
				l, err := dual(dir).Take(ipam.Request{Owner: fmt.Sprint("goroutine", i)})
				if err != nil {
					t.Error(err)
					return
				}
				mine[i] = append(mine[i], l.Addresses[0].Addr().String())
			}
		})
	}
	wg.Wait()
	time.Sleep(50 * time.Millisecond)
	seen := map[string]bool{}
	for i, c := range cmds {
		c.Process.Kill()
		c.Wait()
		lines := strings.Split(outs[i].String(), "\n")
		mine = append(mine, lines[:len(lines)-1])
	}
	for _, all := range mine {
		require.NotEmpty(t, all)
		for _, a := range all {
			require.False(t, seen[a], a)
			seen[a] = true
		}
	}
	held, err := dual(dir).Leases()
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(held), 2*len(seen))
	take(t, dual(dir))
}

// TestTenThousand: the last thousand of ten thousand leases take no longer than the first.
func TestTenThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	p := ipam.Pool{Dir: t.TempDir(), Subnets: []ipam.Subnet{subnet("10.9.0.0/16")}}
	n := 10000 // on a file system in memory, where there is one, as /run is: what a disk is slow at is not measured
	if d, err := os.MkdirTemp("/dev/shm", "ipam"); err == nil {
		defer os.RemoveAll(d)
		p.Dir = d
	}
	if os.Getenv("CAISSON_SLOW") != "" {
		n = 1000
	}
	var took [2]time.Duration // by the first and the last tenth
	for i := range n {
		begin := time.Now()
		take(t, p)
		switch d := time.Since(begin); {
		case i < n/10:
			took[0] += d
		case i >= n-n/10:
			took[1] += d
		}
	}
	room := 100 * time.Millisecond // for what else the machine has to do
	if os.Getenv("CAISSON_SLOW") != "" {
		room = 5 * time.Second
	}
	require.Less(t, took[1], 3*took[0]+room)
}

func BenchmarkTake(b *testing.B) {
	for _, n := range []int{0, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir, err := os.MkdirTemp("/dev/shm", "ipam")
			if err != nil {
				b.Skip(err)
			}
			defer os.RemoveAll(dir)
			p := dual(dir)
			for range n {
				if _, err := p.Take(ipam.Request{Owner: "x"}); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				l, err := p.Take(ipam.Request{Owner: "x"})
				if err == nil {
					err = l.Release()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExamplePool() {
	dir, err := os.MkdirTemp("", "pool")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	pool := ipam.Pool{Dir: dir, Subnets: []ipam.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/16")}, {Prefix: netip.MustParsePrefix("fd09::/64")}}}
	web, err := pool.Take(ipam.Request{Owner: "web"})
	if err != nil {
		panic(err)
	}
	defer web.Release()
	fmt.Println(web.Addresses, web.Gateways)
	_, err = pool.Take(ipam.Request{Owner: "other", Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.2")}})
	fmt.Println(err)
	// Output:
	// [10.9.0.2/16 fd09::2/64] [10.9.0.1 fd09::1]
	// 10.9.0.2 is reserved by "web"
}
