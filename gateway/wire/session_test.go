package wire_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"gatehouse.dev/gatehouse/gateway/wire"
	"gatehouse.dev/gatehouse/gateway/wire/client"
)

// TestReconnect: after a break, and after a restart of the controller, nothing is sent that the proxy has, and it is known to run it.
func TestReconnect(t *testing.T) {
	first := start(t, "")
	cfg := sample(1000)
	first.set(t, "ns/a", 41, cfg)
	p := follow(t, first.addr, "ns/a")
	check(t, p.next(t), cfg)
	first.acknowledged(t, "ns/a", 41)
	first.stop()

	// The same content, translated anew: other pointers, other version.
	same := start(t, first.addr)
	same.until(t, "ns/a", func(list []wire.Proxy) bool { return len(list) == 1 }) // it waits for the first Set
	if messages, _, _ := same.sent(); messages != 0 {
		t.Errorf("a controller that knows nothing yet sent %d messages", messages)
	}
	same.set(t, "ns/a", 1, sample(1000))
	same.acknowledged(t, "ns/a", 1)
	if messages, resources, bytes := same.sent(); messages != 1 || resources != 0 || bytes > 100 {
		t.Errorf("%d messages, %d resources, %d bytes were sent again", messages, resources, bytes)
	}
	p.none(t)
	same.stop()

	// Other content: the difference alone.
	other := start(t, first.addr)
	next := withRoute(sample(1000), 701, 9)
	next.Clusters = next.Clusters[:99]
	next = withRoutes(next, next.Listeners[0].Routes[:990])
	next.Listeners[1].Routes = next.Listeners[1].Routes[:495]
	other.set(t, "ns/a", 2, next)
	other.acknowledged(t, "ns/a", 2)
	check(t, p.next(t), next)
	if _, resources, bytes := other.sent(); resources < 13 || resources > 18 || bytes > 20000 {
		t.Errorf("%d resources, %d bytes were sent for 13 that differ and some pages", resources, bytes)
	}
	p.none(t)
}

// TestBrokenConnection: a connection that breaks in the middle of a change is made again, and the change is completed.
func TestBrokenConnection(t *testing.T) {
	c := start(t, "")
	relay := newRelay(t, c.addr)
	relay.limit.Store(3 << 20) // some parts of the first change get through
	cfg := sample(20_000)
	c.set(t, "ns/a", 1, cfg)
	p := follow(t, relay.addr, "ns/a")
	<-relay.broke
	relay.limit.Store(1 << 40)
	p.none(t)
	_, before, _ := c.sent()
	c.acknowledged(t, "ns/a", 1)
	check(t, p.next(t), cfg)
	_, after, _ := c.sent()
	// There are some 24,470 resources. The first message arrived whole, with some 5,000 of them.
	if before == 0 || after > 21_000 {
		t.Errorf("%d resources were sent before the break and %d after it", before, after)
	}
}

// relay forwards connections until so many bytes have come from the server; then it cuts them.
type relay struct {
	addr   string
	limit  atomic.Int64
	mu     sync.Mutex
	conns  []net.Conn
	frozen []*atomic.Bool // of each connection: forward nothing more, and close nothing
	broke  chan struct{}
	once   sync.Once
}

func newRelay(t testing.TB, to string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: listener.Addr().String(), broke: make(chan struct{})}
	r.limit.Store(1 << 40)
	var working sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		r.cut()
		working.Wait()
	})
	working.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			frozen := &atomic.Bool{}
			r.mu.Lock()
			r.conns = append(r.conns, in, out)
			r.frozen = append(r.frozen, frozen)
			r.mu.Unlock()
			working.Go(func() { r.copy(in, out, frozen, true) })
			working.Go(func() { r.copy(out, in, frozen, false) })
		}
	})
	return r
}

// cut closes the connections of now.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns, r.frozen = nil, nil
}

// silence lets the connections of now hang.
func (r *relay) silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.frozen {
		f.Store(true)
	}
}

