package gateway_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/routing"
)

// The benchmarks below take a request over real sockets through the whole gateway and back. Client and origin are in the same process and
// allocate nothing themselves, so that allocs/op is the gateway's.

const (
	benchRequest = "GET /app/1?x=y HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
	benchBody    = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
)

// origin answers every request with benchBody.
func origin(tb testing.TB) netip.AddrPort {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(len(benchBody)) + "\r\n\r\n" + benchBody)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 4096)
				for {
					n, err := conn.Read(buffer)
					if err != nil || !bytes.HasSuffix(buffer[:n], []byte("\r\n\r\n")) {
						return
					}
					if _, err := conn.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// proxy starts an Engine in front of an origin and returns its address.
func proxy(tb testing.TB, backend netip.AddrPort, o gateway.Options) string {
	tb.Helper()
	set, err := filters.NewSet()
	if err != nil {
		tb.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	at := free.Addr().(*net.TCPAddr).AddrPort()
	if err := free.Close(); err != nil {
		tb.Fatal(err)
	}
	o.Filters = set
	e, err := gateway.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = e.Shutdown(ctx)
	})
	cfg := &config.Config{
		Clusters: []*config.Cluster{{Name: "Service/ns/s/80", Protocol: config.UpstreamHTTP1, Endpoints: []netip.AddrPort{backend}}},
		Listeners: []*config.Listener{{
			Name: "ns/gw/http", Port: at.Port(), Addresses: []netip.Addr{at.Addr()}, Protocol: config.HTTP,
			Routes: []*config.Route{{
				Origin: config.Origin{Kind: "HTTPRoute", Namespace: "ns", Name: "r"},
				Rules: []*config.Rule{{
					Name: "0", Matches: []routing.Match{{Path: "/app"}}, Backends: []config.Backend{{Cluster: "Service/ns/s/80", Weight: 1}},
				}},
			}},
		}},
	}
	if _, err := e.Apply(tb.Context(), cfg); err != nil {
		tb.Fatal(err)
	}
	return at.String()
}

func BenchmarkProxyHTTP1(b *testing.B) {
	tests := map[string]func() (*telemetry.Telemetry, error){
		"bare": func() (*telemetry.Telemetry, error) { return telemetry.New(context.Background(), telemetry.Options{}) },
		"log": func() (*telemetry.Telemetry, error) {
			return telemetry.New(context.Background(), telemetry.Options{AccessLogWriter: io.Discard})
		},
	}
	for name, make := range tests {
		b.Run(name, func(b *testing.B) {
			seen, err := make()
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = seen.Shutdown(context.Background()) }()
			benchmarkHTTP1(b, proxy(b, origin(b), gateway.Options{Telemetry: seen}))
		})
	}
}

func benchmarkHTTP1(b *testing.B, address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request, buffer := []byte(benchRequest), make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		n := 0
		for !bytes.HasSuffix(buffer[:n], []byte(benchBody)) {
			m, err := conn.Read(buffer[n:])
			if err != nil {
				b.Fatalf("after %q: %v", buffer[:n], err)
			}
			n += m
		}
	}
}
