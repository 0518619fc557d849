package metrics

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// bounds are the upper bounds of the duration histogram's buckets, 0.5 ms to 60 s. They are fixed, and the histogram is a classic
// one: every Prometheus reads it, a route's memory is known beforehand, and observing is one atomic add. A native histogram would
// cost each route a growing map and the request path a lookup in it. It is never written.
var bounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, 60 * time.Second,
}

// classNames is indexed by status/100; index 0 is an exchange that ended without a response. It is never written.
var classNames = [...]string{None, "1xx", "2xx", "3xx", "4xx", "5xx"}

// Handles are the counters of one rule of a route towards one cluster. They are resolved when a snapshot is compiled and written by
// every exchange that takes the rule; all methods are safe for concurrent use and do not allocate.
type Handles struct {
	labels  labelSet
	cluster *Cluster

	classes  [len(classNames)]atomic.Uint64
	buckets  [len(bounds) + 1]atomic.Uint64 // the last is what took longer than every bound
	nanos    atomic.Uint64
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64
	active   atomic.Int64
}

type labelSet struct{ route, rule, cluster string }

// Cluster returns the counters of the cluster that the Handles lead to.
func (h *Handles) Cluster() *Cluster { return h.cluster }

// Enter counts an exchange as active on the route until Leave.
func (h *Handles) Enter() { h.active.Add(1) }

// Leave ends what Enter began.
func (h *Handles) Leave() { h.active.Add(-1) }

// Observe counts one exchange that is over.
func (h *Handles) Observe(status int, took time.Duration, bytesIn, bytesOut int64) {
	class := status / 100
	if class < 0 || class >= len(classNames) {
		class = 0
	}
	h.classes[class].Add(1)
	took = max(took, 0)
	h.buckets[bucketOf(took)].Add(1)
	h.nanos.Add(uint64(took))
	if bytesIn > 0 {
		h.bytesIn.Add(uint64(bytesIn))
	}
	if bytesOut > 0 {
		h.bytesOut.Add(uint64(bytesOut))
	}
}

// bucketOf walks up from the shortest: most exchanges are found within the first few.
func bucketOf(took time.Duration) int {
	for i := range bounds {
		if took <= bounds[i] {
			return i
		}
	}
	return len(bounds)
}

// routes owns the Handles.
type routes struct {
	limit    int
	clusters *clusters

	// unmatched counts exchanges without a route, other those of label sets beyond the limit; neither is ever swept.
	unmatched *Handles
	other     *Handles

	mu   sync.Mutex
	sets map[labelSet]*Handles // guarded by mu; without unmatched and other

	overflows atomic.Uint64

	requests, duration, in, out, active, labelSets, overflow *prometheus.Desc
}

func newRoutes(limit int, clusters *clusters) *routes {
	return &routes{
		limit:     limit,
		clusters:  clusters,
		unmatched: &Handles{labels: labelSet{None, None, None}, cluster: clusters.none},
		other:     &Handles{labels: labelSet{Other, Other, Other}, cluster: clusters.other},
		sets:      map[labelSet]*Handles{},
		requests: describe("requests_total", "Requests that ended, by the class of the status that the client got.",
			"route", "rule", "cluster", "code_class"),
		duration: describe("request_duration_seconds", "Time from a request's first byte to the end of its response.",
			"route", "cluster"),
		in:        describe("request_bytes_total", "Body bytes received from clients.", "route", "cluster"),
		out:       describe("response_bytes_total", "Body bytes sent to clients.", "route", "cluster"),
		active:    describe("requests_active", "Requests that took a route and have not ended.", "route", "cluster"),
		labelSets: describe("label_sets", "Distinct route, rule and cluster that are counted separately."),
		overflow:  describe("label_sets_overflow_total", `Times that a route, rule and cluster beyond the limit was put under "other".`),
	}
}

