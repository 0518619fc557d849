package wire

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire/internal/format"
)

// call is one side of a stream without a connection, so that time can be that of a test.
type call struct {
	grpc.ServerStream
	ctx       context.Context
	requests  chan *discovery.DeltaDiscoveryRequest
	responses chan *discovery.DeltaDiscoveryResponse
}

func newCall(t *testing.T, token string) *call {
	ctx, cancel := context.WithCancel(metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer "+token)))
	t.Cleanup(cancel)
	return &call{ctx: ctx, requests: make(chan *discovery.DeltaDiscoveryRequest), responses: make(chan *discovery.DeltaDiscoveryResponse, 10)}
}

func (c *call) Context() context.Context { return c.ctx }

func (c *call) Send(r *discovery.DeltaDiscoveryResponse) error {
	c.responses <- r
	return nil
}

func (c *call) Recv() (*discovery.DeltaDiscoveryRequest, error) {
	select {
	case r := <-c.requests:
		return r, nil
	case <-c.ctx.Done():
		return nil, io.EOF
	}
}

// first is the first request of a proxy of Gateway ns/a.
func first() *discovery.DeltaDiscoveryRequest {
	return &discovery.DeltaDiscoveryRequest{TypeUrl: format.Subscription, Node: &core.Node{Cluster: "ns/a"}}
}

func accept(context.Context, string) (string, string, error) { return "ns/a", "ns/pod", nil }

// TestHowLongStreamsLast: a silent stream ends soon, others with their token.
func TestHowLongStreamsLast(t *testing.T) {
	token := func(payload string) string {
		return "h." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".s"
	}
	in := func(d time.Duration) string { // from the beginning of a bubble's time
		return token(fmt.Sprintf(`{"aud":["x"],"exp":%d}`, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(d).Unix()))
	}
	tests := map[string]struct {
		token string
		speak bool
		want  codes.Code
		after time.Duration
	}{
		"silent":           {in(time.Hour), false, codes.DeadlineExceeded, firstRequestTime},
		"an hour":          {in(time.Hour), true, codes.Unauthenticated, time.Hour},
		"a minute":         {in(time.Minute), true, codes.Unauthenticated, time.Minute},
		"expires silent":   {in(5 * time.Second), false, codes.Unauthenticated, 5 * time.Second},
		"a year":           {in(365 * 24 * time.Hour), true, codes.Unauthenticated, maxTokenAge},
		"expired":          {in(-time.Second), true, codes.Unauthenticated, 0},
		"no JWT":           {"opaque", true, codes.Unauthenticated, tokenAge},
		"no exp":           {token(`{}`), true, codes.Unauthenticated, tokenAge},
		"exp is no number": {token(`{"exp":"x"}`), true, codes.Unauthenticated, tokenAge},
		"exp is negative":  {token(`{"exp":-5}`), true, codes.Unauthenticated, tokenAge},
		"no base64":        {"a.!.b", true, codes.Unauthenticated, tokenAge},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(ServerOptions{Authorize: accept})
				c := newCall(t, tt.token)
				if tt.speak {
					go func() {
						select {
						case c.requests <- first():
						case <-c.ctx.Done():
						}
					}()
				}
				began := time.Now()
				err := s.DeltaAggregatedResources(c)
				if status.Code(err) != tt.want || time.Since(began) != tt.after {
					t.Errorf("it ended after %s with %v; want %s after %s", time.Since(began), err, tt.want, tt.after)
				}
				if len(s.fleets) != 0 {
					t.Error("a Gateway that nobody set is remembered")
				}
			})
		})
	}
}

