package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// WriteJSON writes all figures and every sample.
func (run *Run) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(run)
}

// WriteText writes all tables.
func (run *Run) WriteText(w io.Writer) error {
	for _, line := range append(append([]string{run.Began.Format("2006-01-02 15:04")}, run.Host...), run.Notes...) {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w)
	for i := range run.Scenarios {
		if err := run.Scenarios[i].WriteTable(w); err != nil {
			return err
		}
	}
	return nil
}

// WriteTable writes a scenario as a table for people.
func (s *Scenario) WriteTable(w io.Writer) error {
	head, rows := s.cells()
	width := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", s.Name, s.About)
	for _, row := range append([][]string{head}, rows...) {
		b.WriteString(" ")
		for i, cell := range row {
			gap := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString(" " + cell + gap)
			} else {
				b.WriteString("  " + gap + cell)
			}
		}
		b.WriteByte('\n')
	}
	for _, note := range s.footnotes() {
		b.WriteString("  " + note + "\n")
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

// cells are the table's texts. The headline and the request rate show their spread, least to most.
func (s *Scenario) cells() (head []string, rows [][]string) {
	columns := s.columns()
	variants := false
	for _, r := range s.Rows {
		variants = variants || r.Variant != ""
	}
	head = []string{""}
	for i, m := range columns {
		head = append(head, strings.TrimSpace(m.Title+" "+m.Unit))
		if i == 0 || m.Key == RequestRate {
			head = append(head, "min-max")
		}
		if i == 0 {
			head = append(head, "x best peer")
			if variants {
				head = append(head, "x bare")
			}
		}
	}
	head = append(head, "errors", "rounds", "load")
	for _, r := range s.Rows {
		row := []string{r.Label()}
		for i, m := range columns {
			f, ok := r.Figures[m.Key]
			row = append(row, number(f.Median, m.Digits, ok))
			if i == 0 || m.Key == RequestRate {
				row = append(row, spread(f, m.Digits, ok))
			}
			if i == 0 {
				row = append(row, number(r.Ratio, 2, r.Ratio > 0))
				if variants {
					row = append(row, number(r.ToBase, 2, r.ToBase > 0))
				}
			}
		}
		good, tool := 0, ""
		for _, sample := range r.Samples {
			if sample.Failed == "" {
				good++
				tool = sample.Tool
			}
		}
		n, _ := r.errors()
		rows = append(rows, append(row, strconv.FormatInt(n, 10), strconv.Itoa(good), tool))
	}
	return head, rows
}

// mostOthers is how much of a CPU other processes may take, in percent, before a reader is told.
const mostOthers = 15

// footnotes say what went wrong, and what a row's figures stand on.
func (s *Scenario) footnotes() []string {
	var list []string
	most := 0.0
	for _, r := range s.Rows {
		most = max(most, r.Figures[Others].Max)
	}
	if most > mostOthers {
		list = append(list, fmt.Sprintf("the machine was not quiet: other processes took up to %.0f %% of a CPU; rates and latencies above are not to be trusted", most))
	}
	for _, r := range s.Rows {
		if text := r.failed(); text != "" {
			list = append(list, fmt.Sprintf("%s failed: %s", r.Label(), text))
		}
		if n, first := r.errors(); n > 0 {
			list = append(list, fmt.Sprintf("%s: first error: %s", r.Label(), first))
		}
		var rate, late float64
		var reconnects int64
		changes := 0
		for _, sample := range r.Samples {
			rate, late = sample.Rate, max(late, sample.Late)
			reconnects += sample.Reconnects
			changes += sample.Changes
		}
		if rate > 0 {
			text := fmt.Sprintf("%s: %.0f requests/s offered, sent at most %.2f ms late (99 %%)", r.Label(), rate, late/1000)
			if changes > 0 {
				text += fmt.Sprintf("; %d changes; %d requests sent again on a new connection", changes, reconnects)
			}
			list = append(list, text)
		}
	}
	for _, text := range s.Skipped {
		list = append(list, "left out: "+text)
	}
	return list
}

func number(v float64, digits int, ok bool) string {
	if !ok {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

func spread(f Stat, digits int, ok bool) string {
	if !ok || f.Min == f.Max {
		return ""
	}
	return number(f.Min, digits, true) + "-" + number(f.Max, digits, true)
}
