package accesslog

import (
	"io"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

func typical() *exchange.Exchange {
	x := request("/cart/items?token=secret")
	x.Route, x.Cluster, x.Endpoint = &exchange.RouteRef{Route: "HTTPRoute/a/shop", Rule: "0"}, "Service/a/cart/80", "10.0.0.1:8080"
	x.TraceID, x.Attempts, x.BytesOut = "4bf92f3577b34da6a3ce929d0e0e4736", 1, 130
	x.Start = time.Now()
	x.Req.Fields.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36")
	x.Req.Fields.Set("X-Request-Id", "0b1f6a52-6c1c-4f0e-a6ad-0f2a1d3c5b7e")
	return x
}

// BenchmarkEncode is the writer goroutine's cost of a line.
func BenchmarkEncode(b *testing.B) {
	escaped := typical()
	escaped.Req.Fields.Set("User-Agent", "Mozilla/5.0 (\"quoted\"; Linux) Gr\u00fc\u00dfe \x1b[31m")
	for name, x := range map[string]*exchange.Exchange{"plain": typical(), "escaped": escaped} {
		b.Run(name, func(b *testing.B) {
			l := open(b, Options{Writer: io.Discard})
			closeLog(b, l)
			one := &l.batches[0]
			one.add(x, &Entry{Took: time.Millisecond, Authority: "shop.example"}, "", false)
			b.ReportAllocs()
			for b.Loop() {
				l.cursors[0].reset(one)
				l.encode(&l.cursors[0])
				l.flush()
			}
		})
	}
}

// BenchmarkRecord is an exchange's cost of a line, on one processor and on all of them at once. The writer is ended, and what is recorded
// thrown away, so that nothing else is counted.
func BenchmarkRecord(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		l, r := recorders(b)
		for i := 0; b.Loop(); i++ {
			r.record(l, i)
		}
	})
	b.Run("all", func(b *testing.B) {
		l, _ := recorders(b)
		b.RunParallel(func(pb *testing.PB) {
			r := newRecorder(l)
			for i := 0; pb.Next(); i++ {
				r.record(l, i)
			}
		})
	})
}

func recorders(b *testing.B) (*Log, *recorder) {
	l := open(b, Options{Writer: io.Discard, Buffer: 64 << 20})
	closeLog(b, l)
	for i := range l.shards {
		l.shards[i].closed = false
	}
	b.ReportAllocs()
	b.Cleanup(func() {
		if full := l.Stats().Full; full > 0 {
			b.Errorf("%d lines dropped", full)
		}
	})
	return l, newRecorder(l)
}

type recorder struct {
	x       *exchange.Exchange
	batches []batch
}

func newRecorder(l *Log) *recorder { return &recorder{typical(), make([]batch, len(l.shards))} }

// record records, and now and then does with the shards what the writer does, without writing.
func (r *recorder) record(l *Log, i int) {
	if i%1000 == 0 {
		for j := range l.shards {
			r.batches[j] = l.shards[j].take(r.batches[j], false)
			r.batches[j].reset()
		}
	}
	l.Record(r.x, &Entry{Took: time.Millisecond, Authority: "shop.example"})
}
