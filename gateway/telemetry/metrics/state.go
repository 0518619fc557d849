package metrics

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// maxKinds is far above the kinds of fault that exist; it only keeps a mistake from growing without bound.
const maxKinds = 64

// faults counts exchanges that failed, by kind.
type faults struct {
	mu     sync.RWMutex
	byKind map[exchange.Kind]*atomic.Uint64 // guarded by mu
	total  *prometheus.Desc
}

func newFaults() *faults {
	return &faults{
		byKind: map[exchange.Kind]*atomic.Uint64{},
		total:  describe("faults_total", "Exchanges that failed, by the kind of fault.", "kind"),
	}
}

// Fault counts an exchange that failed.
func (s *Set) Fault(kind exchange.Kind) {
	f := s.faults
	f.mu.RLock()
	n := f.byKind[kind]
	f.mu.RUnlock()
	if n == nil {
		n = f.add(kind)
	}
	n.Add(1)
}

func (f *faults) add(kind exchange.Kind) *atomic.Uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.byKind) >= maxKinds && f.byKind[kind] == nil {
		kind = Other
	}
	n := f.byKind[kind]
	if n == nil {
		n = new(atomic.Uint64)
		f.byKind[kind] = n
	}
	return n
}

// Describe implements prometheus.Collector.
func (f *faults) Describe(ch chan<- *prometheus.Desc) { ch <- f.total }

// Collect implements prometheus.Collector.
func (f *faults) Collect(ch chan<- prometheus.Metric) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for kind, n := range f.byKind {
		ch <- counter(f.total, n.Load(), clean(string(kind)))
	}
}

// configState is what the running configuration is and how its changes went.
type configState struct {
	mu        sync.Mutex
	version   string         // guarded by mu, as all below
	applied   time.Time      // zero until the first success
	took      time.Duration  // of the last success
	successes uint64         //
	failures  uint64         //
	problems  map[string]int // by reason; replaced, never written

	info, at, age, duration, applies, problem *prometheus.Desc
}

func newConfigState() *configState {
	return &configState{
		info:     describe("config_info", "Always 1; the label is the version of the running configuration.", "version"),
		at:       describe("config_apply_timestamp_seconds", "When the running configuration took over, Unix time."),
		age:      describe("config_age_seconds", "How long the running configuration has been serving."),
		duration: describe("config_apply_duration_seconds", "How long it took to compile and swap in the running configuration."),
		applies:  describe("config_applies_total", "Configurations that took over (success) or were refused (failure).", "result"),
		problem:  describe("problems", "Objects, or parts of them, that are set aside, by reason.", "reason"),
	}
}

// ConfigApplied says that a configuration took over, when, and how long compiling and swapping took.
func (s *Set) ConfigApplied(version string, at time.Time, took time.Duration) {
	c := s.config
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version, c.applied, c.took = clean(version), at, took
	c.successes++
}

// ConfigRejected says that a configuration failed to compile and the one before keeps running.
func (s *Set) ConfigRejected() {
	c := s.config
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures++
}

// SetProblems replaces the number of problems by reason.
func (s *Set) SetProblems(byReason map[string]int) {
	c := s.config
	problems := make(map[string]int, len(byReason))
	for reason, n := range byReason {
		problems[clean(reason)] += n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = problems
}

// Describe implements prometheus.Collector.
func (c *configState) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.info, c.at, c.age, c.duration, c.applies, c.problem} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *configState) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	version, applied, took, problems := c.version, c.applied, c.took, c.problems
	successes, failures := c.successes, c.failures
	c.mu.Unlock()
	ch <- counter(c.applies, successes, "success")
	ch <- counter(c.applies, failures, "failure")
	for reason, n := range problems {
		ch <- gauge(c.problem, float64(n), reason)
	}
	if applied.IsZero() {
		return
	}
	ch <- gauge(c.info, 1, version)
	ch <- gauge(c.at, float64(applied.UnixMilli())/1000)
	ch <- gauge(c.age, time.Since(applied).Seconds())
	ch <- gauge(c.duration, took.Seconds())
}
