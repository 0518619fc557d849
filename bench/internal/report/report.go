// Package report turns the measurements of a benchmark into figures, and these into a table, JSON and a page with charts. In: samples, one
// for each scenario, peer and round. Out: text. It must not know how anything was measured.
package report

import (
	"math"
	"slices"
	"time"
)

// Run is all that one run of the suite measured.
type Run struct {
	Began time.Time `json:"began"`
	// Host says what machine it was: CPU, kernel, which CPU the proxy and which the load had.
	Host []string `json:"host"`
	// Measure is how long each measurement lasted, in seconds.
	Measure   float64    `json:"measure_seconds"`
	Rounds    int        `json:"rounds"`
	Notes     []string   `json:"notes,omitempty"`
	Scenarios []Scenario `json:"scenarios"`
}

// Scenario is what one scenario gave.
type Scenario struct {
	Name  string `json:"name"`
	About string `json:"about"`
	// Headline is the key of the metric that the scenario is about.
	Headline string `json:"headline"`
	Rows     []Row  `json:"rows"`
	// Skipped says which peers were left out, and why.
	Skipped []string `json:"skipped,omitempty"`
}

// Row is one peer in one scenario.
type Row struct {
	Peer    string `json:"peer"`
	Version string `json:"version,omitempty"`
	// Ours is set for the proxy that the others are compared with.
	Ours bool `json:"ours,omitempty"`
	// Variant tells several rows of one peer apart; "" is the row that the others are compared with.
	Variant string   `json:"variant,omitempty"`
	Samples []Sample `json:"samples"`
	// Figures are the metrics over all rounds, by key.
	Figures map[string]Stat `json:"figures"`
	// Ratio is the headline's cost in relation to that of the best peer of the same variant: 1 is as good, less is better. 0 is unknown.
	Ratio float64 `json:"ratio_to_best_peer,omitempty"`
	// ToBase is the headline's cost in relation to the same peer's row without a variant. 0 is unknown.
	ToBase float64 `json:"ratio_to_base,omitempty"`
}

// Label names the row.
func (r Row) Label() string {
	if r.Variant == "" {
		return r.Peer
	}
	return r.Peer + ", " + r.Variant
}

// Sample is one measurement.
type Sample struct {
	Round      int     `json:"round"`
	Tool       string  `json:"tool,omitempty"`
	Seconds    float64 `json:"seconds"`
	Requests   int64   `json:"requests"`
	Errors     int64   `json:"errors"`
	Reconnects int64   `json:"reconnects,omitempty"`
	Bytes      int64   `json:"bytes"`
	// CPU is the proxy's CPU time in the measured part, in seconds; Window is how long that was.
	CPU    float64 `json:"cpu_seconds"`
	Window float64 `json:"window_seconds"`
	// Others is CPU time that processes took meanwhile which are no part of the benchmark, in seconds.
	Others float64 `json:"others_cpu_seconds"`
	// RSS is the proxy's memory at the end, in bytes.
	RSS int64 `json:"rss_bytes"`
	// P50, P99, P999 and Late are microseconds.
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	P999 float64 `json:"p999_us"`
	Late float64 `json:"late_us,omitempty"`
	// Rate is what an open load offered, in requests per second.
	Rate          float64 `json:"rate,omitempty"`
	PerConnection float64 `json:"bytes_per_connection,omitempty"`
	Changes       int     `json:"changes,omitempty"`
	// Applied is how long a change took until it was served, in microseconds.
	Applied float64 `json:"applied_us,omitempty"`
	// Ready is how long the proxy took to start, in seconds.
	Ready      float64 `json:"ready_seconds"`
	FirstError string  `json:"first_error,omitempty"`
	// Failed says why there is no measurement.
	Failed string `json:"failed,omitempty"`
}

// Stat is a metric over the rounds.
type Stat struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// StatOf returns the statistics of values, of which there is at least one. Of an even number the median is the mean of the middle two.
func StatOf(values []float64) Stat {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return Stat{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1]}
}

// Metric is something that samples have.
type Metric struct {
	Key, Title, Unit string
	// More says that more is better.
	More bool
	// Digits is how many follow the point.
	Digits int
	of     func(Sample) float64
}

