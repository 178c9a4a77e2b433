// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// result is one row of the table.
type result struct {
	Measure string  `json:"measure"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	// Quartiles over the rounds, where there are rounds.
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
	// What stands beside it, measured in the same run.
	Baselines []baseline `json:"baselines,omitempty"`
	Bar       *bar       `json:"bar,omitempty"`
	Reached   *bool      `json:"reached,omitempty"`
	// Why there is no value.
	Missing string `json:"missing,omitempty"`
}

type baseline struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// bar is what the value must not pass.
type bar struct {
	AtMost bool    `json:"at_most"`
	Value  float64 `json:"value"`
}

func atMost(v float64) *bar  { return &bar{true, v} }
func atLeast(v float64) *bar { return &bar{false, v} }

// of fills in value and quartiles.
func (r result) of(s series) result {
	r.Value, r.Low, r.High = s.median(), s.quantile(0.25), s.quantile(0.75)
	return r
}

// beside adds a baseline in the row's unit.
func (r result) beside(name string, s series) result {
	r.Baselines = append(r.Baselines, baseline{name, s.median(), r.Unit})
	return r
}

// report is a run's header and rows.
type report struct {
	Date   time.Time `json:"date"`
	Kernel string    `json:"kernel"`
	CPU    string    `json:"cpu"`
	CPUs   int       `json:"cpus"`
	Rounds int       `json:"rounds"`
	Slice  string    `json:"slice"`
	Rows   []result  `json:"rows"`
}

func newReport(o options) *report {
	var uts unix.Utsname
	_ = unix.Uname(&uts)
	model, cpus := processor()
	return &report{
		Date:   time.Now().UTC().Truncate(time.Second),
		Kernel: unix.ByteSliceToString(uts.Release[:]),
		CPU:    model,
		CPUs:   cpus,
		Rounds: o.rounds,
		Slice:  o.slice.String(),
	}
}

func processor() (model string, count int) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown", 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			count++
		}
	}
	return model, count
}

func (r *report) add(row result) {
	if row.Bar != nil && row.Missing == "" {
		ok := row.Value >= row.Bar.Value
		if row.Bar.AtMost {
			ok = row.Value <= row.Bar.Value
		}
		row.Reached = &ok
	}
	r.Rows = append(r.Rows, row)
}

func (r *report) print(w io.Writer) error {
	fmt.Fprintf(w, "orb8 bench  %s\nkernel %s  %s × %d\nmedians (quartiles) of %d interleaved rounds of %s\n\n",
		r.Date.Format(time.RFC3339), r.Kernel, r.CPU, r.CPUs, r.Rounds, r.Slice)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEASURE\tVALUE\tQUARTILES\tBASELINES\tBAR\tREACHED")
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.cells(), "\t"))
	}
	return t.Flush()
}

func (r *result) cells() []string {
	value, spread, limit, reached := number(r.Value, r.Unit), "-", "-", "-"
	if r.Missing != "" {
		value = "- (" + r.Missing + ")"
	} else if r.Low != 0 || r.High != 0 {
		spread = number(r.Low, "") + "–" + number(r.High, "")
	}
	if r.Bar != nil {
		sign := "≥ "
		if r.Bar.AtMost {
			sign = "≤ "
		}
		limit = sign + number(r.Bar.Value, r.Unit)
	}
	if r.Reached != nil {
		reached = map[bool]string{true: "yes", false: "NO"}[*r.Reached]
	}
	beside := make([]string, 0, len(r.Baselines))
	for _, b := range r.Baselines {
		beside = append(beside, b.Name+" "+number(b.Value, b.Unit))
	}
	if len(beside) == 0 {
		beside = []string{"-"}
	}
	return []string{r.Measure, value, spread, strings.Join(beside, ", "), limit, reached}
}

// number gives three or more significant digits.
func number(v float64, unit string) string {
	var s string
	switch {
	case v == float64(int64(v)) || v >= 1000 || v <= -1000:
		s = fmt.Sprintf("%.0f", v)
	case v >= 100 || v <= -100:
		s = fmt.Sprintf("%.1f", v)
	case v >= 10 || v <= -10:
		s = fmt.Sprintf("%.1f", v)
	default:
		s = fmt.Sprintf("%.3f", v)
	}
	if unit == "" {
		return s
	}
	return s + " " + unit
}

func (r *report) write(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
