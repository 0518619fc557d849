package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"gatehouse.dev/gatehouse/bench/internal/load"
	"gatehouse.dev/gatehouse/bench/internal/peer"
	"gatehouse.dev/gatehouse/bench/internal/report"
)

// scenario is one thing to measure: what the proxies are to do, how they are loaded, and which figure it is about.
type scenario struct {
	name, about string
	// headline is the key of a metric, see report.
	headline string
	// setup is what the proxies are to do. Folders, ports and addresses are filled in for each.
	setup peer.Setup
	// needs are what not every build can do.
	needs []peer.Need
	// variants measure each proxy several times, with changes to its setup. The one named "" is what the others are compared with; nil is that
	// one alone.
	variants []variant
	load     load.Load
}

type variant struct {
	name   string
	change func(*peer.Setup)
}

const (
	megabyte = 1 << 20
	// mostRequests bounds how many different requests a load sends.
	mostRequests = 2000
)

// scenarios are all there are, in the order of the report. To add one, add a value.
func scenarios() []scenario {
	small := []load.Request{{Path: "/b/130"}}
	list := []scenario{
		{
			name: "h1", about: "HTTP/1.1, 64 connections, answers of 130 bytes", headline: report.CPUPerRequest,
			load: load.Closed{Protocol: load.H1, Conns: 64, Requests: small},
		},
		{
			name: "h1tls", about: "HTTP/1.1 over TLS 1.3, 64 connections, answers of 130 bytes", headline: report.CPUPerRequest,
			load: load.Closed{Protocol: load.H1TLS, Conns: 64, Requests: small},
		},
		{
			name: "h2", about: "HTTP/2 over TLS 1.3, 16 connections with 10 streams each, answers of 130 bytes", headline: report.CPUPerRequest,
			load: load.Closed{Protocol: load.H2, Conns: 16, Streams: 10, Requests: small},
		},
		{
			name: "h3", about: "HTTP/3, 16 connections with 10 streams each, answers of 130 bytes", headline: report.CPUPerRequest,
			setup: peer.Setup{H3: true}, needs: []peer.Need{peer.NeedH3},
			load: load.Closed{Protocol: load.H3, Conns: 16, Streams: 10, Requests: small},
		},
		{
			name: "grpc-unary", about: "gRPC calls with one message of 130 bytes each way, 16 connections with 10 streams each, TLS 1.3; origin without TLS",
			headline: report.CPUPerRequest, setup: peer.Setup{GRPC: true},
			load: load.Closed{Protocol: load.GRPCUnary, Conns: 16, Streams: 10},
		},
		{
			name: "grpc-stream", about: "gRPC messages of 130 bytes to and fro in 16 x 10 calls that stay open, TLS 1.3; a request is one message echoed",
			headline: report.CPUPerRequest, setup: peer.Setup{GRPC: true},
			load: load.Closed{Protocol: load.GRPCStream, Conns: 16, Streams: 10},
		},
		{
			name: "websocket", about: "WebSocket messages of 130 bytes to and fro on 64 connections; a request is one message echoed",
			headline: report.CPUPerRequest, setup: peer.Setup{Upgrades: true},
			load: load.Closed{Protocol: load.WebSocket, Conns: 64},
		},
		{
			name: "handshake-full", about: "a TLS 1.3 connection with a full handshake (ECDSA P-256, X25519) for each request", headline: report.CPUPerRequest,
			load: load.Handshakes{Workers: 16},
		},
		{
			name: "handshake-resumed", about: "a TLS 1.3 connection that resumes a session for each request", headline: report.CPUPerRequest,
			load: load.Handshakes{Workers: 16, Resumed: true},
		},
	}
	list = append(list, bodies()...)
	list = append(list, routes()...)
	return append(list,
		scenario{
			name: "features", about: "h1 with access log, metrics and 1 % tracing, beside the same without (bare)", headline: report.CPUPerRequest,
			variants: []variant{{}, {"all on", func(s *peer.Setup) { s.Features = true }}},
			load:     load.Closed{Protocol: load.H1, Conns: 64, Requests: small},
		},
		scenario{
			name: "idle-plain", about: "10,000 HTTP/1.1 connections that had one request each and stay open", headline: report.PerConnection,
			load: load.Idle{Conns: 10_000},
		},
		scenario{
			name: "idle-tls", about: "10,000 TLS 1.3 connections that had one request each and stay open", headline: report.PerConnection,
			load: load.Idle{Conns: 10_000, TLS: true},
		},
		scenario{
			name: "openloop", about: "HTTP/1.1 at a constant rate of half of the proxy's own limit, 100 connections; latency from when a request was due",
			headline: report.P999,
			load:     load.Open{Protocol: load.H1, Conns: 100, Requests: small, Share: 0.5},
		},
		scenario{
			name: "openloop-h2", about: "the same over HTTP/2 and TLS 1.3, 10 connections with 10 streams each", headline: report.P999,
			load: load.Open{Protocol: load.H2, Conns: 10, Streams: 10, Requests: small, Share: 0.5},
		},
		scenario{
			name: "reload", about: "1,000 routes, 2,000 requests/s, and one route changed again and again, 200 ms after the last change; latency from when a request was due",
			headline: report.P99,
			setup:    peer.Setup{Routes: 1000, Reloads: true},
			load: load.Open{Protocol: load.H1, Conns: 50, Requests: routeRequests(1000), Fixed: 2000,
				Changes: 200 * time.Millisecond, Changed: firstRoute() + "/version"},
		},
	)
}

