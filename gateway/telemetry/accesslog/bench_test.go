package accesslog

import (
	"io"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// BenchmarkEncode is the writer goroutine's cost of a line.
func BenchmarkEncode(b *testing.B) {
	l := open(b, Options{Writer: io.Discard})
	closeLog(b, l)
	x := request("/cart/items?token=secret")
	x.Route, x.Cluster, x.Endpoint = &exchange.RouteRef{Route: "HTTPRoute/a/shop", Rule: "0"}, "Service/a/cart/80", "10.0.0.1:8080"
	x.TraceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	one := &l.batches[0]
	one.add(x, &Entry{Took: time.Millisecond, Authority: "shop.example"}, "", false)
	b.ReportAllocs()
	for b.Loop() {
		l.cursors[0].reset(one)
		l.encode(&l.cursors[0])
		l.flush()
	}
}