// TestBounds: over each limit the newest is refused.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := NewServer(ServerOptions{Authorize: func(context.Context, string) (string, string, error) {
			<-release
			return "", "", errors.New("no")
		}})
		results := make(chan error, maxAuthorizing)
		for range maxAuthorizing {
			go func() { results <- s.DeltaAggregatedResources(newCall(t, "x")) }()
		}
		synctest.Wait()
		if err := s.DeltaAggregatedResources(newCall(t, "x")); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one more to authorize: %v", err)
		}
		close(release)
		for range maxAuthorizing {
			if err := <-results; status.Code(err) != codes.Unauthenticated {
				t.Errorf("one that waited: %v", err)
			}
		}

		s.streams = maxStreams
		if err := s.DeltaAggregatedResources(newCall(t, "x")); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one more stream: %v", err)
		}
		s.streams = 0
		s.Close()
		if err := s.DeltaAggregatedResources(newCall(t, "x")); status.Code(err) != codes.Unavailable {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestBoundOfProxy: one proxy cannot take the streams of the others.
func TestBoundOfProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(ServerOptions{Authorize: func(_ context.Context, token string) (string, string, error) { return "ns/a", token, nil }})
		results := make(chan error, maxOfProxy)
		for range maxOfProxy {
			go func() { results <- s.DeltaAggregatedResources(newCall(t, "one")) }()
		}
		synctest.Wait()
		if err := s.DeltaAggregatedResources(newCall(t, "one")); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one more stream of the proxy: %v", err)
		}
		if err := s.DeltaAggregatedResources(newCall(t, "other")); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a stream of another one, silent: %v", err)
		}
		for range maxOfProxy {
			if err := <-results; status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("a silent stream: %v", err)
			}
		}
		if len(s.proxies) != 0 {
			t.Errorf("streams that ended are counted: %v", s.proxies)
		}
	})
}

// TestAuthorize: what Authorize says counts, and it is not waited for without end.
func TestAuthorize(t *testing.T) {
	tests := map[string]struct {
		authorize func(context.Context, string) (string, string, error)
		want      codes.Code
	}{
		"an error beside a Gateway": {func(context.Context, string) (string, string, error) { return "ns/a", "p", errors.New("no") }, codes.Unauthenticated},
		"no Gateway":                {func(context.Context, string) (string, string, error) { return "", "p", nil }, codes.PermissionDenied},
		"hangs": {func(ctx context.Context, _ string) (string, string, error) {
			<-ctx.Done()
			return "", "", ctx.Err()
		}, codes.Unauthenticated},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(ServerOptions{Authorize: tt.authorize})
				if err := s.DeltaAggregatedResources(newCall(t, "x")); status.Code(err) != tt.want {
					t.Errorf("got %v, want %v", err, tt.want)
				}
			})
		})
	}
}

// TestUnsentIsNotAnswered: an answer without a nonce is none, however the requests fall in time.
func TestUnsentIsNotAnswered(t *testing.T) {
	f := newFleet("ns/a", func(string) {})
	s := &stream{fleet: f, waiting: true, last: true, greeted: true}
	if _, err := s.answered("", "", format.Applied{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

// TestCatalogOfTwins: two routes of one object, which no translator makes, are two resources, and one that goes leaves the other alone.
func TestCatalogOfTwins(t *testing.T) {
	a := &config.Route{Origin: config.Origin{Kind: "HTTPRoute", Name: "r"}}
	b := &config.Route{Origin: config.Origin{Kind: "HTTPRoute", Name: "r"}, Hostnames: []string{"b.example"}}
	set := func(f *fleet, routes ...*config.Route) {
		t.Helper()
		if err := f.replace(1, &config.Config{Listeners: []*config.Listener{{Name: "l", Port: 1, Protocol: config.HTTP, Routes: routes}}}); err != nil {
			t.Fatal(err)
		}
	}
	f := newFleet("ns/a", func(string) {})
	count := func(want int) {
		t.Helper()
		if got := len(f.resources); got != want {
			t.Errorf("%d resources, want %d", got, want)
		}
		if len(f.catalog.routes) != len(f.catalog.taken) || len(f.catalog.routes) != max(want-2, 0) {
			t.Errorf("%d routes and %d names are remembered", len(f.catalog.routes), len(f.catalog.taken))
		}
	}
	set(f, a, b)
	count(4) // listener, page, two routes
	set(f, b)
	count(3)
	set(f, b, a)
	count(4)
	set(f)
	if got := len(f.resources); got != 1 {
		t.Errorf("%d resources are left of a listener without routes", got)
	}
}
