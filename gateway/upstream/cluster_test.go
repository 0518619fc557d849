package upstream

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

func addrs(n int) (out []netip.AddrPort) {
	for i := range n {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i+1)))
	}
	return out
}

func pick(t *testing.T, c *Cluster, tried ...*Endpoint) *Endpoint {
	t.Helper()
	e, fault := c.Pick(t.Context(), tried)
	if fault != nil {
		t.Fatal(fault)
	}
	return e
}

func TestRoundRobin(t *testing.T) {
	conf := cluster(addrs(3)...)
	conf.LoadBalancing = config.RoundRobin
	c := single(t, conf)
	for i := range 9 {
		if got, want := pick(t, c).String(), c.Endpoints()[i%3].String(); got != want {
			t.Errorf("turn %d: got %s, want %s", i, got, want)
		}
	}
}

// TestLeastRequest: of three endpoints the busiest is in no pair the less busy one.
func TestLeastRequest(t *testing.T) {
	c := single(t, cluster(addrs(3)...))
	busy := c.set.Load().list[1]
	busy.active.Add(1000)
	for range 500 {
		if pick(t, c) == busy {
			t.Fatal("the busiest endpoint was chosen")
		}
	}
	// The two others share the load evenly: each pick adds a request in flight.
	a, b := c.set.Load().list[0].active.Load(), c.set.Load().list[2].active.Load()
	if a+b != 500 || a < 150 || b < 150 {
		t.Errorf("%d and %d requests, want about 250 each", a, b)
	}
	c.set.Load().list[0].Done()
	if got := c.set.Load().list[0].active.Load(); got != a-1 {
		t.Errorf("%d in flight after Done, want %d", got, a-1)
	}
}

func TestTriedEndpoints(t *testing.T) {
	for _, policy := range []config.LoadBalancing{config.LeastRequest, config.RoundRobin, ""} {
		t.Run(string(policy), func(t *testing.T) {
			conf := cluster(addrs(3)...)
			conf.LoadBalancing = policy
			c := single(t, conf)
			for range 50 {
				first := pick(t, c)
				second := pick(t, c, first)
				third := pick(t, c, first, second)
				if first == second || third == first || third == second {
					t.Fatalf("picked %v, %v, %v", first, second, third)
				}
				pick(t, c, first, second, third) // any, rather than none
			}
			if got := len(c.Endpoints()); got != 3 {
				t.Errorf("%d endpoints are left of 3", got)
			}
		})
	}
}

func TestPickWithoutEndpoints(t *testing.T) {
	c := single(t, cluster())
	if _, fault := c.Pick(t.Context(), nil); fault == nil || fault.Kind != exchange.NoEndpoints || fault.Status != 503 {
		t.Errorf("got %v", fault)
	}
}

// gated is a Resolver that answers when it is let.
type gated chan struct{}

func (g gated) Lookup(ctx context.Context, _ string) ([]netip.Addr, time.Duration, error) {
	select {
	case <-g:
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, time.Hour, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

// TestPickWaitsForFirstResolution, and no longer than its context.
func TestPickWaitsForFirstResolution(t *testing.T) {
	g := make(gated)
	m := newManager(t, Options{Resolve: g})
	lease, _ := m.Apply([]*config.Cluster{{Name: "c", Protocol: config.UpstreamHTTP1, DNS: &config.DNS{Host: "a.test", Port: 80}}})
	defer lease.Release()
	c := lease.Cluster("c")

	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the client left")
	cancel(reason)
	if _, fault := c.Pick(ctx, nil); fault == nil || fault.Kind != exchange.NoEndpoints || !errors.Is(fault, reason) {
		t.Errorf("got %v", fault)
	}

	picked := make(chan *Endpoint)
	go func() {
		e, _ := c.Pick(t.Context(), nil)
		picked <- e
	}()
	select {
	case e := <-picked:
		t.Fatalf("picked %v before the name was resolved", e)
	default:
	}
	close(g)
	if e := receive(t, picked, "picking"); e == nil || e.String() != "192.0.2.1:80" {
		t.Errorf("picked %v", e)
	}
}
