package wire_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire"
	"gatehouse.dev/gatehouse/gateway/wire/client"
	"gatehouse.dev/gatehouse/routing"
)

// patience is for a machine that does much else at once.
const patience = time.Minute

// identity is the controller's certificate, that of net/http's test servers.
var identity = sync.OnceValue(func() tls.Certificate {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return s.TLS.Certificates[0]
})

func trust() (*tls.Config, error) {
	leaf, err := x509.ParseCertificate(identity().Certificate[0])
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{RootCAs: pool, ServerName: "example.com"}, nil
}

// controller is a wire.Server on a socket, which counts what it sends.
type controller struct {
	*wire.Server
	grpc    *grpc.Server
	addr    string
	changed chan struct{} // holds one token when something changed
	stop    func()

	mu                         sync.Mutex
	messages, resources, bytes int
}

// tokens of the tests: "ns/a 1" is of proxy 1 of Gateway ns/a.
func authorize(_ context.Context, token string) (string, string, error) {
	var gateway, proxy string
	if _, err := fmt.Sscanf(token, "%s %s", &gateway, &proxy); err != nil {
		return "", "", errors.New("not a token of this test")
	}
	proxy, _, _ = strings.Cut(proxy, ".")
	return gateway, "pods/" + proxy, nil
}

// start runs a controller at an address, "" for any.
func start(t testing.TB, addr string, edit ...func(*wire.ServerOptions)) *controller {
	t.Helper()
	c := &controller{changed: make(chan struct{}, 1)}
	o := wire.ServerOptions{Authorize: authorize, OnChange: func(string) {
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}}
	for _, e := range edit {
		e(&o)
	}
	c.Server = wire.NewServer(o)
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.addr = listener.Addr().String()
	c.grpc = grpc.NewServer(append(wire.GRPCOptions(), grpc.StreamInterceptor(c.intercept),
		grpc.Creds(credentials.NewServerTLSFromCert(new(identity()))))...)
	c.Register(c.grpc)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.grpc.Serve(listener)
	}()
	c.stop = sync.OnceFunc(func() {
		c.Close()
		c.grpc.Stop()
		<-done
	})
	t.Cleanup(c.stop)
	return c
}

// counted counts the messages of a stream.
type counted struct {
	grpc.ServerStream
	c *controller
}

func (c *controller) intercept(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, &counted{s, c})
}

func (s *counted) SendMsg(m any) error {
	r := m.(*discovery.DeltaDiscoveryResponse)
	s.c.mu.Lock()
	s.c.messages++
	s.c.resources += len(r.GetResources()) + len(r.GetRemovedResources())
	s.c.bytes += proto.Size(r)
	s.c.mu.Unlock()
	return s.ServerStream.SendMsg(m)
}

// sent returns what was sent since the last call.
func (c *controller) sent() (messages, resources, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	messages, resources, bytes = c.messages, c.resources, c.bytes
	c.messages, c.resources, c.bytes = 0, 0, 0
	return messages, resources, bytes
}

// until waits for what the server knows of a Gateway's proxies to come true.
func (c *controller) until(t testing.TB, gateway string, condition func([]wire.Proxy) bool) []wire.Proxy {
	t.Helper()
	deadline := time.After(patience)
	for {
		list := c.Proxies(gateway)
		if condition(list) {
			return list
		}
		select {
		case <-c.changed:
		case <-deadline:
			t.Fatalf("the condition did not come true; known of the proxies: %+v", list)
		}
	}
}

func (c *controller) acknowledged(t testing.TB, gateway string, version uint64) {
	t.Helper()
	c.until(t, gateway, func(list []wire.Proxy) bool {
		return len(list) == 1 && list[0].Version == version && list[0].Refused == ""
	})
}

func (c *controller) set(t testing.TB, gateway string, version uint64, cfg *config.Config) {
	t.Helper()
	if err := c.Set(gateway, version, cfg); err != nil {
		t.Fatal(err)
	}
}