func (r *relay) copy(to, from net.Conn, frozen *atomic.Bool, limited bool) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if frozen.Load() {
			if err != nil {
				return // and the other side learns nothing
			}
			continue
		}
		if limited && r.limit.Add(-int64(n)) < 0 {
			r.once.Do(func() { close(r.broke) })
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			_, err = to.Write(buffer[:n])
		}
		if err != nil {
			to.Close()
			from.Close()
			return
		}
	}
}

// raw opens a stream with a token and sends requests as they are.
type raw struct {
	discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	conn *grpc.ClientConn
}

func dialRaw(t *testing.T, addr string, headers ...string) *raw {
	t.Helper()
	settings, err := trust()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(settings)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), headers...), 2*patience)
	t.Cleanup(cancel)
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &raw{stream, conn}
}

const subscription = "gatehouse.dev/wire.v1.Config"

func firstRequest(edit func(*discovery.DeltaDiscoveryRequest)) *discovery.DeltaDiscoveryRequest {
	r := &discovery.DeltaDiscoveryRequest{TypeUrl: subscription, Node: &core.Node{Cluster: "ns/a"}}
	if edit != nil {
		edit(r)
	}
	return r
}

// TestTokens: nobody gets anything without a token that is accepted.
func TestTokens(t *testing.T) {
	c := start(t, "")
	c.set(t, "ns/a", 1, sample(10))
	expired := jwt(time.Now().Add(-time.Second))
	tests := map[string]struct {
		headers []string
		want    codes.Code
	}{
		"none":         {nil, codes.Unauthenticated},
		"wrong":        {[]string{"authorization", "Bearer wrong"}, codes.Unauthenticated},
		"empty":        {[]string{"authorization", "Bearer "}, codes.Unauthenticated},
		"other scheme": {[]string{"authorization", "Basic ns/a 1"}, codes.Unauthenticated},
		"two":          {[]string{"authorization", "Bearer ns/a 1", "authorization", "Bearer ns/a 1"}, codes.Unauthenticated},
		"expired":      {[]string{"authorization", "Bearer ns/a 1" + expired}, codes.Unauthenticated},
		"good":         {[]string{"authorization", "Bearer ns/a 1"}, codes.OK},
		"lower case":   {[]string{"authorization", "bearer ns/a 1"}, codes.OK},
		"other prefix": {[]string{"authorization", "Bearer ns/b 1"}, codes.PermissionDenied}, // and says that it is of ns/a
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := dialRaw(t, c.addr, tt.headers...)
			_ = s.Send(firstRequest(nil)) // Recv has the error
			r, err := s.Recv()
			if status.Code(err) != tt.want || (err == nil) != (len(r.GetResources()) > 0) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// jwt makes a token of three parts out of another that stands before it.
func jwt(expires time.Time) string {
	return "." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, expires.Unix())) + ".c2ln"
}