// bodies are large bodies: two sizes, both ways, without and with TLS.
func bodies() []scenario {
	var list []scenario
	for _, size := range []struct {
		name  string
		bytes int64
		conns int
	}{{"1m", megabyte, 16}, {"100m", 100 * megabyte, 4}} {
		for _, up := range []bool{false, true} {
			for _, secure := range []bool{false, true} {
				request, way := load.Request{Path: fmt.Sprintf("/b/%d", size.bytes)}, "down"
				if up {
					request, way = load.Request{Path: "/upload", Upload: size.bytes}, "up"
				}
				protocol, name, with := load.H1, "body-"+size.name+"-"+way, "HTTP/1.1"
				if secure {
					protocol, name, with = load.H1TLS, name+"-tls", "HTTP/1.1 over TLS 1.3"
				}
				list = append(list, scenario{
					name: name, about: fmt.Sprintf("bodies of %d MiB %s, %s, %d connections", size.bytes/megabyte, way, with, size.conns),
					headline: report.BytesPerCPU, setup: peer.Setup{LargeBodies: true},
					load: load.Transfer{Protocol: protocol, Conns: size.conns, Requests: []load.Request{request}},
				})
			}
		}
	}
	return list
}

// routes are tables of many routes.
func routes() []scenario {
	var list []scenario
	for _, n := range []int{10, 100, 1000, 10_000, 50_000} {
		list = append(list, scenario{
			name: fmt.Sprintf("routes-%d", n), about: fmt.Sprintf("HTTP/1.1, 64 connections, %d routes by path and a field, with a rewrite; all in use", n),
			headline: report.CPUPerRequest, setup: peer.Setup{Routes: n},
			load: load.Closed{Protocol: load.H1, Conns: 64, Requests: routeRequests(n)},
		})
	}
	return list
}

// routeRequests takes routes from all over a table of n, in an order that is not the table's, beginning with the first route.
func routeRequests(n int) []load.Request {
	list := make([]load.Request, min(n, mostRequests))
	for i := range list {
		prefix, tenant := peer.Route(i * 7919 % n) // a prime: every route comes before any comes again
		list[i] = load.Request{Path: prefix + "/b/130", Header: "X-Tenant: " + tenant}
	}
	return list
}

func firstRoute() string {
	prefix, _ := peer.Route(0)
	return prefix
}

// choose picks scenarios by names and patterns, in the order of all.
func choose(all []scenario, names string) ([]scenario, error) {
	picked := make([]bool, len(all))
	for pattern := range strings.SplitSeq(names, ",") {
		found := false
		for i, s := range all {
			ok, err := path.Match(strings.TrimSpace(pattern), s.name)
			if err != nil {
				return nil, fmt.Errorf("scenario %q: %w", pattern, err)
			}
			picked[i] = picked[i] || ok
			found = found || ok
		}
		if !found {
			return nil, fmt.Errorf("no scenario is named %q: -list names them", pattern)
		}
	}
	i := -1
	return slices.DeleteFunc(slices.Clone(all), func(scenario) bool { i++; return !picked[i] }), nil
}
