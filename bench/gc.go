package main

import (
	"errors"
	"runtime/metrics"
	"strconv"
	"time"
)

// collect puts the host under pressure of garbage collection while it starts count sandboxes, or nothing for so many
// nanoseconds when the kind is "nothing". It gives the time that all took and then each stop of the world.
func (h *host) collect(request []string) ([]time.Duration, error) {
	count, err1 := strconv.Atoi(request[2])
	rest, err2 := strconv.Atoi(request[3])
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	stop := allocate()
	defer stop()
	time.Sleep(50 * time.Millisecond)
	before, began := stops(), time.Now()
	if start, ok := h.start[request[0]]; ok {
		if _, err := timed(count, func() error { return start(request[1]) }); err != nil {
			return nil, err
		}
	} else {
		time.Sleep(time.Duration(rest))
	}
	took := time.Since(began)
	return append([]time.Duration{took}, since(before, stops())...), nil
}

var garbage []*node

// allocate makes garbage, about half of the time of one processor, until it is stopped.
func allocate() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-end:
				garbage = nil
				return
			default:
			}
			began := time.Now()
			for time.Since(began) < 200*time.Microsecond {
				fill(i)
			}
			time.Sleep(200 * time.Microsecond)
		}
	}()
	return func() { close(end); <-ended }
}

// fill replaces one of some thousand live objects by a new one.
func fill(i int) {
	const live = 4096
	if garbage == nil {
		garbage = make([]*node, live)
	}
	n := make([]node, 32)
	n[0].next[0] = &n[1]
	garbage[i%live] = &n[0]
}

// stops reads the runtime's histogram of all stops for garbage collection, from the decision to stop until the world
// runs again.
func stops() *metrics.Float64Histogram {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(s)
	return s[0].Value.Float64Histogram()
}

// since lists the stops between two readings, each as the upper end of its bucket: 1/8 too long at most.
func since(a, b *metrics.Float64Histogram) (d []time.Duration) {
	for i := range b.Counts {
		for range b.Counts[i] - a.Counts[i] {
			end := min(b.Buckets[i+1], 2*b.Buckets[i]) // the last one ends at infinity
			d = append(d, time.Duration(end*1e9))
		}
	}
	return d
}
