// Package metrics counts what passes the gateway and shows it to Prometheus.
//
// In flow names of routes, clusters, binds and problems when a configuration is compiled, and numbers afterwards; out flows one
// registry of its own, served by Handler. The request path never looks a label up: it holds a Handles, resolved beforehand, whose
// counters are plain atomics. Collectors turn them into samples when somebody scrapes, so that a route without traffic costs a few
// hundred bytes and no series, and a route that is gone leaves nothing behind.
//
// The package knows nothing of sockets, access logs or traces. README.md of package telemetry lists the metrics.
package metrics

import (
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	// DefaultMaxLabelSets is how many (route, rule, cluster) there are before further ones are counted as "other".
	DefaultMaxLabelSets = 20_000

	// None is the label value for what does not apply: the route of a request that matched none.
	None = "-"
	// Other is the label value for everything beyond a limit.
	Other = "other"

	scrapeTimeout = 30 * time.Second
	maxScrapes    = 4
)

// Options are the settings of a Set.
type Options struct {
	// Logger gets scrape errors; nil discards them.
	Logger *slog.Logger
	// Version is the program's version, for gatehouse_build_info.
	Version string
	// MaxLabelSets bounds the distinct (route, rule, cluster) and, separately, the distinct clusters; 0 means DefaultMaxLabelSets.
	MaxLabelSets int
}

// Set is every metric of one gateway. Its methods are safe for concurrent use.
type Set struct {
	registry *prometheus.Registry
	handler  http.Handler

	routes   *routes
	flows    *flows
	clusters *clusters
	binds    *binds
	faults   *faults
	config   *configState
}

// New returns a Set with a registry of its own.
func New(o Options) (*Set, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxLabelSets <= 0 {
		o.MaxLabelSets = DefaultMaxLabelSets
	}
	clusters := newClusters(o.MaxLabelSets)
	s := &Set{
		registry: prometheus.NewRegistry(),
		routes:   newRoutes(o.MaxLabelSets, clusters),
		flows:    newFlows(o.MaxLabelSets, clusters),
		clusters: clusters,
		binds:    newBinds(),
		faults:   newFaults(),
		config:   newConfigState(),
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "gatehouse_build_info",
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": clean(o.Version), "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	for _, c := range []prometheus.Collector{
		s.routes, s.flows, s.clusters, s.binds, s.faults, s.config, build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := s.registry.Register(c); err != nil {
			return nil, err
		}
	}
	s.handler = promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(o.Logger.Handler(), slog.LevelError),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
		EnableOpenMetrics:   true,
	})
	return s, nil
}

// Handler serves the metrics in the text format or OpenMetrics, as the scraper asks.
func (s *Set) Handler() http.Handler { return s.handler }

// Registry is where another part of the gateway adds a collector of its own.
func (s *Set) Registry() prometheus.Registerer { return s.registry }

// Gatherer is where the samples are read in-process.
func (s *Set) Gatherer() prometheus.Gatherer { return s.registry }

// clean makes a string fit for a label value: None for "", and valid UTF-8, without which a sample is refused.
func clean(s string) string {
	if s == "" {
		return None
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// counter and gauge make a sample. They only fail on a wrong number of labels or invalid UTF-8, which clean excludes.
func counter(d *prometheus.Desc, v uint64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gatehouse_"+name, help, labels, nil)
}

// End counts an exchange that is over; h nil means that no route matched.
func (s *Set) End(x *exchange.Exchange, h *Handles, took time.Duration) {
	if h == nil {
		h = s.routes.unmatched
	}
	h.Observe(x.Resp.Status, took, x.BytesIn, x.BytesOut)
	if x.Fault != nil {
		s.Fault(x.Fault.Kind)
	}
}