// TestIsolation: a proxy of one Gateway gets that one's resources and no others, whatever it asks for.
func TestIsolation(t *testing.T) {
	c := start(t, "")
	c.set(t, "ns/a", 1, sample(10))
	other := sample(10)
	other.Listeners[0].Name, other.Listeners[1].Name = "ns/b/http", "ns/b/https"
	other.Certificates[0].Key = []byte("only of ns/b")
	c.set(t, "ns/b", 1, other)
	tests := map[string]struct {
		request *discovery.DeltaDiscoveryRequest
		want    codes.Code
	}{
		"plain":        {firstRequest(nil), codes.OK},
		"wildcard":     {firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.ResourceNamesSubscribe = []string{"*"} }), codes.OK},
		"node of B":    {firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.Node.Cluster = "ns/b" }), codes.PermissionDenied},
		"node id of B": {firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.Node.Id = "ns/b" }), codes.OK},
		"no node":      {firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.Node = nil }), codes.PermissionDenied},
		"names of B":   {firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.ResourceNamesSubscribe = []string{"listener/ns/b/http"} }), codes.InvalidArgument},
		"both": {firstRequest(func(r *discovery.DeltaDiscoveryRequest) {
			r.ResourceNamesSubscribe = []string{"*", "certificate/ns/cert"}
		}), codes.InvalidArgument},
		"unsubscribe":  {firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.ResourceNamesUnsubscribe = []string{"*"} }), codes.InvalidArgument},
		"another type": {firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.TypeUrl = "gatehouse.dev/wire.v1.Certificate" }), codes.InvalidArgument},
		"no type":      {firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.TypeUrl = "" }), codes.InvalidArgument},
		"claims to have": {firstRequest(func(r *discovery.DeltaDiscoveryRequest) {
			r.InitialResourceVersions = map[string]string{"listener/ns/b/http": "x"}
		}), codes.OK},
		"an answer": {firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.ResponseNonce = "1" }), codes.InvalidArgument},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := dialRaw(t, c.addr, "authorization", "Bearer ns/a 1")
			if err := s.Send(tt.request); err != nil {
				t.Fatal(err)
			}
			r, err := s.Recv()
			if status.Code(err) != tt.want {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			for _, resource := range r.GetResources() {
				if text := resource.String(); strings.Contains(text, "ns/b") || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("only of ns/b"))) {
					t.Errorf("%s came: %s", resource.GetName(), text)
				}
			}
			if removed := r.GetRemovedResources(); len(removed) > 0 && !slices.Equal(removed, []string{"listener/ns/b/http"}) {
				t.Errorf("removed: %q", removed) // it hears that what it made up is not there
			}
		})
	}
	t.Run("later requests", func(t *testing.T) {
		for name, second := range map[string]*discovery.DeltaDiscoveryRequest{
			"other nonce":  {TypeUrl: subscription, ResponseNonce: "77"},
			"no nonce":     {TypeUrl: subscription},
			"subscribe":    {TypeUrl: subscription, ResponseNonce: "1", ResourceNamesSubscribe: []string{"listener/ns/b/http"}},
			"versions":     {TypeUrl: subscription, ResponseNonce: "1", InitialResourceVersions: map[string]string{"a": "b"}},
			"another type": {TypeUrl: "gatehouse.dev/wire.v1.Route", ResponseNonce: "1"},
		} {
			s := dialRaw(t, c.addr, "authorization", "Bearer ns/a 1")
			if err := s.Send(firstRequest(nil)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
			_ = s.Send(second)
			if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
	t.Run("state of the world", func(t *testing.T) {
		s := dialRaw(t, c.addr, "authorization", "Bearer ns/a 1")
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(s.conn).StreamAggregatedResources(s.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&discovery.DiscoveryRequest{TypeUrl: subscription})
		if _, err := stream.Recv(); status.Code(err) != codes.Unimplemented {
			t.Errorf("got %v", err)
		}
	})
	if list := c.Proxies("ns/b"); len(list) != 0 {
		t.Errorf("proxies of ns/b: %+v", list)
	}
}

// TestTokenExpires: the stream ends with its token, and the client comes back with the next one and is sent nothing anew.
func TestTokenExpires(t *testing.T) {
	c := start(t, "")
	cfg := sample(10)
	c.set(t, "ns/a", 1, cfg)
	var tokens atomic.Int64
	p := follow(t, c.addr, "ns/a", func(o *client.Options, _ *proxy) {
		o.Token = func() (string, error) {
			if tokens.Add(1) == 1 {
				return "ns/a 1" + jwt(time.Now().Add(2*time.Second)), nil
			}
			return "ns/a 2", nil
		}
	})
	check(t, p.next(t), cfg)
	c.acknowledged(t, "ns/a", 1)
	c.sent()
	c.until(t, "ns/a", func(list []wire.Proxy) bool {
		return len(list) == 1 && list[0].Name == "pods/2" && list[0].Version == 1
	})
	if messages, resources, _ := c.sent(); messages != 1 || resources != 0 {
		t.Errorf("%d messages with %d resources were sent", messages, resources)
	}
	p.none(t)
}

// TestRemove: the streams of a Gateway that is gone end, and one that comes back is served.
func TestRemove(t *testing.T) {
	c := start(t, "")
	cfg := sample(10)
	c.set(t, "ns/a", 1, cfg)
	p := follow(t, c.addr, "ns/a")
	p.next(t)
	c.acknowledged(t, "ns/a", 1)
	c.sent()
	c.Remove("ns/a")
	c.Remove("ns/none")
	c.set(t, "ns/a", 2, cfg)
	c.acknowledged(t, "ns/a", 2)
	if _, resources, _ := c.sent(); resources != 0 {
		t.Errorf("%d resources were sent", resources)
	}
	p.none(t)
}

// TestReplaced: a new stream of the same process takes the place of one that looks alive; one of another process does not.
func TestReplaced(t *testing.T) {
	c := start(t, "")
	c.set(t, "ns/a", 1, sample(10))
	open := func(instance string) *raw {
		s := dialRaw(t, c.addr, "authorization", "Bearer ns/a 1")
		if err := s.Send(firstRequest(func(r *discovery.DeltaDiscoveryRequest) { r.Node.Id = instance })); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := open("pods/1#x")
	open("pods/1#y")
	if list := c.Proxies("ns/a"); len(list) != 2 {
		t.Errorf("proxies: %+v", list)
	}
	open("pods/1#x")
	if _, err := first.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the first stream: %v", err)
	}
	c.until(t, "ns/a", func(list []wire.Proxy) bool { return len(list) == 2 })
}

// TestClientWithoutController: the address leads nowhere, then somewhere with another certificate; nothing is sent to a stranger.
func TestClientWithoutController(t *testing.T) {
	c := start(t, "", func(o *wire.ServerOptions) {
		o.Authorize = func(context.Context, string) (string, string, error) {
			t.Error("a token was shown to a controller that is not authenticated")
			return "", "", errors.New("no")
		}
	})
	var connections atomic.Int64
	seen := make(chan struct{})
	p := follow(t, c.addr, "ns/a", func(o *client.Options, _ *proxy) {
		o.TLS = func() (*tls.Config, error) {
			switch connections.Add(1) {
			case 1:
				return nil, errors.New("no CA file yet")
			case 3:
				close(seen)
			}
			return &tls.Config{ServerName: "example.com"}, nil // the system's roots
		}
	})
	<-seen
	p.none(t)
	for name, o := range map[string]client.Options{
		"address": {Gateway: "a", TLS: trust, Token: func() (string, error) { return "", nil }},
		"gateway": {Address: "a", TLS: trust, Token: func() (string, error) { return "", nil }},
		"token":   {Address: "a", Gateway: "a", TLS: trust},
		"TLS":     {Address: "a", Gateway: "a", Token: func() (string, error) { return "", nil }},
	} {
		if err := client.Follow(t.Context(), o, nil); err == nil {
			t.Errorf("without %s there is no error", name)
		}
	}
}

// TestHalfOpen: a peer that is gone without a word is noticed by both ends, and the proxy gets through on a new connection.
func TestHalfOpen(t *testing.T) {
	t.Parallel() // what it waits for is gRPC's least keepalive time of a client, 10 s
	c := start(t, "")
	cfg := sample(10)
	c.set(t, "ns/a", 1, cfg)
	relay := newRelay(t, c.addr)
	p := follow(t, relay.addr, "ns/a", func(o *client.Options, _ *proxy) { o.Keepalive, o.KeepaliveTimeout = 10*time.Second, time.Second })
	check(t, p.next(t), cfg)
	c.acknowledged(t, "ns/a", 1)
	before := c.Proxies("ns/a")[0].Since
	relay.silence()
	c.set(t, "ns/a", 2, withRoute(cfg, 1, 2)) // is lost on its way; new connections get through
	c.acknowledged(t, "ns/a", 2)
	check(t, p.next(t), withRoute(cfg, 1, 2))
	if list := c.Proxies("ns/a"); len(list) != 1 || !list[0].Since.After(before) {
		t.Errorf("the old stream was not replaced: %+v", list)
	}
}
