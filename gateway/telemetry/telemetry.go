// Package telemetry is what the gateway tells about itself: an access log, metrics and traces. The Engine calls Begin when an
// exchange starts and End when it is over, last of all; nothing here can fail, block or change an exchange in between.
//
//	Begin ──> trace context read, span sampled, counted as active
//	  span.Routed(handles)   the route is known
//	  span.Inject(&fields)   the request leaves for an endpoint
//	End ──> counters, access log line, span
//
// The parts are packages of their own: accesslog, metrics and trace. README.md lists the fields, metrics and variables.
package telemetry

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/telemetry/accesslog"
	"gatehouse.dev/gatehouse/gateway/telemetry/metrics"
	"gatehouse.dev/gatehouse/gateway/telemetry/trace"
)

// Options are the settings of Telemetry. The zero value counts and does nothing else.
type Options struct {
	// AccessLog is "-" for stdout, a file to append to, or "" for no access log.
	AccessLog string
	// AccessLogWriter gets the access log in place of AccessLog. It is not closed.
	AccessLogWriter io.Writer
	// AccessLogQuery adds the query to the logged path. Queries carry tokens and personal data; the default leaves them out.
	AccessLogQuery bool
	// AccessLogBuffer bounds the bytes of lines that wait to be written; 0 means accesslog.DefaultBuffer.
	AccessLogBuffer int
	// TracesFromEnv lets the OTEL_ variables turn tracing on.
	TracesFromEnv bool
	// MaxLabelSets bounds the distinct (route, rule, cluster) that are counted separately; 0 means metrics.DefaultMaxLabelSets.
	MaxLabelSets int
	// Version is the program's version.
	Version string
	// Logger gets what goes wrong here; nil discards it.
	Logger *slog.Logger
}

// Handles are the counters of one rule towards one cluster.
type Handles = metrics.Handles

// Cluster is the counters of one cluster.
type Cluster = metrics.Cluster

// Telemetry records exchanges. Its methods are safe for concurrent use.
type Telemetry struct {
	metrics *metrics.Set
	log     *accesslog.Log // nil when off
	tracer  *trace.Tracer
	derived tracers

	mirrorsDropped atomic.Uint64
}

