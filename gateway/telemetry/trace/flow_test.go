package trace

import (
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

func flow() *exchange.Flow {
	return &exchange.Flow{
		Peer:     exchange.Peer{Proto: exchange.TLS, Remote: netip.MustParseAddrPort("192.0.2.7:4711"), TLS: &exchange.TLSInfo{ServerName: "db.example"}},
		Listener: "ns/gw/db", Start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Route: &exchange.RouteRef{Route: "TLSRoute/ns/db", Rule: "0"}, Cluster: "Service/ns/db/5432", Endpoint: "10.0.0.1:5432", Attempts: 2,
		BytesIn: 10, BytesOut: 20,
	}
}

func TestFlowSpan(t *testing.T) {
	s := newSink()
	env := startHTTP(t, s)
	env[envSampler] = "always_on"
	tracer := newTracer(t, env)
	whole, failed := flow(), flow()
	tracer.Flow(whole, 3*time.Millisecond)
	failed.Fault, failed.Peer.Proto, failed.Peer.TLS, failed.Route = exchange.NewFault(exchange.UpstreamReset, nil), exchange.UDP, nil, nil
	tracer.Flow(failed, time.Second)
	_, spans := flush(t, tracer, s)
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	span := spans[0]
	if hex.EncodeToString(span.TraceId) != whole.TraceID || span.Name != "TLS TLSRoute/ns/db" || span.Kind != tracepb.Span_SPAN_KIND_SERVER ||
		span.Status.GetCode() != tracepb.Status_STATUS_CODE_UNSET || span.EndTimeUnixNano-span.StartTimeUnixNano != 3e6 {
		t.Errorf("span %v, in the log %s", span, whole.TraceID)
	}
	want := map[string]any{
		"network.transport": "tcp", "network.protocol.name": "tls", "server.address": "db.example", "client.address": "192.0.2.7",
		"network.peer.address": "192.0.2.7", "network.peer.port": int64(4711), "gatehouse.listener": "ns/gw/db", "gatehouse.route": "TLSRoute/ns/db",
		"gatehouse.rule": "0", "gatehouse.cluster": "Service/ns/db/5432", "gatehouse.endpoint": "10.0.0.1:5432", "gatehouse.attempts": int64(2),
		"gatehouse.bytes_in": int64(10), "gatehouse.bytes_out": int64(20),
	}
	if diff := cmp.Diff(want, attributes(span.Attributes)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if span := spans[1]; span.Name != "UDP" || span.Status.Code != tracepb.Status_STATUS_CODE_ERROR || attributes(span.Attributes)["error.type"] != "upstream_reset" ||
		attributes(span.Attributes)["network.transport"] != "udp" {
		t.Errorf("span %v", span)
	}
}

func TestFlowIsNotRecordedUnlessSampled(t *testing.T) {
	off := newTracer(t, map[string]string{})
	f := flow()
	off.Flow(f, 0)
	s := newSink()
	env := startHTTP(t, s)
	env[envSampler] = "always_off"
	tracer := newTracer(t, env)
	tracer.Flow(f, 0)
	if _, spans := flush(t, tracer, s); len(spans) != 0 || f.TraceID != "" {
		t.Errorf("%d spans, trace %q", len(spans), f.TraceID)
	}
}
