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

// flowBounds are the upper bounds of the duration histogram's buckets: a DNS query's session lasts a minute, a database's connection hours.
// They are never written.
var flowBounds = [...]time.Duration{
	10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 10 * time.Hour,
}

// FlowHandles are the counters of one route of a listener for streams or datagrams towards one cluster. They are resolved when a snapshot is
// compiled; all methods are safe for concurrent use and do not allocate.
type FlowHandles struct {
	labels  flowLabels
	cluster *Cluster

	// What is active is what began and has neither succeeded nor failed.
	began, succeeded, failed atomic.Uint64
	buckets                  [len(flowBounds) + 1]atomic.Uint64
	nanos                    atomic.Uint64
	in, out                  atomic.Uint64
}

type flowLabels struct{ protocol, listener, route, rule, cluster string }

// Cluster returns the counters of the cluster that the FlowHandles lead to.
func (h *FlowHandles) Cluster() *Cluster { return h.cluster }

// Begin counts a flow as active until End.
func (h *FlowHandles) Begin() { h.began.Add(1) }

// Moved counts bytes from and to the client as they pass: a flow may last for hours.
func (h *FlowHandles) Moved(in, out int64) {
	if in > 0 {
		h.in.Add(uint64(in))
	}
	if out > 0 {
		h.out.Add(uint64(out))
	}
}

// End ends what Begin began.
func (h *FlowHandles) End(f *exchange.Flow, took time.Duration) {
	took = max(took, 0)
	i := 0
	for i < len(flowBounds) && took > flowBounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.nanos.Add(uint64(took))
	if f.Fault != nil {
		h.failed.Add(1)
	} else {
		h.succeeded.Add(1)
	}
}

// flows owns the FlowHandles.
type flows struct {
	limit    int
	clusters *clusters
	other    *FlowHandles // of label sets beyond the limit; never swept

	mu   sync.Mutex
	sets map[flowLabels]*FlowHandles // guarded by mu; without other

	total, active, duration, in, out *prometheus.Desc
}

func newFlows(limit int, clusters *clusters) *flows {
	labels := []string{"protocol", "listener", "route", "rule", "cluster"}
	return &flows{
		limit:    limit,
		clusters: clusters,
		other:    &FlowHandles{labels: flowLabels{Other, Other, Other, Other, Other}, cluster: clusters.other},
		sets:     map[flowLabels]*FlowHandles{},
		total: describe("streams_total", "TLS and TCP connections passed on, and UDP sessions, that ended.",
			append(slices.Clone(labels), "result")...),
		active:   describe("streams_active", "TLS and TCP connections passed on, and UDP sessions, that have not ended.", labels...),
		duration: describe("stream_duration_seconds", "Time from a connection's beginning to its end.", labels...),
		in:       describe("stream_received_bytes_total", "Bytes received from clients and passed on unread.", labels...),
		out:      describe("stream_sent_bytes_total", "Bytes of endpoints passed on to clients unread.", labels...),
	}
}

// FlowHandles returns the counters of a route of a listener towards a cluster, as Handles does for exchanges.
func (s *Set) FlowHandles(proto exchange.Proto, listener string, ref *exchange.RouteRef, cluster string) *FlowHandles {
	fs := s.flows
	labels := flowLabels{protocol: proto.String(), listener: clean(listener), route: None, rule: None, cluster: clean(cluster)}
	if ref != nil {
		labels.route, labels.rule = clean(ref.Route), clean(ref.Rule)
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if h := fs.sets[labels]; h != nil {
		return h
	}
	if len(fs.sets) >= fs.limit {
		s.routes.overflows.Add(1)
		return fs.other
	}
	for _, text := range []*string{&labels.listener, &labels.route, &labels.rule, &labels.cluster} {
		*text = strings.Clone(*text)
	}
	h := &FlowHandles{labels: labels, cluster: fs.clusters.get(labels.cluster)}
	fs.sets[labels] = h
	return h
}

// SweepFlows forgets every FlowHandles that is not in use, as Sweep does for exchanges. Their clusters go with the Sweep after it.
func (s *Set) SweepFlows(inUse iter.Seq[*FlowHandles]) {
	keep := map[*FlowHandles]bool{}
	for h := range inUse {
		keep[h] = true
	}
	fs := s.flows
	fs.mu.Lock()
	defer fs.mu.Unlock()
	maps.DeleteFunc(fs.sets, func(_ flowLabels, h *FlowHandles) bool { return !keep[h] })
}

// addClusters adds those that FlowHandles lead to.
func (fs *flows) addClusters(inUse map[string]bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for labels := range fs.sets {
		inUse[labels.cluster] = true
	}
}

// Describe implements prometheus.Collector.
func (fs *flows) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{fs.total, fs.active, fs.duration, fs.in, fs.out} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A label set shows once it has seen a flow.
func (fs *flows) Collect(ch chan<- prometheus.Metric) {
	fs.mu.Lock()
	list := slices.Collect(maps.Values(fs.sets))
	fs.mu.Unlock()
	for _, h := range append(list, fs.other) {
		fs.collect(ch, h)
	}
}

func (fs *flows) collect(ch chan<- prometheus.Metric, h *FlowHandles) {
	succeeded, failed := h.succeeded.Load(), h.failed.Load() // first: nothing ends before it begins
	began := h.began.Load()
	if began == 0 {
		return
	}
	labels := []string{h.labels.protocol, h.labels.listener, h.labels.route, h.labels.rule, h.labels.cluster}
	for result, n := range map[string]uint64{"success": succeeded, "failure": failed} {
		if n > 0 {
			ch <- counter(fs.total, n, append(slices.Clone(labels), result)...)
		}
	}
	ch <- gauge(fs.active, float64(int64(began-succeeded-failed)), labels...)
	ch <- counter(fs.in, h.in.Load(), labels...)
	ch <- counter(fs.out, h.out.Load(), labels...)
	cumulative := make(map[float64]uint64, len(flowBounds))
	count := uint64(0)
	for i := range flowBounds {
		count += h.buckets[i].Load()
		cumulative[flowBounds[i].Seconds()] = count
	}
	count += h.buckets[len(flowBounds)].Load()
	seconds := float64(h.nanos.Load()) / float64(time.Second)
	ch <- prometheus.MustNewConstHistogram(fs.duration, count, seconds, cumulative, labels...)
}
