package trace

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// sink is a trace collector.
type sink struct {
	collector.UnimplementedTraceServiceServer
	got chan *collector.ExportTraceServiceRequest
}

func newSink() *sink { return &sink{got: make(chan *collector.ExportTraceServiceRequest, 16)} }

// Export is OTLP over gRPC.
func (s *sink) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.got <- r
	return &collector.ExportTraceServiceResponse{}, nil
}

// ServeHTTP is OTLP over HTTP with protobuf.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	data, err := io.ReadAll(body)
	var m collector.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(data, &m) != nil {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	s.got <- &m
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func startHTTP(t *testing.T, s *sink) map[string]string {
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return map[string]string{envEndpoint: server.URL}
}

func startGRPC(t *testing.T, s *sink) map[string]string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return map[string]string{envEndpoint: "http://" + listener.Addr().String(), envProtocol: protocolGRPC}
}

func newTracer(t *testing.T, env map[string]string) *Tracer {
	t.Helper()
	setEnv(t, env)
	tracer, err := New(t.Context(), Options{FromEnv: true, Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

func request(f exchange.Fields) *exchange.Exchange {
	return &exchange.Exchange{
		Start: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Req:   exchange.Head{Method: "GET", Scheme: "https", Authority: "Shop.example:8443", Target: "/cart?token=secret", Fields: f},
		Peer:  exchange.Peer{Proto: exchange.HTTP2, Remote: netip.MustParseAddrPort("192.0.2.7:4711")},
		Resp:  exchange.Response{Status: 200},
	}
}

// run takes one exchange through a tracer and returns what the upstream got.
func run(t *testing.T, tracer *Tracer, x *exchange.Exchange) exchange.Fields {
	t.Helper()
	var span Span
	tracer.Begin(t.Context(), x, &span)
	out := x.Req.Fields.Clone()
	span.Inject(&out)
	span.End(x, 3*time.Millisecond, x.Req.Authority)
	return out
}

// flush shuts the tracer down and returns the spans that the sink got.
func flush(t *testing.T, tracer *Tracer, s *sink) (resource map[string]any, spans []*tracepb.Span) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := tracer.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	close(s.got)
	for r := range s.got {
		for _, rs := range r.ResourceSpans {
			resource = attributes(rs.Resource.Attributes)
			for _, ss := range rs.ScopeSpans {
				spans = append(spans, ss.Spans...)
			}
		}
	}
	return resource, spans
}

func attributes(list []*commonpb.KeyValue) map[string]any {
	out := map[string]any{}
	for _, kv := range list {
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			out[kv.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			out[kv.Key] = v.IntValue
		}
	}
	return out
}

func TestSpanReachesTheCollector(t *testing.T) {
	starts := map[string]func(*testing.T, *sink) map[string]string{"http": startHTTP, "grpc": startGRPC}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			s := newSink()
			env := start(t, s)
			env["OTEL_RESOURCE_ATTRIBUTES"] = "service.namespace=edge"
			tracer := newTracer(t, env)
			x := request(fields("traceparent: "+validW3C, "tracestate: vendor=1", "user-agent: curl/8"))
			x.Route = &exchange.RouteRef{Route: "HTTPRoute/a/shop", Rule: "buy"}
			x.Cluster, x.Endpoint, x.Attempts, x.BytesOut = "Service/a/cart/80", "10.0.0.1:8080", 2, 130
			x.Resp.Status, x.Fault = 502, exchange.NewFault(exchange.UpstreamReset, nil)
			upstream := run(t, tracer, x)
			resource, spans := flush(t, tracer, s)
			if len(spans) != 1 {
				t.Fatalf("%d spans", len(spans))
			}
			span := spans[0]
			if hex.EncodeToString(span.TraceId) != traceA || hex.EncodeToString(span.ParentSpanId) != spanA || x.TraceID != traceA {
				t.Errorf("trace %x, parent %x, in the log %s", span.TraceId, span.ParentSpanId, x.TraceID)
			}
			if want := "00-" + traceA + "-" + hex.EncodeToString(span.SpanId) + "-01"; upstream.Get(exchange.Traceparent) != want {
				t.Errorf("the upstream got %s, want %s", upstream.Get(exchange.Traceparent), want)
			}
			if span.Name != "GET HTTPRoute/a/shop" || span.Kind != tracepb.Span_SPAN_KIND_SERVER || span.TraceState != "vendor=1" ||
				span.Status.Code != tracepb.Status_STATUS_CODE_ERROR || span.EndTimeUnixNano-span.StartTimeUnixNano != 3e6 {
				t.Errorf("span %v", span)
			}
			want := map[string]any{
				"http.request.method": "GET", "url.scheme": "https", "url.path": "/cart", "server.address": "shop.example",
				"server.port": int64(8443), "network.protocol.name": "http", "network.protocol.version": "2",
				"client.address": "192.0.2.7", "network.peer.address": "192.0.2.7", "network.peer.port": int64(4711),
				"user_agent.original": "curl/8", "http.response.status_code": int64(502), "http.route": "HTTPRoute/a/shop",
				"gatehouse.rule": "buy", "gatehouse.cluster": "Service/a/cart/80", "gatehouse.endpoint": "10.0.0.1:8080",
				"gatehouse.attempts": int64(2), "error.type": "upstream_reset", "http.request.body.size": int64(0),
				"http.response.body.size": int64(130),
			}
			if diff := cmp.Diff(want, attributes(span.Attributes)); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			if resource["service.name"] != defaultService || resource["service.namespace"] != "edge" || resource["service.version"] != "v1" {
				t.Errorf("resource %v", resource)
			}
			if sent, lost := tracer.Stats(); sent != 1 || lost != 0 {
				t.Errorf("%d sent, %d lost", sent, lost)
			}
		})
	}
}

