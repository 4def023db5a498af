package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// result is a scenario as it was measured.
type result struct {
	Scenario scenario
	Rows     []row
	Text     string // of a check
	Err      string
}

// row is a contestant.
type row struct {
	Name   string
	Nanos  []int64 // each start; in the gc scenario each stop
	Starts int     // of the gc scenario
	Worst  []int64 // of the gc scenario: the longest stop of each run
	Note   string  // why there is nothing
}

// entrant is a contestant in one scenario: what to ask which servers, all at once.
type entrant struct {
	name     string
	requests []request
	taken    []time.Duration
	err      error
}

type request struct {
	server *server
	fields []string
}

// turn lets the contestant make its starts.
func (e *entrant) turn() {
	if e.err != nil {
		return
	}
	for _, r := range e.requests {
		if e.err = r.server.send(r.fields...); e.err != nil {
			return
		}
	}
	for _, r := range e.requests {
		d, err := r.server.receive()
		if err != nil {
			e.err = err
		}
		e.taken = append(e.taken, d...)
	}
}

// field is where the contestants compete: the servers, and who uses them.
type field struct {
	w        *workshop
	s        scenario
	hosts    []*server // with 0, 1 and 4 GiB
	floors   []*server // one for each starter
	entrants []*entrant
}

var heaps = []int{0, 1, 4} // GiB

func (w *workshop) measure(s scenario) result {
	r := result{Scenario: s}
	f := &field{w: w, s: s}
	defer f.close()
	err := f.open()
	switch {
	case err != nil:
	case s.Check:
		r.Text, err = f.check()
	case s.GC:
		r.Rows, err = f.stops()
	default:
		f.enlist()
		f.compete()
		r.Rows = f.rows()
	}
	if err != nil {
		r.Err = err.Error()
	}
	return r
}

// open starts the servers.
func (f *field) open() error {
	if f.s.Check {
		return nil
	}
	for _, gib := range heaps {
		if gib > 0 && !f.s.Heap {
			continue
		}
		h, err := startServer(f.w.Options.User, f.w.path("bench"), hostArg, strconv.Itoa(gib))
		if err != nil {
			return err
		}
		f.hosts = append(f.hosts, h)
	}
	for i := 0; i < f.starters() && f.w.Notes["C"] == ""; i++ {
		c, err := startServer(f.w.Options.User, f.w.path("floor"))
		if err != nil {
			return err
		}
		f.floors = append(f.floors, c)
	}
	return nil
}

func (f *field) close() {
	for _, s := range append(f.hosts, f.floors...) {
		s.close()
	}
}

func (f *field) starters() int {
	if f.s.Two {
		return 2
	}
	return 1
}

// count is how many starts make a turn.
func (f *field) count() string {
	if f.s.Pause {
		return "1"
	}
	return strconv.Itoa(f.w.Options.Burst)
}

// enlist makes the rows of the table, in its order.
func (f *field) enlist() {
	for i, h := range f.hosts {
		f.addHost("os/exec, not isolated", "os/exec", i, h)
	}
	f.addFloor("C vfork+execve, not isolated", func(int) []string { return []string{"bare", f.w.program(), f.count()} })
	f.addFloor(rowC, func(int) []string { return []string{f.s.Sandbox, f.w.program(), f.count()} })
	for i, h := range f.hosts {
		f.addHost(rowCaisson, f.s.Sandbox, i, h)
	}
	if f.s.Heap {
		return // the other programs do not have this heap
	}
	f.addPeers()
}

// The rows that are compared.
const (
	rowCaisson = "caisson"
	rowIdle    = "starts nothing"
	rowC       = "C by hand"
)

func (f *field) addHost(name, kind string, i int, h *server) {
	if f.s.Heap {
		name += fmt.Sprintf(", %d GiB", heaps[i])
	}
	fields := []string{kind, f.w.program(), f.count(), strconv.Itoa(f.starters())}
	f.entrants = append(f.entrants, &entrant{name: name, requests: []request{{h, fields}}})
}

// addFloor adds what the C programs do, each for one of the starters.
func (f *field) addFloor(name string, fields func(starter int) []string) *entrant {
	e := &entrant{name: name}
	for i, c := range f.floors {
		e.requests = append(e.requests, request{c, fields(i)})
	}
	if len(f.floors) == 0 {
		e.err = fmt.Errorf("no C program: %s", f.w.Notes["C"])
	}
	f.entrants = append(f.entrants, e)
	return e
}

// addPeers adds the other programs, which the C program executes: it is the cheapest of launchers.
func (f *field) addPeers() {
	id := func(starter int) string { return fmt.Sprintf("caisson-bench-%d", starter) }
	for k, p := range f.w.peers(f.s.Sandbox, id(0)) {
		if p.root && f.w.Options.User {
			continue
		}
		err := p.find()
		e := f.addFloor(p.name, func(starter int) []string {
			argv := f.w.peers(f.s.Sandbox, id(starter))[k].argv
			return append([]string{"bare", p.argv[0], f.count()}, argv[1:]...)
		})
		if err != nil {
			e.err = err
		}
	}
}

// compete lets all have their turns. The order changes from round to round, so that nobody always inherits the
// processors as the same other one left them: what a start leaves to be torn down goes on after it.
func (f *field) compete() {
	for round := -2; round < f.w.Options.Rounds; round++ {
		for _, i := range rand.Perm(len(f.entrants)) {
			if f.s.Pause {
				time.Sleep(pause)
			}
			f.entrants[i].turn()
		}
		if round < 0 { // to warm up
			for _, e := range f.entrants {
				e.taken = nil
			}
		}
	}
}

func (f *field) rows() (all []row) {
	for _, e := range f.entrants {
		r := row{Name: e.name, Nanos: nanoseconds(e.taken)}
		if e.err != nil {
			r.Nanos, r.Note = nil, e.err.Error()
		}
		all = append(all, r)
	}
	return all
}

// stopRuns is odd, for a median. The longest of some thousand stops differs several times from run to run, even in a program that starts nothing.
const stopRuns = 5

// stops measures the stops of a host that starts sandboxes, by turns with one that does not: alone, and beside a C
// program that starts the same sandboxes meanwhile.
func (f *field) stops() ([]row, error) {
	h := f.hosts[0]
	contestants := []struct{ name, kind, beside string }{{rowIdle, "nothing", ""}, {"starts nothing, beside A by C", "nothing", "A"},
		{"starts nothing, beside B by C", "nothing", "B"}, {"starts by os/exec", "os/exec", ""}, {"starts A by caisson", "A", ""},
		{"starts B by caisson", "B", ""}}
	rows := make([]row, len(contestants))
	count := strconv.Itoa(f.w.Options.Starts)
	took := int64(time.Second)
	for range stopRuns {
		for i, c := range contestants {
			beside := c.beside != "" && len(f.floors) > 0
			if beside {
				f.floors[0].send(c.beside, f.w.program(), count)
			}
			d, err := h.ask("gc", c.kind, f.w.program(), count, strconv.FormatInt(took, 10))
			if beside && err == nil {
				_, err = f.floors[0].receive()
			}
			if err != nil {
				return nil, err
			}
			n := nanoseconds(d[1:])
			rows[i].Name, rows[i].Nanos, rows[i].Worst = c.name, append(rows[i].Nanos, n...), append(rows[i].Worst, slices.Max(append(n, 0)))
			if c.kind == "B" {
				took = int64(d[0])
			}
			if i != 0 {
				rows[i].Starts += f.w.Options.Starts
			}
		}
	}
	return rows, nil
}
