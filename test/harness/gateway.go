package harness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/telemetry"
)

// GatewayOptions are what a test may change about an Engine.
type GatewayOptions struct {
	Limits    downstream.Limits
	DrainTime time.Duration
	Filters   []filters.Spec
	Telemetry *telemetry.Telemetry
}

// Gateway is an Engine under test.
type Gateway struct {
	Engine *gateway.Engine
	t      testing.TB
}

// NewGateway starts an Engine without configuration; it stops when the test ends.
func NewGateway(t testing.TB, opt GatewayOptions) *Gateway {
	t.Helper()
	set, err := filters.NewSet(opt.Filters...)
	if err != nil {
		t.Fatal(err)
	}
	if opt.DrainTime == 0 {
		opt.DrainTime = time.Second
	}
	engine, err := gateway.New(gateway.Options{
		Filters: set, Logger: slog.New(slog.DiscardHandler), Limits: opt.Limits, DrainTime: opt.DrainTime, Telemetry: opt.Telemetry,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), opt.DrainTime)
		defer cancel()
		_ = engine.Shutdown(ctx) // what is cut here was left open by the test on purpose
	})
	return &Gateway{engine, t}
}

// TryApply applies a configuration; the error joins whatever could not be served.
func (g *Gateway) TryApply(cfg *config.Config) error {
	applied, err := g.Engine.Apply(context.Background(), cfg)
	if err != nil {
		return err
	}
	for _, problems := range []map[string]error{applied.Listeners, applied.Clusters} {
		for _, name := range slices.Sorted(maps.Keys(problems)) {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, problems[name]))
		}
	}
	return err
}

// Apply applies a configuration that must serve as a whole.
func (g *Gateway) Apply(cfg *config.Config) {
	g.t.Helper()
	if err := g.TryApply(cfg); err != nil {
		g.t.Fatal(err)
	}
}

// Loopback is where all listeners of the tests are bound.
func Loopback() netip.Addr { return netip.MustParseAddr("127.0.0.1") }

// FreePort returns a port that was free on TCP and UDP a moment ago.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := ln.Addr().(*net.TCPAddr).Port
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		ln.Close()
		if err == nil {
			udp.Close()
			return uint16(port)
		}
	}
	t.Fatal("no port is free on both TCP and UDP")
	return 0
}

// ApplyOnFreePort applies what build makes of a free port. Another process may take the port in between: then another is tried.
func (g *Gateway) ApplyOnFreePort(build func(port uint16) *config.Config) (port uint16, cfg *config.Config) {
	g.t.Helper()
	var err error
	for range 5 {
		port = FreePort(g.t)
		cfg = build(port)
		if err = g.TryApply(cfg); err == nil {
			return port, cfg
		}
	}
	g.t.Fatalf("no configuration could be applied: %v", err)
	return 0, nil
}

// Listener returns a listener for every host that serves these routes.
func Listener(d Down, port uint16, routes ...*config.Route) *config.Listener {
	l := &config.Listener{
		Origin: config.Origin{Kind: "Gateway", Namespace: "test", Name: "gw", Rule: "main"}, Name: "test/gw/main",
		Addresses: []netip.Addr{Loopback()}, Port: port, Protocol: config.HTTP, Routes: routes,
	}
	if d.TLS() {
		l.Protocol = config.HTTPS
		l.TLS = &config.ListenerTLS{Certificates: []string{sharedCertificate().Name}}
	}
	return l
}

// Route returns a route of these rules for every host.
func Route(name string, rules ...*config.Rule) *config.Route {
	return &config.Route{
		Origin: config.Origin{Kind: "HTTPRoute", Namespace: "test", Name: name}, Created: time.Unix(1_700_000_000, 0), Rules: rules,
	}
}

// To returns backends of weight 1 for the clusters.
func To(clusters ...*config.Cluster) []config.Backend {
	var backends []config.Backend
	for _, c := range clusters {
		backends = append(backends, config.Backend{Cluster: c.Name, Weight: 1})
	}
	return backends
}

// Config puts listeners and clusters together with the shared certificate.
func Config(listeners []*config.Listener, clusters ...*config.Cluster) *config.Config {
	return &config.Config{Listeners: listeners, Clusters: clusters, Certificates: []*config.Certificate{sharedCertificate()}}
}

// Env is the usual test bed: one client, one listener, one route, one origin.
type Env struct {
	Combo   Combo
	Client  Client
	Gateway *Gateway
	Origin  *Origin
	Config  *config.Config
	Port    uint16
}

// Address returns the listener's "127.0.0.1:port".
func (e *Env) Address() string { return netip.AddrPortFrom(Loopback(), e.Port).String() }

// NewClient returns another client of the listener.
func (e *Env) NewClient(t testing.TB) Client {
	t.Helper()
	return NewClient(t, e.Combo.Down, ClientOptions{Address: e.Address(), Host: DefaultHost})
}

// EnvOptions are what a test may change about its Env.
type EnvOptions struct {
	GatewayOptions
	// Rule changes the only rule, which leads to the origin.
	Rule func(*config.Rule)
	// Clusters are there beside the origin's, which is called "origin".
	Clusters []*config.Cluster
	// Backend stands in for the origin's cluster when set; no origin is started then.
	Backend *config.Cluster
}

// New starts the usual test bed.
func New(t testing.TB, c Combo, handler http.HandlerFunc, change ...func(*EnvOptions)) *Env {
	t.Helper()
	var opt EnvOptions
	for _, f := range change {
		f(&opt)
	}
	e := &Env{Combo: c}
	backend := opt.Backend
	if backend == nil {
		e.Origin = NewOrigin(t, c.Up, handler)
		backend = e.Origin.Cluster("origin")
	}
	rule := &config.Rule{Name: "0", Backends: To(backend)}
	if opt.Rule != nil {
		opt.Rule(rule)
	}
	e.Gateway = NewGateway(t, opt.GatewayOptions)
	e.Port, e.Config = e.Gateway.ApplyOnFreePort(func(port uint16) *config.Config {
		clusters := append([]*config.Cluster{backend}, opt.Clusters...)
		slices.SortFunc(clusters, func(a, b *config.Cluster) int { return strings.Compare(a.Name, b.Name) })
		return Config([]*config.Listener{Listener(c.Down, port, Route("route", rule))}, clusters...)
	})
	e.Client = e.NewClient(t)
	return e
}

// Address returns "127.0.0.1:port".
func Address(port uint16) string { return netip.AddrPortFrom(Loopback(), port).String() }
