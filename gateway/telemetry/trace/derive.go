package trace

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Settings are how some of the exchanges are traced, in place of how all others are. The zero value changes nothing.
type Settings struct {
	// Disabled makes no spans; the trace context of requests passes through untouched.
	Disabled bool
	// Send delivers spans, an OTLP TracesData message in protocol buffers' wire form. nil sends them where the others go.
	Send func(ctx context.Context, message []byte) error
	// Share of the exchanges that no caller decided on that is recorded, from 0 to 1; nil is as for the others.
	Share *float64
	// IgnoreParent decides by Share even where a caller has decided.
	IgnoreParent bool
	// ParentShare is how many of those that a caller sampled are recorded; nil is all.
	ParentShare *float64
	// ServiceName is the resource's service.name; "" is as for the others.
	ServiceName string
	// SpanName names the spans; "" is as for the others.
	SpanName string
	// Attributes are added to each span.
	Attributes []Attribute
}

// Attribute is a span attribute: of its three sources one is set.
type Attribute struct {
	Name    string
	Literal string
	// Header is a field of the request, or else of the response.
	Header string
	// Attribute is the name of one of the span's own attributes.
	Attribute string
}

// Derive returns a Tracer for some of the exchanges, to be shut down on its own. It does not wait for the collector.
func (t *Tracer) Derive(ctx context.Context, s Settings) (*Tracer, error) {
	d := &Tracer{options: t.options, counts: t.counts, propagation: t.propagation, sampler: t.sampler, spanName: s.SpanName, attributes: s.Attributes}
	if s.Share != nil {
		d.sampler.below = shareBelow(*s.Share)
	}
	if s.IgnoreParent {
		d.sampler.followParent = false
	}
	if s.ParentShare != nil {
		d.sampler.thinsParents, d.sampler.parentsBelow = true, shareBelow(*s.ParentShare)
	}
	var exporter sdktrace.SpanExporter
	switch {
	case s.Disabled, s.Send == nil && t.exporter == nil:
		return d, nil
	case s.Send == nil:
		exporter = borrowed{t.exporter}
	default:
		otlp, err := otlptrace.New(ctx, sender(s.Send))
		if err != nil {
			return nil, fmt.Errorf("tracing: the exporter cannot be set up: %w", err)
		}
		d.exporter = &countingExporter{SpanExporter: otlp, logger: t.options.Logger, counts: t.counts}
		exporter = d.exporter
	}
	d.provide(exporter, newResource(ctx, &d.options, s.ServiceName))
	return d, nil
}

// borrowed is another Tracer's exporter, which that one shuts down.
type borrowed struct{ sdktrace.SpanExporter }

// Shutdown implements sdktrace.SpanExporter.
func (borrowed) Shutdown(context.Context) error { return nil }

// sender is an OTLP client over a function.
type sender func(ctx context.Context, message []byte) error

// Start implements otlptrace.Client.
func (sender) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (sender) Stop(context.Context) error { return nil }

// UploadTraces implements otlptrace.Client. TracesData has the wire form of ExportTraceServiceRequest.
func (s sender) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	message, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("the spans do not marshal: %w", err)
	}
	return s(ctx, message)
}

// Answer takes what the settings ask for out of the response's fields, which are views that do not last until End.
func (s *Span) Answer(fields exchange.Fields) {
	if s.sdk == nil {
		return
	}
	for i := range s.tracer.attributes {
		want := &s.tracer.attributes[i]
		if want.Header == "" {
			continue
		}
		if _, ok := s.x.Req.Fields.Lookup(want.Header); ok {
			continue
		}
		if value, ok := fields.Lookup(want.Header); ok {
			s.sdk.SetAttributes(attribute.String(want.Name, text(value)))
		}
	}
}

// appendOwn appends the attributes that the settings ask for to those that the span has. fields are the request's.
func (t *Tracer) appendOwn(a []attribute.KeyValue, fields exchange.Fields) []attribute.KeyValue {
	known := len(a)
	for i := range t.attributes {
		want := &t.attributes[i]
		switch {
		case want.Header != "":
			if value, ok := fields.Lookup(want.Header); ok {
				a = append(a, attribute.String(want.Name, text(value)))
			}
		case want.Attribute != "":
			for j := range known {
				if string(a[j].Key) == want.Attribute {
					a = append(a, attribute.KeyValue{Key: attribute.Key(want.Name), Value: a[j].Value})
					break
				}
			}
		default:
			a = append(a, attribute.String(want.Name, text(want.Literal)))
		}
	}
	return a
}

// shareBelow is a share from 0 to 1 as a bound of 63-bit numbers.
func shareBelow(share float64) uint64 {
	return uint64(min(max(share, 0), 1) * (1 << 63))
}

// nameOr returns the name that the settings give spans, or the usual one.
func (t *Tracer) nameOr(usual string) string { return cmp.Or(strings.TrimSpace(t.spanName), usual) }