// TestHostileStringsDoNotCostTheBatch: protobuf refuses a batch for one string that is not UTF-8.
func TestHostileStringsDoNotCostTheBatch(t *testing.T) {
	s := newSink()
	env := startHTTP(t, s)
	env[envSampler], env["OTEL_SERVICE_NAME"] = "always_on", "edge-7"
	tracer := newTracer(t, env)
	x := request(fields("user-agent: \xff\xfe", "tracestate: \xff"))
	x.Req.Method, x.Req.Target, x.Req.Authority = "BR\xffEW", "/"+strings.Repeat("é", maxText), "\xff:99999"
	run(t, tracer, x)
	resource, spans := flush(t, tracer, s)
	if len(spans) != 1 || spans[0].Name != "HTTP" || resource["service.name"] != "edge-7" {
		t.Fatalf("spans %v, resource %v", spans, resource)
	}
	got := attributes(spans[0].Attributes)
	if got["http.request.method"] != otherMethod || got["http.request.method_original"] != "BR\uFFFDEW" || got["server.port"] != nil {
		t.Errorf("attributes %v", got)
	}
	if hex.EncodeToString(spans[0].TraceId) != x.TraceID || len(spans[0].ParentSpanId) != 0 {
		t.Errorf("trace %x, in the log %s, parent %x", spans[0].TraceId, x.TraceID, spans[0].ParentSpanId)
	}
}

func TestSampling(t *testing.T) {
	tests := map[string]struct {
		sampler string
		in      exchange.Fields
		want    int
	}{
		"parent says yes":               {"parentbased_always_off", fields("traceparent: " + validW3C), 1},
		"parent says no":                {"parentbased_always_on", fields("traceparent: 00-" + traceA + "-" + spanA + "-00"), 0},
		"parent leaves it open":         {"parentbased_always_on", fields("b3: " + traceB + "-" + spanB), 1},
		"b3 debug":                      {"parentbased_always_off", fields("b3: " + traceB + "-" + spanB + "-d"), 1},
		"b3 decision without ids":       {"parentbased_always_on", fields("b3: 0"), 0},
		"b3 yes without ids":            {"parentbased_always_off", fields("x-b3-sampled: 1"), 1},
		"no parent":                     {"parentbased_always_off", nil, 0},
		"malformed":                     {"parentbased_always_off", fields("traceparent: 00-1-1-01"), 0},
		"parent is not asked":           {"always_off", fields("traceparent: " + validW3C), 0},
		"parent is not asked, debug":    {"always_off", fields("b3: " + traceB + "-" + spanB + "-d"), 0},
		"parent is not asked, says yes": {"always_on", fields("traceparent: 00-" + traceA + "-" + spanA + "-00"), 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSink()
			env := startHTTP(t, s)
			env[envSampler] = tt.sampler
			tracer := newTracer(t, env)
			x := request(tt.in)
			upstream := run(t, tracer, x)
			_, spans := flush(t, tracer, s)
			if len(spans) != tt.want {
				t.Fatalf("%d spans, want %d", len(spans), tt.want)
			}
			in, out := defaultPropagation().extract(tt.in), propagation{read: formatW3C}.extract(upstream)
			if in.trace.IsValid() && in.trace != out.trace || !out.trace.IsValid() || out.traceID(x) != x.TraceID || out.span == in.span {
				t.Errorf("in %v, out %v, log %s", in.trace, out.trace, x.TraceID)
			}
			if sampled := out.flags&flagSampled != 0; sampled != (tt.want == 1) {
				t.Errorf("the upstream was told sampled=%t", sampled)
			}
			if b3 := upstream.Get(exchange.B3); strings.HasSuffix(b3, "-d") && tt.want == 0 {
				t.Errorf("the upstream was told b3 %s", b3)
			}
			if len(spans) == 1 {
				if got := hex.EncodeToString(spans[0].SpanId); got != out.spanText {
					t.Errorf("the upstream's parent is %s, the span %s", out.spanText, got)
				}
				if got := hex.EncodeToString(spans[0].ParentSpanId); got != in.spanText {
					t.Errorf("parent %q, want %q", got, in.spanText)
				}
			}
		})
	}
}

