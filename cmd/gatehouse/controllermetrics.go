package main

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gatehouse.dev/gatehouse/controller"
	"gatehouse.dev/gatehouse/controller/leader"
)

// controllerMetrics are what `gatehouse controller` counts.
type controllerMetrics struct {
	registry  *prometheus.Registry
	leading   prometheus.Gauge
	reconcile prometheus.Histogram
	version   prometheus.Gauge
	problems  *prometheus.GaugeVec
	writes    *prometheus.CounterVec
	last      uint64 // the version that reconcile counted last; the loop's goroutine only
}

func newControllerMetrics() *controllerMetrics {
	m := &controllerMetrics{
		registry: prometheus.NewRegistry(),
		leading:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "gatehouse_controller_leading", Help: "1 while this controller leads."}),
		reconcile: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gatehouse_controller_reconcile_seconds", Help: "Time to translate and publish a state.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		version: prometheus.NewGauge(prometheus.GaugeOpts{Name: "gatehouse_controller_version", Help: "The configurations published."}),
		problems: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "gatehouse_problems", Help: "Objects, or parts of them, that are set aside, by reason.",
		}, []string{"reason"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_controller_status_writes_total", Help: "Writes of statuses, by the kind of object and how they ended.",
		}, []string{"kind", "result"}),
	}
	m.registry.MustRegister(m.leading, m.reconcile, m.version, m.problems, m.writes, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gatehouse_build_info", Help: "Always 1; the labels say what runs.", ConstLabels: prometheus.Labels{"version": version},
		}, func() float64 { return 1 }))
	return m
}

func (m *controllerMetrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// report counts what came of a state, or of what proxies said since.
func (m *controllerMetrics) report(r *controller.Report) {
	if r.Version != m.last {
		m.last = r.Version
		m.reconcile.Observe(r.Took.Seconds())
	}
	m.version.Set(float64(r.Version))
	m.problems.Reset()
	for _, p := range r.Problems {
		m.problems.WithLabelValues(string(p.Reason)).Inc()
	}
}

func (m *controllerMetrics) write(kind, result string) { m.writes.WithLabelValues(kind, result).Inc() }

// watch adds what is counted when somebody asks.
func (m *controllerMetrics) watch(l *leader.Leader) { m.registry.MustRegister(&held{leader: l}) }

// held collects the objects by kind and the proxies by Gateway.
type held struct{ leader *leader.Leader }

// Describe implements prometheus.Collector: what is held is known when it is collected.
func (h *held) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (h *held) Collect(ch chan<- prometheus.Metric) {
	objects := prometheus.NewDesc("gatehouse_controller_objects", "Objects held, by kind.", []string{"kind"}, nil)
	for kind, n := range h.leader.Objects() {
		ch <- prometheus.MustNewConstMetric(objects, prometheus.GaugeValue, float64(n), kind)
	}
	proxies := prometheus.NewDesc("gatehouse_controller_proxies", "Connected proxies, by Gateway.", []string{"namespace", "gateway"}, nil)
	for gateway, n := range h.leader.Connected() {
		namespace, name, _ := strings.Cut(gateway, "/")
		ch <- prometheus.MustNewConstMetric(proxies, prometheus.GaugeValue, float64(n), namespace, name)
	}
}