// proxy is a client that keeps what it is handed.
type proxy struct {
	configs chan *config.Config // each configuration, in order
	answer  func(*config.Config) (config.Applied, error)
	cancel  context.CancelFunc
	done    chan error
}

func follow(t testing.TB, addr, gateway string, edit ...func(*client.Options, *proxy)) *proxy {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &proxy{configs: make(chan *config.Config, 1000), cancel: cancel, done: make(chan error, 1)}
	p.answer = func(*config.Config) (config.Applied, error) { return config.Applied{}, nil }
	o := client.Options{Address: addr, Gateway: gateway, Proxy: "pods/1", TLS: trust, Token: func() (string, error) { return gateway + " 1", nil }}
	for _, e := range edit {
		e(&o, p)
	}
	go func() {
		p.done <- client.Follow(ctx, o, func(_ context.Context, cfg *config.Config) (config.Applied, error) {
			p.configs <- cfg
			return p.answer(cfg)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-p.done; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow returned %v", err)
		}
	})
	return p
}

// next returns the next configuration.
func (p *proxy) next(t testing.TB) *config.Config {
	t.Helper()
	select {
	case cfg := <-p.configs:
		return cfg
	case <-time.After(patience):
		t.Fatal("no configuration came")
		return nil
	}
}

// none checks that apply was not called.
func (p *proxy) none(t testing.TB) {
	t.Helper()
	if len(p.configs) > 0 {
		t.Error("a configuration was applied that should not have been")
	}
}

// sample makes a configuration of n routes on two listeners, with a cluster for every ten.
func sample(n int) *config.Config {
	secure := &config.Listener{
		Name: "ns/a/https", Gateway: "ns/a", Port: 443, Protocol: config.HTTPS, TLS: &config.ListenerTLS{Certificates: []string{"ns/cert"}},
	}
	plain := &config.Listener{Name: "ns/a/http", Gateway: "ns/a", Port: 80, Protocol: config.HTTP}
	cfg := &config.Config{
		Listeners:    []*config.Listener{plain, secure},
		Certificates: []*config.Certificate{{Name: "ns/cert", Chain: "chain", Key: config.Secret("key")}},
	}
	for i := range (n + 9) / 10 {
		cfg.Clusters = append(cfg.Clusters, cluster(i, 1))
	}
	for i := range n {
		r := route(i, 1)
		plain.Routes = append(plain.Routes, r)
		if i%2 == 0 {
			secure.Routes = append(secure.Routes, r)
		}
	}
	return cfg
}

func clusterName(i int) string { return fmt.Sprintf("Service/ns/service-%05d/80", i) }

func cluster(i int, last byte) *config.Cluster {
	return &config.Cluster{
		Origin: config.Origin{Kind: "Service", Namespace: "ns", Name: fmt.Sprintf("service-%05d", i)}, Name: clusterName(i),
		Protocol: config.UpstreamHTTP1, Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), 80)},
	}
}

func route(i int, generation int64) *config.Route {
	return &config.Route{
		Origin:    config.Origin{Kind: "HTTPRoute", Namespace: "ns", Name: fmt.Sprintf("route-%05d", i), Generation: generation},
		Hostnames: []string{fmt.Sprintf("host-%05d.example.com", i)},
		Rules: []*config.Rule{{
			Name: "0", Matches: []routing.Match{{Path: fmt.Sprintf("/app/%d", i)}},
			Backends: []config.Backend{{Cluster: clusterName(i / 10), Weight: 1}},
		}},
	}
}

// withRoutes returns cfg with other routes on its first listener.
func withRoutes(cfg *config.Config, routes []*config.Route) *config.Config {
	next := *cfg
	next.Listeners = slices.Clone(cfg.Listeners)
	l := *cfg.Listeners[0]
	l.Routes = routes
	next.Listeners[0] = &l
	return &next
}

// withRoute returns cfg with one route of its first listener made anew.
func withRoute(cfg *config.Config, i int, generation int64) *config.Config {
	routes := slices.Clone(cfg.Listeners[0].Routes)
	routes[i] = route(i, generation)
	return withRoutes(cfg, routes)
}