func TestDefaultRatio(t *testing.T) {
	setEnv(t, nil)
	s := readSampler(slog.New(slog.DiscardHandler))
	const draws = 100_000
	sampled := 0
	for range draws {
		if s.sample(&incoming{trace: newTraceID()}) {
			sampled++
		}
	}
	if sampled < draws/200 || sampled > draws/50 {
		t.Errorf("%d of %d sampled, want about 1 %%", sampled, draws)
	}
}

// TestSamplerAgreesWithTheSDK: two hops with one share must record the same traces.
func TestSamplerAgreesWithTheSDK(t *testing.T) {
	for _, share := range []float64{0, 1e-9, 0.01, 0.5, 0.999, 1} {
		ours, theirs := newSampler(false, share), sdktrace.TraceIDRatioBased(share)
		for range 10_000 {
			id := newTraceID()
			want := theirs.ShouldSample(sdktrace.SamplingParameters{TraceID: id}).Decision == sdktrace.RecordAndSample
			if got := ours.sample(&incoming{trace: id}); got != want {
				t.Fatalf("share %v, trace %v: %t, want %t", share, id, got, want)
			}
		}
	}
}

func TestOffPassesFieldsAndKeepsTheID(t *testing.T) {
	setEnv(t, nil)
	tracer, err := New(t.Context(), Options{FromEnv: true})
	if err != nil {
		t.Fatal(err)
	}
	in := fields("traceparent: "+validW3C, "tracestate: a=b", "b3: "+traceB+"-"+spanB)
	x := request(in)
	want := in.Clone()
	if diff := cmp.Diff(want, run(t, tracer, x)); diff != "" {
		t.Errorf("fields changed:\n%s", diff)
	}
	if x.TraceID != traceA || tracer.On() {
		t.Errorf("trace id %q, on %t", x.TraceID, tracer.On())
	}
	allocs := testing.AllocsPerRun(100, func() {
		var span Span
		tracer.Begin(context.Background(), x, &span)
		span.Inject(&x.Req.Fields)
		span.End(x, 0, "")
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if err := tracer.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDeadCollector: requests do not notice, the loss is counted and logged, and Shutdown ends with its context.
func TestDeadCollector(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "go away", http.StatusForbidden)
	}))
	defer server.Close()
	setEnv(t, map[string]string{envEndpoint: server.URL, envSampler: "always_on"})
	var messages bytes.Buffer
	tracer, err := New(t.Context(), Options{FromEnv: true, Logger: slog.New(slog.NewTextHandler(&messages, nil))})
	if err != nil {
		t.Fatal(err)
	}
	run(t, tracer, request(nil))
	if err := tracer.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if sent, lost := tracer.Stats(); sent != 0 || lost != 1 || !strings.Contains(messages.String(), "spans could not be sent") {
		t.Errorf("%d sent, %d lost, messages %q", sent, lost, &messages)
	}

	// A collector that does not answer.
	release := make(chan struct{})
	asked := make(chan struct{}, 1)
	stuck := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-release
	}))
	defer stuck.Close()
	defer close(release)
	tracer = newTracer(t, map[string]string{envEndpoint: stuck.URL, envSampler: "always_on"})
	run(t, tracer, request(nil))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if err := tracer.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: %v", err)
	}
}
