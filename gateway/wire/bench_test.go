package wire_test

import (
	"fmt"
	"testing"

	"gatehouse.dev/gatehouse/gateway/wire"
)

// BenchmarkOneRoute is a change of one route among many, from Set to the acknowledgement: both ends and the connection between them.
func BenchmarkOneRoute(b *testing.B) {
	for _, n := range []int{1000, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := start(b, "")
			cfg := sample(n)
			cfg.Listeners = cfg.Listeners[:1]
			c.set(b, "ns/a", 1, cfg)
			p := follow(b, c.addr, "ns/a")
			p.next(b)
			c.acknowledged(b, "ns/a", 1)
			c.sent()
			version := uint64(1)
			for b.Loop() {
				version++
				b.StopTimer()
				cfg = withRoute(cfg, int(version)*7919%n, int64(version))
				b.StartTimer()
				c.set(b, "ns/a", version, cfg)
				p.next(b)
				c.acknowledged(b, "ns/a", version)
			}
			_, _, bytes := c.sent()
			b.ReportMetric(float64(bytes)/float64(b.N), "B-sent/op")
		})
	}
}

// BenchmarkFirst is a new proxy's first configuration of 50,000 routes and 5,000 clusters, from connecting to the acknowledgement.
func BenchmarkFirst(b *testing.B) {
	c := start(b, "")
	cfg := sample(50_000)
	cfg.Listeners = cfg.Listeners[:1]
	c.set(b, "ns/a", 1, cfg)
	for b.Loop() {
		p := follow(b, c.addr, "ns/a")
		p.next(b)
		c.acknowledged(b, "ns/a", 1)
		p.cancel()
		c.until(b, "ns/a", none)
	}
	messages, _, bytes := c.sent()
	b.ReportMetric(float64(bytes)/float64(b.N), "B-sent/op")
	b.ReportMetric(float64(messages)/float64(b.N), "messages/op")
}

// BenchmarkSetAnew is the first Set of 50,000 routes: everything is written as JSON.
func BenchmarkSetAnew(b *testing.B) {
	cfg := sample(50_000)
	cfg.Listeners = cfg.Listeners[:1]
	c := start(b, "")
	for i := 0; b.Loop(); i++ {
		gateway := fmt.Sprintf("ns/%d", i)
		c.set(b, gateway, 1, cfg)
		c.Remove(gateway)
	}
}

// BenchmarkResume is a proxy with 50,000 routes that connects again.
func BenchmarkResume(b *testing.B) {
	c := start(b, "")
	relay := newRelay(b, c.addr)
	cfg := sample(50_000)
	cfg.Listeners = cfg.Listeners[:1]
	c.set(b, "ns/a", 1, cfg)
	p := follow(b, relay.addr, "ns/a")
	p.next(b)
	c.acknowledged(b, "ns/a", 1)
	c.sent()
	for b.Loop() {
		since := c.Proxies("ns/a")[0].Since
		relay.cut()
		c.until(b, "ns/a", func(list []wire.Proxy) bool {
			return len(list) == 1 && list[0].Version == 1 && list[0].Since.After(since)
		})
	}
	_, _, bytes := c.sent()
	b.ReportMetric(float64(bytes)/float64(b.N), "B-sent/op")
	p.none(b)
}

func none(list []wire.Proxy) bool { return len(list) == 0 }
