package trace

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	oteltrace "go.opentelemetry.io/otel/trace"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Flow records a flow that is over, when it is sampled, and sets its TraceID. Nothing in its bytes is looked at, so its trace begins and
// ends here.
func (t *Tracer) Flow(f *exchange.Flow, took time.Duration) {
	if t.provider == nil {
		return
	}
	in := incoming{trace: newTraceID()}
	if !t.sampler.sample(&in) {
		return
	}
	f.TraceID = in.trace.String()
	name := f.Peer.Proto.String()
	if f.Route != nil {
		name += " " + text(f.Route.Route)
	}
	ctx := context.WithValue(context.Background(), traceIDKey{}, in.trace)
	_, span := t.sdk.Start(ctx, t.nameOr(name), oteltrace.WithSpanKind(oteltrace.SpanKindServer), oteltrace.WithTimestamp(f.Start))
	span.SetAttributes(t.appendOwn(flowAttributes(f), nil)...)
	if f.Fault != nil {
		span.SetAttributes(semconv.ErrorTypeKey.String(text(string(f.Fault.Kind))))
		if f.Fault.Origin != exchange.SideClient {
			span.SetStatus(codes.Error, text(string(f.Fault.Kind)))
		}
	}
	span.End(oteltrace.WithTimestamp(f.Start.Add(took)))
}

func flowAttributes(f *exchange.Flow) []attribute.KeyValue {
	transport := semconv.NetworkTransportTCP
	if f.Peer.Proto == exchange.UDP {
		transport = semconv.NetworkTransportUDP
	}
	a := append(make([]attribute.KeyValue, 0, 16),
		transport,
		attribute.String("gatehouse.listener", text(f.Listener)),
		attribute.Int64("gatehouse.bytes_in", f.BytesIn),
		attribute.Int64("gatehouse.bytes_out", f.BytesOut),
	)
	if f.Peer.Proto == exchange.TLS {
		a = append(a, semconv.NetworkProtocolName("tls"))
	}
	if name := f.ServerName(); name != "" {
		a = append(a, semconv.ServerAddress(text(name)))
	}
	if remote := f.Peer.Remote; remote.IsValid() {
		address := remote.Addr().Unmap().String()
		a = append(a, semconv.ClientAddress(address), semconv.NetworkPeerAddress(address), semconv.NetworkPeerPort(int(remote.Port())))
	}
	if f.Route != nil {
		a = append(a, attribute.String("gatehouse.route", text(f.Route.Route)), attribute.String("gatehouse.rule", text(f.Route.Rule)))
	}
	if f.Cluster != "" {
		a = append(a,
			attribute.String("gatehouse.cluster", text(f.Cluster)),
			attribute.String("gatehouse.endpoint", text(f.Endpoint)),
			attribute.Int("gatehouse.attempts", f.Attempts))
	}
	return a
}