// Metrics lists what is computed of each sample. A value that is not a number, or zero where nothing was measured, is left out.
func Metrics() []Metric {
	return []Metric{
		{Key: CPUPerRequest, Title: "CPU/req", Unit: "us", Digits: 1, of: func(s Sample) float64 { return s.CPU * 1e6 / float64(s.Requests) }},
		{Key: BytesPerCPU, Title: "bodies", Unit: "MB/CPU s", More: true, Digits: 0, of: func(s Sample) float64 { return float64(s.Bytes) / 1e6 / s.CPU }},
		{Key: PerConnection, Title: "memory/conn", Unit: "KiB", Digits: 1, of: func(s Sample) float64 { return s.PerConnection / 1024 }},
		{Key: RequestRate, Title: "req/s", Unit: "", More: true, Digits: 0, of: func(s Sample) float64 { return float64(s.Requests) / s.Seconds }},
		{Key: Throughput, Title: "", Unit: "MB/s", More: true, Digits: 0, of: func(s Sample) float64 { return float64(s.Bytes) / 1e6 / s.Seconds }},
		{Key: P50, Title: "p50", Unit: "ms", Digits: 2, of: func(s Sample) float64 { return s.P50 / 1000 }},
		{Key: P99, Title: "p99", Unit: "ms", Digits: 2, of: func(s Sample) float64 { return s.P99 / 1000 }},
		{Key: P999, Title: "p99.9", Unit: "ms", Digits: 2, of: func(s Sample) float64 { return s.P999 / 1000 }},
		{Key: Applied, Title: "change", Unit: "ms", Digits: 0, of: func(s Sample) float64 { return s.Applied / 1000 }},
		{Key: RSS, Title: "RSS", Unit: "MiB", Digits: 0, of: func(s Sample) float64 { return float64(s.RSS) / (1 << 20) }},
		{Key: Busy, Title: "busy", Unit: "%", Digits: 0, of: func(s Sample) float64 { return 100 * s.CPU / s.Window }},
		{Key: Others, Title: "others", Unit: "%", Digits: 0, of: func(s Sample) float64 { return 100 * s.Others / s.Window }},
		{Key: Ready, Title: "start", Unit: "s", Digits: 2, of: func(s Sample) float64 { return s.Ready }},
	}
}

// The keys of the metrics.
const (
	CPUPerRequest = "cpu_us_per_request"
	BytesPerCPU   = "mb_per_cpu_second"
	PerConnection = "kib_per_connection"
	RequestRate   = "requests_per_second"
	Throughput    = "mb_per_second"
	P50           = "p50_ms"
	P99           = "p99_ms"
	P999          = "p999_ms"
	Applied       = "applied_ms"
	RSS           = "rss_mib"
	Busy          = "busy_percent"
	Others        = "others_percent"
	Ready         = "ready_seconds"
)

func metric(key string) Metric {
	for _, m := range Metrics() {
		if m.Key == key {
			return m
		}
	}
	return Metric{Key: key, Title: key, of: func(Sample) float64 { return math.NaN() }}
}

// Finish computes the figures and ratios of a scenario from its samples.
func (s *Scenario) Finish() {
	for i := range s.Rows {
		r := &s.Rows[i]
		r.Figures = map[string]Stat{}
		for _, m := range Metrics() {
			var values []float64
			for _, sample := range r.Samples {
				v := m.of(sample)
				if sample.Failed == "" && v != 0 && !math.IsNaN(v) && !math.IsInf(v, 0) {
					values = append(values, v)
				}
			}
			if len(values) > 0 {
				r.Figures[m.Key] = StatOf(values)
			}
		}
	}
	for i := range s.Rows {
		r := &s.Rows[i]
		r.Ratio = s.ratio(*r, func(o Row) bool { return !o.Ours && o.Variant == r.Variant })
		if r.Variant != "" {
			r.ToBase = s.ratio(*r, func(o Row) bool { return o.Peer == r.Peer && o.Variant == "" })
		}
	}
}

// ratio compares a row's headline with the best of the rows that with picks. Where more is better it compares the inverse, so that less
// than 1 is always better.
func (s *Scenario) ratio(r Row, with func(Row) bool) float64 {
	m := metric(s.Headline)
	cost := func(r Row) float64 {
		f, ok := r.Figures[m.Key]
		switch {
		case !ok:
			return math.Inf(1)
		case m.More:
			return 1 / f.Median
		}
		return f.Median
	}
	best := math.Inf(1)
	for _, o := range s.Rows {
		if with(o) {
			best = min(best, cost(o))
		}
	}
	if mine := cost(r); !math.IsInf(mine, 0) && !math.IsInf(best, 0) && best > 0 {
		return mine / best
	}
	return 0
}

// errors counts failed requests over all rounds, and names the first.
func (r Row) errors() (n int64, first string) {
	for _, s := range r.Samples {
		n += s.Errors
		if first == "" {
			first = s.FirstError
		}
	}
	return n, first
}

// failed says why rounds are missing.
func (r Row) failed() string {
	for _, s := range r.Samples {
		if s.Failed != "" {
			return s.Failed
		}
	}
	return ""
}

// columns are the metrics that a scenario shows: its headline first, then those that any row has, less what says the same again.
func (s *Scenario) columns() []Metric {
	list := []Metric{metric(s.Headline)}
	hidden := map[string]bool{Throughput: s.Headline != BytesPerCPU, BytesPerCPU: true, PerConnection: true}
	if s.Headline == PerConnection {
		for _, key := range []string{CPUPerRequest, RequestRate, Busy, P50, P99, P999} {
			hidden[key] = true
		}
	}
	if s.Headline == BytesPerCPU {
		for _, key := range []string{CPUPerRequest, RequestRate, P50, P99, P999} {
			hidden[key] = true
		}
	}
	for _, m := range Metrics() {
		has := slices.ContainsFunc(s.Rows, func(r Row) bool { _, ok := r.Figures[m.Key]; return ok })
		if has && m.Key != s.Headline && !hidden[m.Key] {
			list = append(list, m)
		}
	}
	return list
}
