package behaviour

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/test/harness"
)

// delivery is what reached a trace collector at once.
type delivery struct {
	*collector.ExportTraceServiceRequest
	key string // the header field that goes with it
}

type grpcCollector struct {
	collector.UnimplementedTraceServiceServer
	got chan delivery
}

func (c *grpcCollector) Export(ctx context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	c.got <- delivery{r, fmt.Sprint(md.Get("x-key"))}
	return &collector.ExportTraceServiceResponse{}, nil
}

// newCollector starts a trace collector that speaks OTLP/HTTP over HTTP/1.1 and OTLP/gRPC over HTTP/2.
func newCollector(t *testing.T, up harness.Up) (chan delivery, *config.Cluster) {
	t.Helper()
	got := make(chan delivery, 16)
	if up == harness.UpH1 {
		return got, harness.NewOrigin(t, up, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			var m collector.ExportTraceServiceRequest
			if r.Method != "POST" || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(body, &m) != nil {
				w.WriteHeader(400)
				return
			}
			got <- delivery{&m, fmt.Sprint(r.Header.Values("X-Key"))}
		}).Cluster("collector")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var opts []grpc.ServerOption
	if up == harness.UpH2TLS {
		opts = append(opts, grpc.Creds(credentials.NewTLS(harness.OriginTLS())))
	}
	server := grpc.NewServer(opts...)
	collector.RegisterTraceServiceServer(server, &grpcCollector{got: got})
	go server.Serve(ln)
	t.Cleanup(server.Stop)
	return got, harness.Cluster("collector", up, netip.MustParseAddrPort(ln.Addr().String()))
}

func attributes(list []*commonpb.KeyValue) map[string]string {
	out := map[string]string{}
	for _, a := range list {
		value := a.GetValue().GetStringValue()
		if _, isInt := a.GetValue().GetValue().(*commonpb.AnyValue_IntValue); isInt {
			value = fmt.Sprint(a.GetValue().GetIntValue())
		}
		out[a.GetKey()] = value
	}
	return out
}

// TestListenerTracing: a listener's own settings decide which of its exchanges are traced, what the spans say and where they go.
func TestListenerTracing(t *testing.T) {
	for _, up := range harness.Ups() {
		for _, down := range harness.Downs() {
			c := harness.Combo{Down: down, Up: up}
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				listenerTracing(t, c)
			})
		}
	}
}

func listenerTracing(t *testing.T, c harness.Combo) {
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	got, to := newCollector(t, c.Up)
	var seen box[string]
	env := harness.New(t, harness.Combo{Down: c.Down, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
		seen.set(r.Header.Get("Traceparent"))
		w.Header().Set("X-Answer", "yes")
	}, clusters(to))
	apply := func(tracing *config.Tracing) {
		l := *env.Config.Listeners[0]
		l.Tracing = tracing
		env.Gateway.Apply(harness.Config([]*config.Listener{&l}, env.Config.Clusters...))
	}
	send := func(flags string) (traceparent string) {
		t.Helper()
		fields := harness.F("x-user", "alice")
		if flags != "" {
			fields = append(fields, harness.F("traceparent", "00-"+trace+"-"+span+"-"+flags)...)
		}
		harness.MustDo(t, env.Client, harness.Request{Target: "/p?secret", Fields: fields})
		return seen.get()
	}
	all, none := &config.Fraction{Numerator: 1, Denominator: 1}, &config.Fraction{Denominator: 100}

	apply(&config.Tracing{Cluster: to.Name, Sampling: all, ServiceName: "shop-edge", SpanName: "ingress", Headers: []config.Header{{Name: "x-key", Value: "k"}},
		Attributes: []config.TraceAttribute{
			{Name: "team", Literal: "red"}, {Name: "user", Header: "X-User"}, {Name: "answer", Header: "x-answer"}, {Name: "missing", Header: "x-missing"},
			{Name: "code", Attribute: "http.response.status_code"}, {Name: "unknown", Attribute: "no.such"},
		}})
	if tp := send(""); len(tp) != 55 || tp[53:] != "01" && tp[53:] != "03" {
		t.Errorf("a new trace: the endpoint got traceparent %q", tp)
	}
	if tp := send("01"); len(tp) != 55 || tp[3:35] != trace || tp[36:52] == span || tp[53:] != "01" {
		t.Errorf("a sampled trace: the endpoint got traceparent %q", tp)
	}
	if tp := send("00"); len(tp) != 55 || tp[3:35] != trace || tp[53:] != "00" {
		t.Errorf("a trace that its caller did not sample: the endpoint got traceparent %q", tp)
	}
	apply(nil) // what waits is sent
	var first delivery
	select {
	case first = <-got:
	case <-time.After(harness.Patience):
		t.Fatal("no spans came")
	}
	resource := first.GetResourceSpans()[0]
	if service := attributes(resource.GetResource().GetAttributes())["service.name"]; service != "shop-edge" || first.key != "[k]" {
		t.Errorf("service %q, header %s", service, first.key)
	}
	spans := resource.GetScopeSpans()[0].GetSpans()
	if len(spans) != 2 {
		t.Fatalf("%d spans came, want 2", len(spans))
	}
	for _, s := range spans {
		a := attributes(s.GetAttributes())
		if s.GetName() != "ingress" || a["team"] != "red" || a["user"] != "alice" || a["answer"] != "yes" || a["code"] != "200" || a["url.path"] != "/p" {
			t.Errorf("span %s %v", s.GetName(), a)
		}
		for _, key := range []string{"missing", "unknown"} {
			if _, ok := a[key]; ok {
				t.Errorf("attribute %s is there", key)
			}
		}
	}
	if !slices.ContainsFunc(spans, func(s *tracepb.Span) bool { return fmt.Sprintf("%x", s.GetParentSpanId()) == span }) {
		t.Error("no span is the child of the caller's")
	}

	for name, tt := range map[string]struct {
		tracing config.Tracing
		flags   string
		want    string
	}{
		"not sampled":            {config.Tracing{Cluster: to.Name, Sampling: none}, "", "00"},
		"the parent decides":     {config.Tracing{Cluster: to.Name, Sampling: none}, "01", "01"},
		"the parent is ignored":  {config.Tracing{Cluster: to.Name, Sampling: all, IgnoreParent: true}, "00", "01"},
		"and the other way":      {config.Tracing{Cluster: to.Name, Sampling: none, IgnoreParent: true}, "01", "00"},
		"the parent is thinned":  {config.Tracing{Cluster: to.Name, Sampling: all, ParentSampling: none}, "01", "00"},
		"disabled, passed along": {config.Tracing{Disabled: true}, "01", "01"},
	} {
		apply(&tt.tracing)
		tp := send(tt.flags)
		if len(tp) != 55 || tp[54:] != tt.want[1:] && tp[54] != tt.want[1]+2 {
			t.Errorf("%s: the endpoint got traceparent %q, want flags %s", name, tp, tt.want)
		}
		if tt.tracing.Disabled && tp != "00-"+trace+"-"+span+"-01" {
			t.Errorf("%s: the context was changed to %q", name, tp)
		}
	}
}