// Handles returns the counters of a rule towards a cluster: the same ones for the same names, so that they survive a snapshot. A nil
// ref is for exchanges that matched no route, cluster "" for a rule that sends nothing upstream. Beyond the limit of distinct label
// sets it returns a shared Handles labelled "other".
func (s *Set) Handles(ref *exchange.RouteRef, cluster string) *Handles {
	r := s.routes
	if ref == nil {
		return r.unmatched
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	labels := labelSet{clean(ref.Route), clean(ref.Rule), clean(cluster)}
	if h := r.sets[labels]; h != nil {
		return h
	}
	if len(r.sets) >= r.limit {
		r.overflows.Add(1)
		return r.other
	}
	labels = labelSet{strings.Clone(labels.route), strings.Clone(labels.rule), strings.Clone(labels.cluster)}
	h := &Handles{labels: labels, cluster: r.clusters.get(labels.cluster)}
	r.sets[labels] = h
	return h
}

// Unmatched returns the counters of exchanges that matched no route.
func (s *Set) Unmatched() *Handles { return s.routes.unmatched }

// Sweep forgets every Handles that is not in use, and the clusters that only those led to: their series end. Exchanges that still
// hold one may go on writing to it; nobody reads it any more. Call it after a snapshot took over, with the Handles of every snapshot
// that new exchanges may still enter, from the goroutine that compiles snapshots: Handles resolved meanwhile and not in use are swept.
// The clusters of flows stay: SweepFlows comes first.
func (s *Set) Sweep(inUse iter.Seq[*Handles]) {
	keep := map[*Handles]bool{}
	clusters := map[string]bool{}
	for h := range inUse {
		if h != nil {
			keep[h] = true
			clusters[h.labels.cluster] = true
		}
	}
	r := s.routes
	r.mu.Lock()
	maps.DeleteFunc(r.sets, func(_ labelSet, h *Handles) bool { return !keep[h] })
	r.mu.Unlock()
	s.flows.addClusters(clusters)
	s.clusters.sweep(clusters)
}

// Describe implements prometheus.Collector.
func (r *routes) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{r.requests, r.duration, r.in, r.out, r.active, r.labelSets, r.overflow} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A label set shows once it has seen an exchange.
func (r *routes) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	list := slices.Collect(maps.Values(r.sets))
	r.mu.Unlock()
	ch <- gauge(r.labelSets, float64(len(list)))
	ch <- counter(r.overflow, r.overflows.Load())

	sums := map[labelSet]*routeSum{}
	for _, h := range append(list, r.unmatched, r.other) {
		r.collectClasses(ch, h)
		key := labelSet{route: h.labels.route, cluster: h.labels.cluster}
		sum := sums[key]
		if sum == nil {
			sum = new(routeSum)
			sums[key] = sum
		}
		sum.add(h)
	}
	for key, sum := range sums {
		r.collectSum(ch, key, sum)
	}
}

func (r *routes) collectClasses(ch chan<- prometheus.Metric, h *Handles) {
	for class := range h.classes {
		if n := h.classes[class].Load(); n > 0 {
			ch <- counter(r.requests, n, h.labels.route, h.labels.rule, h.labels.cluster, classNames[class])
		}
	}
}

// routeSum adds up the rules of a route that lead to one cluster.
type routeSum struct {
	buckets           [len(bounds) + 1]uint64
	nanos, in, out    uint64
	active, exchanges int64
}

func (sum *routeSum) add(h *Handles) {
	for i := range h.buckets {
		n := h.buckets[i].Load()
		sum.buckets[i] += n
		sum.exchanges += int64(n)
	}
	active := h.active.Load()
	sum.active += active
	sum.exchanges += active
	sum.nanos += h.nanos.Load()
	sum.in += h.bytesIn.Load()
	sum.out += h.bytesOut.Load()
}

func (r *routes) collectSum(ch chan<- prometheus.Metric, key labelSet, sum *routeSum) {
	if sum.exchanges == 0 {
		return
	}
	cumulative := make(map[float64]uint64, len(bounds))
	count := uint64(0)
	for i := range bounds {
		count += sum.buckets[i]
		cumulative[bounds[i].Seconds()] = count
	}
	count += sum.buckets[len(bounds)]
	seconds := float64(sum.nanos) / float64(time.Second)
	ch <- prometheus.MustNewConstHistogram(r.duration, count, seconds, cumulative, key.route, key.cluster)
	ch <- counter(r.in, sum.in, key.route, key.cluster)
	ch <- counter(r.out, sum.out, key.route, key.cluster)
	ch <- gauge(r.active, float64(sum.active), key.route, key.cluster)
}
