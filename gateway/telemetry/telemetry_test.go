package telemetry

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

func newTelemetry(t testing.TB, o Options) *Telemetry {
	t.Helper()
	clearEnv(t)
	tel, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

// clearEnv keeps the variables of whoever runs the test out of it.
func clearEnv(t testing.TB) {
	for _, name := range []string{"OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
		"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_PROPAGATORS"} {
		t.Setenv(name, "")
	}
}

func request() *exchange.Exchange {
	x := &exchange.Exchange{
		Start: time.Now(),
		Req:   exchange.Head{Method: "GET", Scheme: "http", Authority: "shop.example", Target: "/cart/items?token=secret"},
		Peer:  exchange.Peer{Bind: "*:80", Proto: exchange.HTTP11, Remote: netip.MustParseAddrPort("192.0.2.7:4711")},
	}
	x.Req.Fields.Add("Host", "shop.example")
	x.Req.Fields.Add("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36")
	x.Req.Fields.Add("X-Request-Id", "0b1f6a52-6c1c-4f0e-a6ad-0f2a1d3c5b7e")
	x.Req.Fields.Add("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
	return x
}

func scrape(t testing.TB, tel *Telemetry) string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantSamples(t testing.TB, tel *Telemetry, lines ...string) {
	t.Helper()
	got := scrape(t, tel)
	for _, line := range lines {
		if !strings.Contains(got, line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			t.Errorf("no sample %s; there is\n%s", line, grep(got, name))
		}
	}
}

func grep(text, part string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestOneExchange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	tel := newTelemetry(t, Options{AccessLog: path, TracesFromEnv: true})
	ref := &exchange.RouteRef{Route: "HTTPRoute/a/shop", Rule: "0"}
	h := tel.Handles(ref, "Service/a/cart/80")

	x := request()
	_, span := tel.Begin(t.Context(), x)
	span.Routed(h)
	wantSamples(t, tel, `gatehouse_downstream_requests_active{bind="*:80",protocol="HTTP/1.1"} 1`,
		`gatehouse_requests_active{cluster="Service/a/cart/80",route="HTTPRoute/a/shop"} 1`)
	x.Req.Authority = "rewritten" // as a filter may
	span.Inject(&x.Req.Fields)
	x.Route, x.Cluster, x.Attempts, x.Resp.Status, x.BytesOut = ref, "Service/a/cart/80", 1, 503, 7
	x.Fault = exchange.NewFault(exchange.NoEndpoints, nil)
	tel.End(x, h, &span)
	wantSamples(t, tel,
		`gatehouse_requests_total{cluster="Service/a/cart/80",code_class="5xx",route="HTTPRoute/a/shop",rule="0"} 1`,
		`gatehouse_request_duration_seconds_count{cluster="Service/a/cart/80",route="HTTPRoute/a/shop"} 1`,
		`gatehouse_faults_total{kind="no_endpoints"} 1`,
		`gatehouse_downstream_requests_active{bind="*:80",protocol="HTTP/1.1"} 0`,
		`gatehouse_requests_active{cluster="Service/a/cart/80",route="HTTPRoute/a/shop"} 0`)

	if err := tel.ReopenAccessLog(); err != nil {
		t.Error(err)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal(data, &line); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	for key, want := range map[string]any{
		"authority": "shop.example", "path": "/cart/items", "flag": "no_endpoints", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
		"route": "HTTPRoute/a/shop", "status": 503.0, "bytes_out": 7.0, "client": "192.0.2.7:4711",
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
	if bytes.Contains(data, []byte("secret")) {
		t.Error("the log shows the query")
	}
	wantSamples(t, tel, `gatehouse_access_log_lines_total 1`)
}

// blocked is a sink that takes nothing until it is let go.
type blocked struct{ entered, release chan struct{} }

func (b *blocked) Write(p []byte) (int, error) {
	select {
	case b.entered <- struct{}{}:
	default:
	}
	<-b.release
	return len(p), nil
}

func TestEndDoesNotWaitForTheLog(t *testing.T) {
	sink := &blocked{entered: make(chan struct{}, 1), release: make(chan struct{})}
	tel := newTelemetry(t, Options{AccessLogWriter: sink, AccessLogBuffer: 1})
	end := func() {
		x := request()
		_, span := tel.Begin(t.Context(), x)
		tel.End(x, nil, &span)
	}
	end()
	<-sink.entered // the writer is stuck from here on
	const tries = 2000
	for range tries {
		end()
	}
	dropped := grep(scrape(t, tel), `gatehouse_access_log_dropped_total{reason="full"}`)
	if dropped == "" || strings.HasSuffix(dropped, " 0\n") {
		t.Errorf("dropped: %q", dropped)
	}
	wantSamples(t, tel, `gatehouse_requests_total{cluster="-",code_class="-",route="-",rule="-"} 2001`)
	close(sink.release)
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHooks(t *testing.T) {
	tel := newTelemetry(t, Options{Version: "v9"})
	tel.DownstreamConnections("*:443", exchange.HTTP3, 1)
	tel.UpstreamConnections("c", 1)
	tel.Cluster("c").Begin()
	tel.ConfigApplied("abc", time.Now(), time.Second)
	tel.ConfigRejected()
	tel.SetProblems(map[string]int{"Duplicate": 1})
	wantSamples(t, tel,
		`gatehouse_downstream_connections{bind="*:443",protocol="HTTP/3"} 1`,
		`gatehouse_upstream_connections{cluster="c"} 1`,
		`gatehouse_upstream_requests_active{cluster="c"} 1`,
		`gatehouse_config_info{version="abc"} 1`,
		`gatehouse_config_applies_total{result="failure"} 1`,
		`gatehouse_problems{reason="Duplicate"} 1`)
	got := scrape(t, tel)
	for _, name := range []string{"go_goroutines ", "process_open_fds "} {
		if !strings.Contains(got, "\n"+name) {
			t.Errorf("no %s", name)
		}
	}
	tel.RemoveBind("*:443")
	h := tel.Handles(&exchange.RouteRef{Route: "r", Rule: "0"}, "c")
	h.Observe(200, 0, 0, 0)
	tel.Sweep(slices.Values([]*Handles{}))
	if got := scrape(t, tel); strings.Contains(got, `route="r"`) || strings.Contains(got, "*:443") {
		t.Error("series remain")
	}
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	if _, err := New(t.Context(), Options{AccessLog: filepath.Join(t.TempDir(), "no", "such")}); err == nil {
		t.Error("a log in a missing directory was opened")
	}
	clearEnv(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")
	if _, err := New(t.Context(), Options{TracesFromEnv: true}); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_ENDPOINT") {
		t.Errorf("error %v", err)
	}
	if tel, err := New(t.Context(), Options{}); err != nil || tel.tracer.On() {
		t.Errorf("without TracesFromEnv: %v", err)
	}
}

// TestREADMENamesEveryMetric keeps the table whole.
func TestREADMENamesEveryMetric(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	clearEnv(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	tel, err := New(t.Context(), Options{TracesFromEnv: true, AccessLogWriter: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	x := request()
	_, span := tel.Begin(t.Context(), x)
	x.Fault = exchange.NewFault(exchange.NoRoute, nil)
	tel.End(x, nil, &span)
	flows := tel.FlowHandles(exchange.TCP, "l", nil, "")
	flows.Begin()
	tel.EndFlow(&exchange.Flow{Start: time.Now()}, flows, nil)
	tel.DownstreamConnections("*:80", exchange.HTTP11, 1)
	tel.UpstreamConnections("c", 1)
	tel.ConfigApplied("v", time.Now(), 0)
	tel.SetProblems(map[string]int{"Duplicate": 1})
	families := 0
	for line := range strings.Lines(scrape(t, tel)) {
		if rest, ok := strings.CutPrefix(line, "# TYPE gatehouse_"); ok {
			families++
			name, _, _ := strings.Cut(rest, " ")
			if !bytes.Contains(readme, []byte("| `gatehouse_"+name+"` |")) {
				t.Errorf("README.md does not name gatehouse_%s", name)
			}
		}
	}
	if rows := bytes.Count(readme, []byte("\n| `gatehouse_")); rows != families {
		t.Errorf("README.md names %d metrics, there are %d", rows, families)
	}
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestUnsampledExchangesDoNotAllocate has everything on. Every buffer is used again, so that what is left is the growth of the log's.
func TestUnsampledExchangesDoNotAllocate(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	tests := map[string]struct {
		off    bool // tracing
		fields exchange.Fields
		want   string // trace id, "" for a new one
	}{
		"off":               {off: true},
		"off, in a trace":   {off: true, fields: fields("traceparent", "00-"+trace+"-"+parent+"-01"), want: trace},
		"off, 64-bit trace": {off: true, fields: fields("b3", parent+"-"+parent+"-1"), want: "0000000000000000" + parent},
		"begins a trace":    {},
		"in a trace":        {fields: fields("traceparent", "00-"+trace+"-"+parent+"-00", "tracestate", "a=b"), want: trace},
		"malformed":         {fields: fields("traceparent", "00-", "tracestate", "a=b")},
		"b3":                {fields: fields("b3", trace+"-"+parent+"-0"), want: trace},
		"b3, several": {fields: fields("x-b3-traceid", trace, "x-b3-spanid", parent, "x-b3-parentspanid", parent, "x-b3-sampled", "0"),
			want: trace},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			clearEnv(t)
			if !tt.off {
				t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
				t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
			}
			tel, err := New(t.Context(), Options{TracesFromEnv: true, AccessLogWriter: io.Discard})
			if err != nil {
				t.Fatal(err)
			}
			h, x := tel.Handles(&exchange.RouteRef{Route: "r", Rule: "0"}, "c"), request()
			came := append(x.Req.Fields[:3:3], tt.fields...)
			upstream := make(exchange.Fields, 0, 16)
			ctx, id := t.Context(), ""
			allocs := testing.AllocsPerRun(1000, func() {
				x.Reset()
				x.Start, x.Req.Method, x.Req.Target = time.Now(), "GET", "/cart"
				x.Req.Fields = append(x.Req.Fields, came...)
				got, span := tel.Begin(ctx, x)
				span.Routed(h)
				upstream = append(upstream[:0], x.Req.Fields...)
				span.Inject(&upstream)
				span.Inject(&upstream) // a retry
				if id = x.TraceID; got != ctx || tt.want != "" && id != tt.want {
					t.Errorf("trace id %q, want %q; another context: %t", id, tt.want, got != ctx)
				}
				tel.End(x, h, &span)
			})
			if allocs != 0 {
				t.Errorf("%v allocations", allocs)
			}
			if tt.want == "" && (len(id) != 32) != tt.off {
				t.Errorf("trace id %q", id)
			}
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func fields(pairs ...string) (f exchange.Fields) {
	for i := 0; i < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f
}
