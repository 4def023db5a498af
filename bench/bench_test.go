package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestScenarios(t *testing.T) {
	all, err := scenarios(options{})
	if err != nil || len(all) != 11 {
		t.Fatalf("%d standard scenarios, %v", len(all), err)
	}
	s, err := parseScenario("B+mounts+pause")
	if want := (scenario{Name: "B+mounts+pause", Sandbox: "B", Mounts: true, Pause: true}); err != nil || s != want {
		t.Errorf("%+v, %v", s, err)
	}
	if got := s.title(); got != "sandbox B, 40ms before each start, 500 further mounts on the host" {
		t.Error(got)
	}
	for _, bad := range []string{"", "C", "A+", "A+heat", "gc+pause", "pause"} {
		if _, err := scenarios(options{Scenarios: "A," + bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestScenariosOfUser(t *testing.T) {
	all, err := scenarios(options{User: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Sandbox == "A" || s.Mounts {
			t.Errorf("%s needs root", s.Name)
		}
	}
	if _, err := scenarios(options{User: true, Scenarios: "A"}); err == nil {
		t.Error("sandbox A as an ordinary user is no error")
	}
}

func TestByMounts(t *testing.T) {
	a, m := scenario{Name: "A"}, scenario{Name: "A+mounts", Mounts: true}
	got := byMounts([]scenario{m, a, m})
	if len(got) != 2 || !slices.Equal(got[0], []scenario{a}) || !slices.Equal(got[1], []scenario{m, m}) {
		t.Errorf("%v", got)
	}
}

func TestSummarize(t *testing.T) {
	r := row{Name: rowC}
	for i := 100; i > 0; i-- {
		r.Nanos = append(r.Nanos, int64(i))
	}
	s := summarize(scenario{Name: "A"}, r)
	if s.N != 100 || s.Min != 1 || s.Median != 51 || s.P99 != 100 || s.Max != 100 {
		t.Errorf("%+v", s)
	}
	if r.Nanos[0] != 100 {
		t.Error("the samples were reordered")
	}
}

func TestCompare(t *testing.T) {
	all := []summary{{Name: rowC, Median: 100}, {Name: rowCaisson, Median: 110}, {Name: "runc"}}
	compare(all)
	if all[0].Ratio != 1.1 || all[1].Ratio != 1 || all[2].Ratio != 0 {
		t.Errorf("%+v", all)
	}
}

func TestReport(t *testing.T) {
	file := t.TempDir() + "/lines"
	var out bytes.Buffer
	r, err := newReport(options{JSON: file}, &out)
	if err != nil {
		t.Fatal(err)
	}
	v := result{Scenario: scenario{Name: "A", Sandbox: "A"}, Rows: []row{
		{Name: rowC, Nanos: []int64{1e6}}, {Name: rowCaisson, Nanos: []int64{2e6}}, {Name: "runc", Note: "not installed"}}}
	if err := errors.Join(r.add(v), r.close()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sandbox A, back to back", "2.000", "not installed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	text, _ := os.ReadFile(file)
	var last summary
	for line := range strings.Lines(string(text)) {
		if err := json.Unmarshal([]byte(line), &last); err != nil {
			t.Fatal(err)
		}
	}
	if last.Name != "runc" || last.Note == "" {
		t.Errorf("%+v", last)
	}
}

// A scenario without a result must not look like a success.
func TestReportOfFailure(t *testing.T) {
	r, _ := newReport(options{}, &bytes.Buffer{})
	if err := r.add(result{Scenario: scenario{Name: "B"}, Err: "no"}); err != nil {
		t.Fatal(err)
	}
	if err := r.close(); err == nil || !strings.Contains(err.Error(), "B") {
		t.Error(err)
	}
}

func TestServerAnswers(t *testing.T) {
	s, err := startServer(false, "/bin/sh", "-c", `echo ok; while read line; do case $line in
		two) echo ok 1 2;; word) echo ok x;; end) exit;; *) echo "no such thing";; esac; done`)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if d, err := s.ask("two"); err != nil || !slices.Equal(d, []time.Duration{1, 2}) {
		t.Error(d, err)
	}
	if _, err := s.ask("word"); err == nil {
		t.Error("a word is taken for a number")
	}
	if _, err := s.ask("?"); err == nil || err.Error() != "no such thing" {
		t.Error(err)
	}
	if _, err := s.ask("end"); err == nil {
		t.Error("the end of the server is no error")
	}
}

func TestTimed(t *testing.T) {
	calls := 0
	d, err := timed(3, func() error { calls++; time.Sleep(time.Millisecond); return nil })
	if err != nil || calls != 3 || len(d) != 3 || slices.Min(d) < time.Millisecond {
		t.Error(calls, d, err)
	}
	stop := errors.New("stop")
	if _, err := timed(3, func() error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestAtOnce(t *testing.T) {
	meet := make(chan bool)
	d, err := atOnce(2, func() ([]time.Duration, error) {
		select {
		case meet <- true:
		case <-meet:
		}
		return []time.Duration{1}, nil
	})
	if err != nil || len(d) != 2 {
		t.Error(d, err)
	}
}

func TestLiveHeap(t *testing.T) {
	h := liveHeap(1)
	if len(h) != 1024 {
		t.Fatalf("%d chunks", len(h))
	}
	for _, p := range h[1].next {
		if p == nil {
			t.Fatal("a pointer is nil")
		}
	}
}

func TestSince(t *testing.T) {
	h := func(counts ...uint64) *metrics.Float64Histogram {
		return &metrics.Float64Histogram{Counts: counts, Buckets: []float64{0, 1e-6, 2e-6, 4e-6}}
	}
	got := since(h(1, 0, 5), h(1, 2, 6))
	if !slices.Equal(got, []time.Duration{2000, 2000, 4000}) {
		t.Error(got)
	}
}

func TestParseTrace(t *testing.T) {
	const text = `10 read(0, "A\t/bin/true\t1\n", 4096) = 14
10 clone3({flags=CLONE_VM}, 88) = 11
11 execve("/bin/true", ["/bin/true"], 0x1) = 0
10 write(1, "ok 1\n", 5) = 5
10 read(0,  <unfinished ...>
13 nanosleep({tv_sec=0}, NULL) = 0
10 <... read resumed>"A\t/bin/true\t1\n", 4096) = 14
10 openat(AT_FDCWD, "/dev/null", O_RDONLY) = 5
10 clone3({flags=CLONE_VM} <unfinished ...>
12 mount(NULL, "/", NULL, MS_PRIVATE, NULL <unfinished ...>
12 <... mount resumed>) = 0
12 execve("/bin/true", ["/bin/true"], 0x1) = 0
10 <... clone3 resumed>, 88) = 12
12 exit_group(0) = ?
`
	got, err := parseTrace(text, "/bin/true")
	if err != nil || !slices.Equal(got.child, []string{"mount", "execve"}) {
		t.Errorf("%v, %v", got.child, err)
	}
	if s := counts(got.parent); s != "clone3 1, openat 1" {
		t.Error(s)
	}
	if _, err := parseTrace("", "/bin/true"); err == nil {
		t.Error("an empty trace is no error")
	}
}

func TestStock(t *testing.T) {
	takeOwn := func() stock {
		s := takeStock()
		s.names = nil // others on this host make namespaces too
		return s
	}
	before := takeOwn()
	if left := before.compare(takeOwn()); len(left) > 0 {
		t.Error(left)
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if left := before.compare(takeOwn()); len(left) != 1 || !strings.Contains(left[0], "descriptors") {
		t.Error(left)
	}
}

// A namespace that stays is reported by name.
func TestStockNamesNamespaces(t *testing.T) {
	left := stock{count: map[string]int{"namespaces": 0}}.compare(stock{names: map[string]bool{"net:[1]": true}})
	if len(left) != 1 || left[0] != "new namespace net:[1]" {
		t.Error(left)
	}
}

// What is not an empty directory may be the host's tree, bound: it must survive.
func TestRemoveSparesRootfs(t *testing.T) {
	w := &workshop{Dir: t.TempDir()}
	if err := os.MkdirAll(w.path("rootfs/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.remove()
	if _, err := os.Stat(w.path("rootfs/etc")); err != nil {
		t.Error(err)
	}
	os.Remove(w.path("rootfs/etc"))
	w.remove()
	if _, err := os.Stat(w.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestPeers(t *testing.T) {
	w := &workshop{Dir: "/x"}
	for _, p := range w.peers("B", "id") {
		if last := p.argv[len(p.argv)-1]; last != "/bin/true" && last != "id" {
			t.Errorf("%s ends with %q", p.name, last)
		}
	}
	if err := (&peer{name: "none", argv: []string{"no-such-program"}}).find(); err == nil {
		t.Error("a missing program is found")
	}
}