// New sets up the access log, metrics and traces. The context bounds the set-up only.
func New(ctx context.Context, o Options) (*Telemetry, error) {
	set, err := metrics.New(metrics.Options{Logger: o.Logger, Version: o.Version, MaxLabelSets: o.MaxLabelSets})
	if err != nil {
		return nil, err
	}
	tracer, err := trace.New(ctx, trace.Options{FromEnv: o.TracesFromEnv, Version: o.Version, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	t := &Telemetry{metrics: set, tracer: tracer}
	if o.AccessLog != "" || o.AccessLogWriter != nil {
		t.log, err = accesslog.Open(accesslog.Options{
			Path: o.AccessLog, Writer: o.AccessLogWriter, Query: o.AccessLogQuery, Buffer: o.AccessLogBuffer, Logger: o.Logger,
		})
		if err != nil {
			return nil, errors.Join(err, tracer.Shutdown(ctx))
		}
	}
	if err := t.registerOwn(); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

// Handles returns the counters of a rule towards a cluster: the same ones for the same names, so that they survive a snapshot. Resolve
// them when a snapshot is compiled. A nil ref is for exchanges that matched no route, cluster "" for a rule that sends nothing on.
func (t *Telemetry) Handles(ref *exchange.RouteRef, cluster string) *Handles {
	return t.metrics.Handles(ref, cluster)
}

// Sweep ends the series of every Handles not in use; see metrics.Set.Sweep for when to call it.
func (t *Telemetry) Sweep(inUse iter.Seq[*Handles]) { t.metrics.Sweep(inUse) }

// FlowHandles are the counters of one route of a listener for streams or datagrams towards one cluster.
type FlowHandles = metrics.FlowHandles

// FlowHandles returns the counters of flows as Handles does those of exchanges. A nil ref is for flows that no route took.
func (t *Telemetry) FlowHandles(proto exchange.Proto, listener string, ref *exchange.RouteRef, cluster string) *FlowHandles {
	return t.metrics.FlowHandles(proto, listener, ref, cluster)
}

// SweepFlows ends the series of every FlowHandles not in use. Sweep comes after it.
func (t *Telemetry) SweepFlows(inUse iter.Seq[*FlowHandles]) { t.metrics.SweepFlows(inUse) }

// EndFlow records a flow that is over: metrics, span, access log line. Its bytes were counted as they passed. by is its listener's Tracer, nil
// where it is traced as all are.
func (t *Telemetry) EndFlow(f *exchange.Flow, h *FlowHandles, by *Tracer) {
	took := max(time.Since(f.Start), 0)
	if h != nil {
		h.End(f, took)
	}
	if f.Fault != nil {
		t.metrics.Fault(f.Fault.Kind)
	}
	cmp.Or(by, t.tracer).Flow(f, took)
	if t.log != nil {
		t.log.RecordFlow(f, took)
	}
}

// Span accompanies one exchange from Begin to End. It belongs to the goroutine that serves the exchange; the zero Span does nothing.
type Span struct {
	trace     trace.Span
	bind      *metrics.Bind
	routed    *Handles
	authority string // what the client sent; a view
	proto     exchange.Proto
}

// Begin starts an exchange: it counts it as active, reads the trace context that it carries (W3C or B3), sets x.TraceID and, when
// tracing is on, samples it. The returned context carries the span of an exchange that is sampled; else it is ctx as it came. x.TraceID
// is a view, valid as long as the exchange.
func (t *Telemetry) Begin(ctx context.Context, x *exchange.Exchange) (_ context.Context, s Span) {
	s.bind, s.authority, s.proto = t.metrics.Bind(x.Peer.Bind), x.Req.Authority, x.Peer.Proto
	s.bind.Begin(s.proto)
	ctx = t.tracer.Begin(ctx, x, &s.trace)
	return ctx, s
}

// Routed counts the exchange as active on a route until End. Calling it is optional; another call moves the exchange.
func (s *Span) Routed(h *Handles) {
	if s.routed != nil {
		s.routed.Leave()
	}
	s.routed = h
	if h != nil {
		h.Enter()
	}
}

// Inject writes the trace context into the fields that go to an endpoint: W3C, and the B3 form that the client sent. While tracing is
// off it changes nothing, so that the client's own context passes. The values are views, valid as long as the exchange.
func (s *Span) Inject(fields *exchange.Fields) { s.trace.Inject(fields) }

// End records an exchange that is over: metrics, access log line, span. Call it once, when nothing changes the exchange any more and
// its buffers are still valid. h nil means that no route matched.
func (t *Telemetry) End(x *exchange.Exchange, h *Handles, s *Span) {
	now := time.Now()
	if x.Start.IsZero() {
		x.Start = now
	}
	took := max(now.Sub(x.Start), 0)
	t.metrics.End(x, cmp.Or(h, s.routed), took)
	s.Routed(nil)
	if s.bind != nil {
		s.bind.End(s.proto)
	}
	if t.log != nil {
		t.log.Record(x, &accesslog.Entry{Took: took, Authority: s.authority})
	}
	s.trace.End(x, took, s.authority)
}

// Handler serves the metrics to Prometheus.
func (t *Telemetry) Handler() http.Handler { return t.metrics.Handler() }

// Registry is where another part of the gateway adds a collector of its own.
func (t *Telemetry) Registry() prometheus.Registerer { return t.metrics.Registry() }

// ReopenAccessLog opens the access log's file anew, for log rotation.
func (t *Telemetry) ReopenAccessLog() error {
	if t.log == nil {
		return nil
	}
	return t.log.Reopen()
}

// Shutdown writes the lines and sends the spans that wait, both at once so that a dead collector does not cost the log its lines.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var logErr, traceErr error
	var both sync.WaitGroup
	if t.log != nil {
		both.Go(func() { logErr = t.log.Close(ctx) })
	}
	both.Go(func() { traceErr = errors.Join(t.ShutdownTracers(ctx), t.tracer.Shutdown(ctx)) })
	both.Wait()
	return errors.Join(logErr, traceErr)
}
