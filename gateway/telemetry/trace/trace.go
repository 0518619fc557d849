// Package trace puts exchanges into distributed traces: it reads the trace context that a request carries, decides whether the
// exchange is recorded, writes the context for the upstream and sends recorded spans to an OpenTelemetry collector.
//
// In flow a request's fields and, at the end, what the exchange became; out flow the fields for the upstream and OTLP over gRPC or
// HTTP. The decision is made here, before the OpenTelemetry SDK is entered, so that the 99 of 100 exchanges that are not recorded
// allocate nothing: what is written for the upstream lies in memory of the exchange. Without an endpoint in the environment tracing is
// off: fields pass untouched and the trace id is read for the access log. The package knows nothing of metrics or logs.
package trace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const instrumentation = "gatehouse.dev/gatehouse/gateway/telemetry/trace"

// Options are the settings of a Tracer.
type Options struct {
	// FromEnv makes the OTEL_ variables of the environment count. Without it tracing is off.
	FromEnv bool
	// Version is the program's version, for the resource.
	Version string
	// Logger gets settings that are not understood and failed exports; nil discards them.
	Logger *slog.Logger
}

// Tracer begins spans. Its methods are safe for concurrent use.
type Tracer struct {
	options Options
	// counts are shared with the Tracers that are derived from this one.
	counts      *counts
	propagation propagation
	// Of a Tracer for some of the exchanges: what its spans are called, and what they get beside the usual.
	spanName   string
	attributes []Attribute

	// What follows is nil when tracing is off.
	provider  *sdktrace.TracerProvider
	processor sdktrace.SpanProcessor // the provider's
	sdk       oteltrace.Tracer
	exporter  *countingExporter
	sampler   sampler
}

// New returns a Tracer, which is off unless the environment sets an endpoint. It does not wait for the collector.
func New(ctx context.Context, o Options) (*Tracer, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Tracer{options: o, counts: &counts{}, propagation: defaultPropagation(), sampler: newSampler(true, defaultRatio)}
	if !o.FromEnv {
		return t, nil
	}
	s, err := readEnv(o.Logger)
	if err != nil {
		return nil, err
	}
	t.propagation, t.sampler = s.propagation, s.sampler
	if s.endpoint == "" {
		return t, nil
	}
	if err := t.start(ctx, &s, &o); err != nil {
		return nil, err
	}
	return t, nil
}

// On reports whether spans are sampled and exported.
func (t *Tracer) On() bool { return t.provider != nil }

// Shutdown sends what is queued and ends the Tracer.
func (t *Tracer) Shutdown(ctx context.Context) error {
	if t.provider == nil {
		return nil
	}
	// The provider alone would not even begin when ctx is over, and leave its goroutine behind.
	return errors.Join(t.processor.Shutdown(ctx), t.provider.Shutdown(ctx))
}

// Span is one exchange's place in its trace. The zero Span, and every Span while tracing is off, does nothing.
type Span struct {
	tracer *Tracer
	x      *exchange.Exchange // keeps what Inject writes
	sdk    oteltrace.Span     // nil when the span is not recorded
	// traceparent is the field for the upstream; the trace id of the access log is a part of it. A view, kept by the exchange.
	traceparent string
	// parent is the hex span id that the request came with, "" when the trace begins here. It is a view.
	parent  string
	came    formats
	sampled bool
	debug   bool
	// keepState says that the request's tracestate belongs to this trace.
	keepState bool
}

// traceIDKey carries the id of a trace that begins here to the SDK.
type traceIDKey struct{}

// Begin reads the request's trace context, sets x.TraceID and makes s, a zero Span, the exchange's; it is recorded when the exchange is
// sampled. The returned context carries it then, so that spans started below become its children; else it is ctx as it came.
func (t *Tracer) Begin(ctx context.Context, x *exchange.Exchange, s *Span) context.Context {
	in := t.propagation.extract(x.Req.Fields)
	if t.provider == nil {
		x.TraceID = in.traceID(x)
		return ctx
	}
	begins := !in.trace.IsValid()
	if begins {
		in.trace = newTraceID()
	}
	s.tracer, s.x, s.came, s.keepState, s.parent = t, x, in.came, in.w3c, in.spanText
	s.sampled = t.sampler.sample(&in)
	s.debug = in.sampling == samplingDebug && s.sampled
	var id oteltrace.SpanID
	if s.sampled {
		ctx, s.sdk = t.record(ctx, x, &in, begins)
		id = s.sdk.SpanContext().SpanID()
	} else {
		id = newSpanID()
	}
	var buf [traceparentLen]byte
	formatTraceparent(&buf, &in.trace, &id, in.flags&flagRandom|flagIf(s.sampled))
	s.traceparent = x.Keep(buf[:])
	x.TraceID = s.traceparent[traceStart:traceEnd]
	return ctx
}

// record starts the SDK's span.
func (t *Tracer) record(ctx context.Context, x *exchange.Exchange, in *incoming, begins bool) (context.Context, oteltrace.Span) {
	if begins {
		ctx = context.WithValue(ctx, traceIDKey{}, in.trace)
	} else {
		parent := oteltrace.SpanContextConfig{
			TraceID: in.trace, SpanID: in.span, TraceFlags: oteltrace.TraceFlags(in.flags), Remote: true,
		}
		if state, ok := x.Req.Fields.Lookup(exchange.Tracestate.String()); ok && in.w3c {
			// A state that does not parse is dropped from the span (W3C Trace Context 3.3.1.1); the clone outlives the exchange.
			parent.TraceState, _ = oteltrace.ParseTraceState(strings.Clone(state))
		}
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, oteltrace.NewSpanContext(parent))
	}
	return t.sdk.Start(ctx, methodName(x.Req.Method), oteltrace.WithSpanKind(oteltrace.SpanKindServer), oteltrace.WithTimestamp(x.Start))
}

// End completes a recorded span; authority is the one the client sent.
func (s *Span) End(x *exchange.Exchange, took time.Duration, authority string) {
	if s.sdk == nil {
		return
	}
	s.tracer.describe(s.sdk, x, authority)
	s.sdk.End(oteltrace.WithTimestamp(x.Start.Add(took)))
}

// ids gives the SDK the trace id that the sampling decision was made on, and random span ids.
type ids struct{}

// NewIDs implements sdktrace.IDGenerator.
func (ids) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	if id, ok := ctx.Value(traceIDKey{}).(oteltrace.TraceID); ok {
		return id, newSpanID()
	}
	return newTraceID(), newSpanID()
}

// NewSpanID implements sdktrace.IDGenerator.
func (ids) NewSpanID(context.Context, oteltrace.TraceID) oteltrace.SpanID { return newSpanID() }

func newTraceID() (id oteltrace.TraceID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

func newSpanID() (id oteltrace.SpanID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// formatTraceparent writes version 00 of the field (W3C Trace Context 3.2).
func formatTraceparent(b *[traceparentLen]byte, trace *oteltrace.TraceID, span *oteltrace.SpanID, flags byte) {
	b[0], b[1], b[traceStart-1], b[traceEnd], b[spanEnd] = '0', '0', '-', '-', '-'
	hex.Encode(b[traceStart:traceEnd], trace[:])
	hex.Encode(b[spanStart:spanEnd], span[:])
	b[spanEnd+1], b[spanEnd+2] = '0', '0'+flags // there are two flags
}

func flagIf(sampled bool) byte {
	if sampled {
		return flagSampled
	}
	return 0
}
