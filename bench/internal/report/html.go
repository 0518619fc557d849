package report

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// pageStyle is the page's only style sheet; the page needs nothing from elsewhere.
const pageStyle = `
:root { color-scheme: light dark; --ink: #1d2129; --soft: #667; --bar: #a9b4c4; --ours: #1f7a5c; --line: #ddd; --back: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --soft: #9aa; --bar: #56616f; --ours: #3fb98f; --line: #333; --back: #15181d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .2rem; } p { margin: .2rem 0; color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { text-align: right; padding: .15rem .6rem; border-bottom: 1px solid var(--line); font-weight: normal; } th { color: var(--soft); }
th:first-child, td:first-child { text-align: left; } tr.ours td { font-weight: 600; }
svg { display: block; max-width: 100%; height: auto; margin: .6rem 0; font: 13px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .bar { fill: var(--bar); } svg .ours { fill: var(--ours); } svg .spread { stroke: var(--ink); stroke-width: 1.5; }
`

// WriteHTML writes a page that stands by itself: for each scenario a chart of its headline and the table.
func (run *Run) WriteHTML(w io.Writer) error {
	var b strings.Builder
	esc := html.EscapeString
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n"+
		"<title>Gatehouse load benchmarks</title>\n<style>%s</style>\n<h1>Gatehouse load benchmarks</h1>\n", pageStyle)
	fmt.Fprintf(&b, "<p>%s, %d rounds of %g s each</p>\n", run.Began.Format("2 January 2006 15:04 MST"), run.Rounds, run.Measure)
	for _, line := range append(run.Host, run.Notes...) {
		fmt.Fprintf(&b, "<p>%s</p>\n", esc(line))
	}
	for _, s := range run.Scenarios {
		fmt.Fprintf(&b, "<h2 id=\"%s\">%s</h2>\n<p>%s</p>\n", esc(s.Name), esc(s.Name), esc(s.About))
		s.chart(&b)
		s.table(&b)
		for _, note := range s.footnotes() {
			fmt.Fprintf(&b, "<p>%s</p>\n", esc(note))
		}
	}
	b.WriteString("</html>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// chart draws a bar for each row's median and a line from the least to the most.
func (s *Scenario) chart(b *strings.Builder) {
	const left, width, step, bar = 210.0, 560.0, 26.0, 16.0
	m := metric(s.Headline)
	most := 0.0
	for _, r := range s.Rows {
		most = max(most, r.Figures[m.Key].Max)
	}
	if most == 0 {
		return
	}
	better := "less is better"
	if m.More {
		better = "more is better"
	}
	title := strings.TrimSpace(m.Title + " " + m.Unit)
	fmt.Fprintf(b, "<svg viewBox=\"0 0 %g %g\" width=\"%g\" role=\"img\" aria-label=\"%s of each proxy, %s\">\n", left+width+100, step*float64(len(s.Rows)+1),
		left+width+100, html.EscapeString(title), better)
	fmt.Fprintf(b, "<text x=\"%g\" y=\"14\">%s, %s</text>\n", left, html.EscapeString(title), better)
	for i, r := range s.Rows {
		f, ok := r.Figures[m.Key]
		y := step * float64(i+1)
		fmt.Fprintf(b, "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">%s</text>\n", left-8, y+bar-3, html.EscapeString(r.Label()))
		if !ok {
			continue
		}
		class := "bar"
		if r.Ours {
			class = "ours"
		}
		x := func(v float64) float64 { return max(v, 0) / most * width }
		fmt.Fprintf(b, "<rect class=\"%s\" x=\"%g\" y=\"%g\" width=\"%.1f\" height=\"%g\" rx=\"2\"/>\n", class, left, y, x(f.Median), bar)
		fmt.Fprintf(b, "<line class=\"spread\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%g\" y2=\"%g\"/>\n", left+x(f.Min), left+x(f.Max), y+bar/2, y+bar/2)
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%g\">%s</text>\n", left+x(f.Max)+8, y+bar-3, number(f.Median, m.Digits, true))
	}
	b.WriteString("</svg>\n")
}

func (s *Scenario) table(b *strings.Builder) {
	head, rows := s.cells()
	b.WriteString("<div class=\"scroll\"><table>\n<tr>")
	for _, cell := range head {
		fmt.Fprintf(b, "<th>%s</th>", html.EscapeString(cell))
	}
	b.WriteString("</tr>\n")
	for i, row := range rows {
		if s.Rows[i].Ours {
			b.WriteString("<tr class=\"ours\">")
		} else {
			b.WriteString("<tr>")
		}
		for _, cell := range row {
			fmt.Fprintf(b, "<td>%s</td>", html.EscapeString(cell))
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</table></div>\n")
}
