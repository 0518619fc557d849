package trace

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// defaultService is the service.name unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES give one.
const defaultService = "gatehouse"

// start sets up exporter, resource and provider.
func (t *Tracer) start(ctx context.Context, s *settings, o *Options) error {
	exporter, err := newExporter(ctx, s)
	if err != nil {
		return fmt.Errorf("tracing: the %s exporter cannot be set up: %w", s.protocol, err)
	}
	t.exporter = &countingExporter{SpanExporter: exporter, logger: o.Logger, counts: t.counts}
	t.provide(t.exporter, newResource(ctx, o, ""))
	o.Logger.Info("tracing is on", "protocol", s.protocol)
	return nil
}

// newResource describes the gateway. service is its name, "" for what the operator or else the program calls it.
func newResource(ctx context.Context, o *Options, service string) *resource.Resource {
	options := []resource.Option{resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName(defaultService), semconv.ServiceVersion(text(o.Version)))}
	if o.FromEnv {
		options = append(options, resource.WithFromEnv()) // late: what the operator says counts
	}
	if service != "" {
		options = append(options, resource.WithAttributes(semconv.ServiceName(text(service))))
	}
	res, err := resource.New(ctx, options...)
	if err != nil {
		o.Logger.Warn("a part of the trace resource is left out", "error", err)
	}
	return res
}

// provide turns tracing on.
func (t *Tracer) provide(exporter sdktrace.SpanExporter, res *resource.Resource) {
	t.processor = sdktrace.NewBatchSpanProcessor(exporter)
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithResource(res),
		sdktrace.WithSpanProcessor(t.processor),
		sdktrace.WithIDGenerator(ids{}),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // only sampled exchanges get here
	)
	t.sdk = t.provider.Tracer(instrumentation)
}

func newExporter(ctx context.Context, s *settings) (*otlptrace.Exporter, error) {
	if s.protocol == protocolHTTP {
		return otlptracehttp.New(ctx)
	}
	if s.hostPort {
		return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(s.endpoint))
	}
	return otlptracegrpc.New(ctx)
}

// countingExporter keeps count of spans and reports failures to the gateway's own log, once a minute at most, in place of the SDK's
// process-wide error handler.
type countingExporter struct {
	sdktrace.SpanExporter
	logger    *slog.Logger
	counts    *counts
	lastError atomic.Int64
}

// counts are the spans that collectors took and those that they did not.
type counts struct{ exported, failed atomic.Uint64 }

// ExportSpans implements sdktrace.SpanExporter. It reports success always: the SDK does nothing with an error but print it.
func (e *countingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		e.counts.exported.Add(uint64(len(spans)))
		return nil
	}
	e.counts.failed.Add(uint64(len(spans)))
	now, last := time.Now().UnixNano(), e.lastError.Load()
	if now-last >= int64(time.Minute) && e.lastError.CompareAndSwap(last, now) {
		e.logger.Warn("spans could not be sent to the trace collector and are lost", "spans", len(spans), "error", err)
	}
	return nil
}

// Stats returns how many spans collectors took and how many they did not, those of derived Tracers included.
func (t *Tracer) Stats() (exported, failed uint64) {
	return t.counts.exported.Load(), t.counts.failed.Load()
}
