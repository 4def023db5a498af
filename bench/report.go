package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// summary is a row as it is printed, and one line of the JSON file.
type summary struct {
	Scenario string  `json:"scenario"`
	Name     string  `json:"row"`
	N        int     `json:"n"`
	Min      int64   `json:"min_ns"`
	Median   int64   `json:"median_ns"`
	P99      int64   `json:"p99_ns"`
	Max      int64   `json:"max_ns"`
	Ratio    float64 `json:"caisson_ratio,omitempty"` // median of caisson by the median of the row
	Starts   int     `json:"starts,omitempty"`        // of the gc scenario, in which all times are those of stops
	Worst    int64   `json:"worst_ns,omitempty"`      // of the gc scenario: the median of the longest stops of its runs
	Times    float64 `json:"worst_ratio,omitempty"`   // of the gc scenario: Worst by that of the program that starts nothing
	Note     string  `json:"note,omitempty"`
}

func summarize(s scenario, r row) summary {
	v := summary{Scenario: s.Name, Name: r.Name, N: len(r.Nanos), Starts: r.Starts, Note: r.Note}
	if v.N == 0 {
		return v
	}
	d := slices.Sorted(slices.Values(r.Nanos))
	v.Min, v.Median, v.P99, v.Max = d[0], d[v.N/2], d[v.N*99/100], d[v.N-1]
	if len(r.Worst) > 0 {
		v.Worst = slices.Sorted(slices.Values(r.Worst))[len(r.Worst)/2]
	}
	return v
}

// report prints the tables as they come.
type report struct {
	out    io.Writer
	json   *os.File
	broken []string
}

func newReport(o options, out io.Writer) (*report, error) {
	r := &report{out: out}
	var err error
	if o.JSON != "" {
		r.json, err = os.Create(o.JSON)
	}
	return r, err
}

func (r *report) close() error {
	var err error
	if len(r.broken) > 0 {
		err = fmt.Errorf("without result: %s", strings.Join(r.broken, ", "))
	}
	if r.json != nil {
		err = errors.Join(err, r.json.Close())
	}
	return err
}

func (r *report) add(v result) error {
	fmt.Fprintf(r.out, "\n%s: %s\n", v.Scenario.Name, v.Scenario.title())
	if v.Err != "" {
		r.broken = append(r.broken, v.Scenario.Name)
		fmt.Fprintln(r.out, v.Err)
	}
	fmt.Fprint(r.out, v.Text)
	var all []summary
	for _, w := range v.Rows {
		all = append(all, summarize(v.Scenario, w))
	}
	compare(all)
	r.table(v.Scenario, all)
	return r.lines(all)
}

// compare fills in the ratios to caisson: in a table with several, the first one, the one with the small heap.
func compare(all []summary) {
	if len(all) > 0 && all[0].Name == rowIdle && all[0].Worst > 0 {
		for k := range all {
			all[k].Times = float64(all[k].Worst) / float64(all[0].Worst)
		}
	}
	i := slices.IndexFunc(all, func(s summary) bool { return strings.HasPrefix(s.Name, rowCaisson) })
	if i < 0 {
		return
	}
	for k := range all {
		if all[k].Median > 0 {
			all[k].Ratio = float64(all[i].Median) / float64(all[k].Median)
		}
	}
}

func (r *report) table(s scenario, all []summary) {
	if len(all) == 0 {
		return
	}
	t := tabwriter.NewWriter(r.out, 0, 8, 2, ' ', tabwriter.AlignRight)
	if s.GC {
		fmt.Fprintln(t, "\tstarts\tstops\tmedian\tp99\tlongest\tlongest of a run\tthis / nothing\t")
	} else {
		fmt.Fprintln(t, "\tstarts\tmin\tmedian\tp99\tcaisson / this\t")
	}
	for _, v := range all {
		switch {
		case v.Note != "":
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\t  %s\n", v.Name, v.Note)
		case s.GC:
			fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%.2f\t\n", v.Name, v.Starts, v.N, ms(v.Median), ms(v.P99), ms(v.Max), ms(v.Worst), v.Times)
		default:
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%.3f\t\n", v.Name, v.N, ms(v.Min), ms(v.Median), ms(v.P99), v.Ratio)
		}
	}
	t.Flush()
	if s.GC {
		fmt.Fprintf(r.out, "the longest of a run is the median of %d runs\n", stopRuns)
	}
	for _, v := range all {
		if s.Heap && strings.HasPrefix(v.Name, rowCaisson) && v.Ratio > 0 && v.Ratio != 1 {
			fmt.Fprintf(r.out, "with live heap: %s / %s, 0 GiB = %.3f\n", v.Name, rowCaisson, 1/v.Ratio)
		}
	}
}

func ms(ns int64) string { return fmt.Sprintf("%.3f ms", float64(ns)/float64(time.Millisecond)) }

func (r *report) lines(all []summary) error {
	if r.json == nil {
		return nil
	}
	e := json.NewEncoder(r.json)
	for _, v := range all {
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	return nil
}
