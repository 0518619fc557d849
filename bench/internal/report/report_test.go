package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"math"
	"strings"
	"testing"
	"time"
)

func TestStatOf(t *testing.T) {
	tests := map[string]struct {
		values []float64
		want   Stat
	}{
		"one":  {[]float64{3}, Stat{3, 3, 3}},
		"odd":  {[]float64{9, 1, 4}, Stat{4, 1, 9}},
		"even": {[]float64{9, 1, 4, 2}, Stat{3, 1, 9}},
	}
	for name, tt := range tests {
		if got := StatOf(tt.values); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// sample has the given CPU cost in microseconds a request.
func sample(micros float64) Sample {
	return Sample{Tool: "wrk", Requests: 1000, Seconds: 2, CPU: micros / 1000, Window: 4, RSS: 8 << 20, P50: 1500, P99: 2500, P999: 3500, Ready: 0.25}
}

func rows(t *testing.T, s Scenario) map[string]Row {
	t.Helper()
	s.Finish()
	m := map[string]Row{}
	for _, r := range s.Rows {
		m[r.Label()] = r
	}
	return m
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-9 {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestFigures(t *testing.T) {
	bad := Sample{Failed: "it broke", Requests: 5, CPU: 99, Seconds: 1, Window: 1}
	r := rows(t, Scenario{Headline: CPUPerRequest, Rows: []Row{{Peer: "a", Samples: []Sample{sample(30), bad, sample(10), sample(20)}}}})["a"]
	for key, want := range map[string]Stat{
		CPUPerRequest: {20, 10, 30}, RequestRate: {500, 500, 500}, P50: {1.5, 1.5, 1.5}, P99: {2.5, 2.5, 2.5}, P999: {3.5, 3.5, 3.5},
		RSS: {8, 8, 8}, Busy: {0.5, 0.25, 0.75}, Ready: {0.25, 0.25, 0.25},
	} {
		got := r.Figures[key]
		near(t, key, got.Median, want.Median)
		near(t, key+" min", got.Min, want.Min)
		near(t, key+" max", got.Max, want.Max)
	}
	for _, key := range []string{BytesPerCPU, PerConnection} {
		if f, ok := r.Figures[key]; ok {
			t.Errorf("%s was not measured, but is %+v", key, f)
		}
	}
}

func TestRatios(t *testing.T) {
	transfer := func(bytes int64) []Sample {
		return []Sample{{Bytes: bytes, CPU: 1, Seconds: 1, Window: 1, Requests: 1}}
	}
	tests := map[string]struct {
		scenario Scenario
		want     map[string]float64
	}{
		"less is better": {
			Scenario{Headline: CPUPerRequest, Rows: []Row{
				{Peer: "ours", Ours: true, Samples: []Sample{sample(15)}}, {Peer: "old", Ours: true, Samples: []Sample{sample(60)}},
				{Peer: "a", Samples: []Sample{sample(20)}}, {Peer: "b", Samples: []Sample{sample(30)}}}},
			map[string]float64{"ours": 0.75, "old": 3, "a": 1, "b": 1.5},
		},
		"more is better": {
			Scenario{Headline: BytesPerCPU, Rows: []Row{
				{Peer: "ours", Ours: true, Samples: transfer(2e9)}, {Peer: "a", Samples: transfer(1e9)}, {Peer: "b", Samples: transfer(4e9)}}},
			map[string]float64{"ours": 2, "a": 4, "b": 1},
		},
		"no peer": {Scenario{Headline: CPUPerRequest, Rows: []Row{{Peer: "ours", Ours: true, Samples: []Sample{sample(15)}}}}, map[string]float64{"ours": 0}},
		"a peer that failed": {
			Scenario{Headline: CPUPerRequest, Rows: []Row{{Peer: "ours", Ours: true, Samples: []Sample{sample(15)}},
				{Peer: "a", Samples: []Sample{{Failed: "no"}}}, {Peer: "b", Samples: []Sample{sample(10)}}}},
			map[string]float64{"ours": 1.5, "a": 0, "b": 1},
		},
		"among the same variant": {
			Scenario{Headline: CPUPerRequest, Rows: []Row{
				{Peer: "ours", Ours: true, Samples: []Sample{sample(10)}}, {Peer: "ours", Ours: true, Variant: "all on", Samples: []Sample{sample(12)}},
				{Peer: "a", Samples: []Sample{sample(8)}}, {Peer: "a", Variant: "all on", Samples: []Sample{sample(24)}}}},
			map[string]float64{"ours": 1.25, "ours, all on": 0.5, "a": 1, "a, all on": 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := rows(t, tt.scenario)
			for label, want := range tt.want {
				near(t, label, got[label].Ratio, want)
			}
		})
	}
	got := rows(t, tests["among the same variant"].scenario)
	near(t, "ours to bare", got["ours, all on"].ToBase, 1.2)
	near(t, "a to bare", got["a, all on"].ToBase, 3)
	near(t, "bare to bare", got["a"].ToBase, 0)
}

func example() *Run {
	s := Scenario{Name: "h1", About: "small <answers>", Headline: CPUPerRequest, Skipped: []string{"caddy: no"}, Rows: []Row{
		{Peer: "gatehouse", Ours: true, Samples: []Sample{sample(15), sample(17)}},
		{Peer: "nginx 1.22.1", Samples: []Sample{sample(20)}},
		{Peer: "haproxy", Samples: []Sample{{Failed: "it ended"}}},
	}}
	s.Rows[1].Samples[0].Errors, s.Rows[1].Samples[0].FirstError = 3, "status 502"
	s.Rows[1].Samples[0].Rate, s.Rows[1].Samples[0].Changes = 5000, 4
	s.Finish()
	return &Run{Began: time.Unix(1e9, 0).UTC(), Host: []string{"a machine"}, Measure: 5, Rounds: 2, Scenarios: []Scenario{s}}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := example().Scenarios[0].WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	var fields [][]string
	for line := range strings.Lines(b.String()) {
		fields = append(fields, strings.Fields(line))
	}
	for i, want := range []string{
		"h1: small <answers>",
		"CPU/req us min-max x best peer req/s min-max p50 ms p99 ms p99.9 ms RSS MiB busy % start s errors rounds load",
		"gatehouse 16.0 15.0-17.0 0.80 500 1.50 2.50 3.50 8 0 0.25 0 2 wrk",
		"nginx 1.22.1 20.0 1.00 500 1.50 2.50 3.50 8 0 0.25 3 1 wrk",
		"haproxy - - - - - - - - - 0 0",
		"nginx 1.22.1: first error: status 502",
		"nginx 1.22.1: 5000 requests/s offered, sent at most 0.00 ms late (99 %); 4 changes; 0 requests sent again on a new connection",
		"haproxy failed: it ended",
		"left out: caddy: no",
	} {
		if i >= len(fields) || strings.Join(fields[i], " ") != want {
			t.Fatalf("line %d is not %q:\n%s", i, want, &b)
		}
	}
}

func TestJSONKeepsEverything(t *testing.T) {
	run := example()
	var b bytes.Buffer
	if err := run.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Run
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	r := back.Scenarios[0].Rows[0]
	if len(r.Samples) != 2 || r.Samples[1] != run.Scenarios[0].Rows[0].Samples[1] || r.Ratio != 0.8 || r.Figures[CPUPerRequest].Max != 17 {
		t.Errorf("%+v", r)
	}
}

func TestPage(t *testing.T) {
	var b bytes.Buffer
	if err := example().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{"small &lt;answers&gt;", "nginx 1.22.1", "status 502", "CPU/req us, less is better", `class="ours"`} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	start, end := strings.Index(page, "<svg"), strings.Index(page, "</svg>")
	if start < 0 || end < start {
		t.Fatal("no chart")
	}
	chart := page[start : end+len("</svg>")]
	if err := xml.Unmarshal([]byte(chart), new(struct{})); err != nil {
		t.Errorf("the chart is not XML: %v\n%s", err, chart)
	}
	if bars := strings.Count(chart, "<rect"); bars != 2 {
		t.Errorf("%d bars for two rows with figures", bars)
	}
}
