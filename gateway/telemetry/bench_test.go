//go:build unix

package telemetry

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// modes are what a benchmark switches on. The metrics always count.
var modes = []struct {
	name    string
	off     bool   // no telemetry at all: what the benchmark's own loop costs
	log     bool   // the access log too
	sampler string // "" means that tracing is off
	parent  bool   // the client sends a trace context that is not sampled
}{
	{name: "nothing", off: true},
	{name: "metrics"},
	{name: "metrics, parent", parent: true},
	{name: "unsampled", sampler: "always_off"},
	{name: "unsampled parent", sampler: "parentbased_always_off", parent: true},
	{name: "1 % sampled", sampler: "parentbased_traceidratio"},
	{name: "log", log: true},
	{name: "log, unsampled", log: true, sampler: "always_off"},
	{name: "log, 1 % sampled", log: true, sampler: "parentbased_traceidratio"},
}

// load takes exchanges through Telemetry as the Engine does, with one Exchange that is used again, as a connection does.
type load struct {
	telemetry *Telemetry
	ref       *exchange.RouteRef
	handles   *Handles
	x         *exchange.Exchange
	parent    bool
}

func newLoad(b *testing.B, mode int) *load {
	m := &modes[mode]
	l := &load{ref: &exchange.RouteRef{Route: "HTTPRoute/a/shop", Rule: "0"}, parent: m.parent, x: &exchange.Exchange{
		Peer: exchange.Peer{Bind: "*:80", Proto: exchange.HTTP11, Remote: netip.MustParseAddrPort("192.0.2.7:4711")},
	}}
	if m.off {
		return l
	}
	clearEnv(b)
	if m.sampler != "" {
		collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
		b.Cleanup(collector.Close)
		b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
		b.Setenv("OTEL_TRACES_SAMPLER", m.sampler)
		b.Setenv("OTEL_TRACES_SAMPLER_ARG", "0.01")
	}
	options := Options{TracesFromEnv: m.sampler != ""}
	if m.log {
		options.AccessLogWriter = io.Discard
	}
	var err error
	if l.telemetry, err = New(b.Context(), options); err != nil {
		b.Fatal(err)
	}
	l.handles = l.telemetry.Handles(l.ref, "Service/a/cart/80")
	b.Cleanup(func() {
		if err := l.telemetry.Shutdown(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return l
}

// exchange is one request with the fields that a load generator that poses as a browser sends.
func (l *load) exchange(start time.Time) {
	const agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
	x := l.x
	x.Reset()
	x.Start = start
	x.Req.Method, x.Req.Scheme, x.Req.Authority, x.Req.Target = "GET", "http", "shop.example", "/cart/items?token=secret"
	x.Req.Fields = append(x.Req.Fields,
		exchange.Field{Name: "Host", Value: "shop.example", ID: exchange.Host},
		exchange.Field{Name: "User-Agent", Value: agent, ID: exchange.UserAgent},
		exchange.Field{Name: "Accept", Value: "*/*"},
		exchange.Field{Name: "Accept-Encoding", Value: "gzip, br", ID: exchange.AcceptEncoding},
		exchange.Field{Name: "Cookie", Value: "session=7", ID: exchange.Cookie},
		exchange.Field{Name: "X-Request-Id", Value: "0b1f6a52-6c1c-4f0e-a6ad-0f2a1d3c5b7e", ID: exchange.XRequestID},
	)
	if l.parent {
		x.Req.Fields = append(x.Req.Fields,
			exchange.Field{Name: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", ID: exchange.Traceparent})
	}
	var span Span
	if l.telemetry != nil {
		_, span = l.telemetry.Begin(context.Background(), x)
		span.Routed(l.handles)
		span.Inject(&x.Req.Fields)
	}
	x.Route, x.Cluster, x.Endpoint, x.Attempts = l.ref, "Service/a/cart/80", "10.0.0.1:8080", 1
	x.Resp.Status, x.BytesOut = 200, 130
	if l.telemetry != nil {
		l.telemetry.End(x, l.handles, &span)
	}
}

// BenchmarkExchange is what telemetry costs the goroutine that serves the exchange; "nothing" is the loop without it. In a loop without
// pause the access log's writer falls behind: package accesslog has its figures.
func BenchmarkExchange(b *testing.B) {
	for i, mode := range modes {
		if mode.log {
			continue
		}
		b.Run(mode.name, func(b *testing.B) {
			l, start := newLoad(b, i), time.Now()
			b.ReportAllocs()
			for b.Loop() {
				l.exchange(start)
			}
		})
	}
}

// BenchmarkExchangeParallel is the same on every processor at once: all of them write the counters of one route and one socket.
func BenchmarkExchangeParallel(b *testing.B) {
	for i, mode := range modes {
		if mode.log {
			continue
		}
		b.Run(mode.name, func(b *testing.B) {
			first, start := newLoad(b, i), time.Now()
			b.RunParallel(func(pb *testing.PB) {
				l := *first
				l.x = &exchange.Exchange{Peer: first.x.Peer}
				for pb.Next() {
					l.exchange(start)
				}
			})
		})
	}
}

// BenchmarkCPU is what telemetry costs the process, writer and exporter included, at 125,000 exchanges a second: 2,500 in
// each tick of 20 ms. Its figure is cpu-ns/op, and the figure of "nothing" is to be taken off.
func BenchmarkCPU(b *testing.B) {
	const tick, perTick = 20 * time.Millisecond, 2500
	for i, mode := range modes {
		b.Run(mode.name, func(b *testing.B) {
			l := newLoad(b, i)
			ticker := time.NewTicker(tick)
			defer ticker.Stop()
			before, done := cpuTime(b), 0
			for b.Loop() {
				if done%perTick == 0 {
					<-ticker.C
				}
				done++
				l.exchange(time.Now())
			}
			b.ReportMetric(float64(cpuTime(b)-before)/float64(done), "cpu-ns/op")
			b.ReportMetric(0, "ns/op")
			if l.telemetry != nil && l.telemetry.log != nil {
				if s := l.telemetry.log.Stats(); s.Full > 0 {
					b.Errorf("%d lines dropped", s.Full)
				}
			}
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
