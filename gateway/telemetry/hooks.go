package telemetry

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// DownstreamConnections adds to a socket's open client connections: +1 for one accepted, -1 for one closed, under the same protocol.
func (t *Telemetry) DownstreamConnections(bind string, proto exchange.Proto, delta int) {
	t.metrics.Bind(bind).Connections(proto, delta)
}

// RemoveBind ends the series of a socket that was closed for good and has no connection left.
func (t *Telemetry) RemoveBind(bind string) { t.metrics.RemoveBind(bind) }

// UpstreamConnections adds to a cluster's open connections: +1 for one opened, -1 for one closed.
func (t *Telemetry) UpstreamConnections(cluster string, delta int) {
	t.metrics.UpstreamConnections(cluster, delta)
}

// Cluster returns the counters of a cluster by name, for attempts that no Handles lead to, such as mirrors.
func (t *Telemetry) Cluster(name string) *Cluster { return t.metrics.Cluster(name) }

// ConfigApplied says that a configuration took over, when, and how long compiling and swapping took.
func (t *Telemetry) ConfigApplied(version string, at time.Time, took time.Duration) {
	t.metrics.ConfigApplied(version, at, took)
}

// ConfigRejected says that a configuration failed to compile and the one before keeps running.
func (t *Telemetry) ConfigRejected() { t.metrics.ConfigRejected() }

// SetProblems replaces the number of problems by reason.
func (t *Telemetry) SetProblems(byReason map[string]int) { t.metrics.SetProblems(byReason) }

// MirrorDropped counts a copy of a request that was not sent because too many were under way.
func (t *Telemetry) MirrorDropped() { t.mirrorsDropped.Add(1) }

// registerOwn adds the metrics of mirrors, the access log and the tracer.
func (t *Telemetry) registerOwn() error {
	counter := func(name, help string, labels prometheus.Labels, read func() uint64) error {
		return t.metrics.Registry().Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "gatehouse_" + name, Help: help, ConstLabels: labels,
		}, func() float64 { return float64(read()) }))
	}
	const (
		lines, linesHelp     = "access_log_lines_total", "Access log lines written."
		drops, dropsHelp     = "access_log_dropped_total", "Access log lines lost: the buffer was full, or writing failed."
		mirrors, mirrorsHelp = "mirrors_dropped_total", "Copies of requests not sent to a mirror because too many were under way."
	)
	if err := counter(mirrors, mirrorsHelp, nil, t.mirrorsDropped.Load); err != nil {
		return err
	}
	if t.log != nil {
		for _, err := range []error{
			counter(lines, linesHelp, nil, func() uint64 { return t.log.Stats().Written }),
			counter(drops, dropsHelp, prometheus.Labels{"reason": "full"}, func() uint64 { return t.log.Stats().Full }),
			counter(drops, dropsHelp, prometheus.Labels{"reason": "write"}, func() uint64 { return t.log.Stats().Failed }),
		} {
			if err != nil {
				return err
			}
		}
	}
	if !t.tracer.On() {
		return nil
	}
	return t.registerSpans()
}

// registerSpans adds the metrics of spans, once: when tracing is on, or turned on for a listener.
func (t *Telemetry) registerSpans() (err error) {
	t.derived.registered.Do(func() {
		for result, read := range map[string]func() uint64{
			"sent": func() uint64 { n, _ := t.tracer.Stats(); return n },
			"lost": func() uint64 { _, n := t.tracer.Stats(); return n },
		} {
			err = errors.Join(err, t.metrics.Registry().Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: "gatehouse_trace_spans_total", Help: "Spans sent to a trace collector, or lost because it did not take them.",
				ConstLabels: prometheus.Labels{"result": result},
			}, func() float64 { return float64(read()) })))
		}
	})
	return err
}
