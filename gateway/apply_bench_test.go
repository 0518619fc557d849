package gateway_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/routing"
)

// routes makes a configuration of n routes, each with a host, a path and a cluster of its own.
func routes(n int) *config.Config {
	listener := &config.Listener{Name: "ns/gw/http", Port: 80, Protocol: config.HTTP}
	cfg := &config.Config{Listeners: []*config.Listener{listener}}
	for i := range n {
		name := fmt.Sprintf("Service/ns/s%d/80", i)
		cfg.Clusters = append(cfg.Clusters, &config.Cluster{
			Name: name, Protocol: config.UpstreamHTTP1, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")},
		})
		listener.Routes = append(listener.Routes, route(i, name))
	}
	return cfg
}

func route(i int, cluster string) *config.Route {
	return &config.Route{
		Origin:    config.Origin{Kind: "HTTPRoute", Namespace: "ns", Name: fmt.Sprintf("r%d", i)},
		Hostnames: []string{fmt.Sprintf("h%d.example.com", i)},
		Rules: []*config.Rule{{
			Name:     "0",
			Matches:  []routing.Match{{Path: fmt.Sprintf("/app/%d", i)}},
			Backends: []config.Backend{{Cluster: cluster, Weight: 1}},
		}},
	}
}

// changed returns cfg with one route made anew, as a translator does.
func changed(cfg *config.Config, i int) *config.Config {
	next := *cfg
	listener := *cfg.Listeners[0]
	listener.Routes = slices.Clone(listener.Routes)
	listener.Routes[i] = route(i, cfg.Clusters[(i+1)%len(cfg.Clusters)].Name)
	next.Listeners = []*config.Listener{&listener}
	return &next
}

func detached(b *testing.B) *gateway.Engine {
	b.Helper()
	set, err := filters.NewSet()
	if err != nil {
		b.Fatal(err)
	}
	e, err := gateway.New(gateway.Options{Filters: set, Detached: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Shutdown(context.Background()) })
	return e
}

// BenchmarkApplyOneRoute is a change of one route among many: compile and swap.
func BenchmarkApplyOneRoute(b *testing.B) {
	for _, n := range []int{10, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := detached(b)
			cfg := routes(n)
			if _, err := e.Apply(b.Context(), cfg); err != nil {
				b.Fatal(err)
			}
			i := 0
			for b.Loop() {
				cfg = changed(cfg, i%n)
				i++
				if _, err := e.Apply(b.Context(), cfg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMemoryPerRoute tells what a route costs in memory once applied, its cluster included.
func BenchmarkMemoryPerRoute(b *testing.B) {
	const n = 5000
	for b.Loop() {
		e := detached(b)
		before := heap()
		cfg := routes(n)
		config := heap() - before
		if _, err := e.Apply(b.Context(), cfg); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(config)/n, "config-B/route")
		b.ReportMetric(float64(heap()-before)/n, "B/route")
		runtime.KeepAlive(cfg)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
