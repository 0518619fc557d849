package upstream

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TestPoolOutlivesConfiguration: a configuration that changes other things, endpoints included, costs no connection.
func TestPoolOutlivesConfiguration(t *testing.T) {
	for name, protocol := range map[string]config.UpstreamProtocol{"http/1.1": config.UpstreamHTTP1, "h2c": config.UpstreamH2C} {
		t.Run(name, func(t *testing.T) {
			options := originOptions{}
			if protocol == config.UpstreamH2C {
				options.protocols = h2c
			}
			o := newOrigin(t, options, hello)
			m := newManager(t, Options{})
			first := cluster(o.addr)
			first.Protocol = protocol
			before, _ := m.Apply([]*config.Cluster{first})
			get(t, before.Cluster("c"))

			second := *first
			second.Origin.Generation = 2
			second.Endpoints = []netip.AddrPort{o.addr, o.addr}[:1]
			after, _ := m.Apply([]*config.Cluster{&second})
			if before.Cluster("c") != after.Cluster("c") {
				t.Error("the cluster was made anew")
			}
			before.Release()
			if got := get(t, after.Cluster("c")); got != "hello" {
				t.Errorf("got %q", got)
			}
			if n := o.opened.Load(); n != 1 {
				t.Errorf("%d connections were opened, want 1", n)
			}
			after.Release()
			receive(t, o.closed, "closing the idle connection after the last lease")
		})
	}
}

// TestConnectionKey holds what makes a cluster another one.
func TestConnectionKey(t *testing.T) {
	addr := netip.MustParseAddrPort("127.0.0.1:9")
	tests := map[string]struct {
		change func(*config.Cluster)
		same   bool
	}{
		"nothing":        {func(*config.Cluster) {}, true},
		"origin":         {func(c *config.Cluster) { c.Origin.Line = 9 }, true},
		"endpoints":      {func(c *config.Cluster) { c.Endpoints = nil }, true},
		"protocol":       {func(c *config.Cluster) { c.Protocol = config.UpstreamH2C }, false},
		"load balancing": {func(c *config.Cluster) { c.LoadBalancing = config.RoundRobin }, false},
		"TLS":            {func(c *config.Cluster) { c.TLS = &config.UpstreamTLS{ServerName: "a"} }, false},
		"DNS":            {func(c *config.Cluster) { c.DNS = &config.DNS{Host: "127.0.0.1", Port: 1} }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, Options{})
			before, _ := m.Apply([]*config.Cluster{cluster(addr)})
			next := cluster(addr)
			tt.change(next)
			after, _ := m.Apply([]*config.Cluster{next})
			if same := before.Cluster("c") == after.Cluster("c"); same != tt.same {
				t.Errorf("same cluster: %t, want %t", same, tt.same)
			}
			if !tt.same && len(before.Cluster("c").Endpoints()) != 1 {
				t.Error("the leased cluster lost its endpoints to its successor")
			}
			before.Release()
			after.Release()
			if len(m.clusters) != 0 {
				t.Errorf("%d clusters are left after the last lease", len(m.clusters))
			}
		})
	}
}

// TestEndpointsSwap: an endpoint that stays keeps its count of requests in flight, for every lease at once.
func TestEndpointsSwap(t *testing.T) {
	a, b, c := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2"), netip.MustParseAddrPort("[::1]:3")
	m := newManager(t, Options{})
	before, _ := m.Apply([]*config.Cluster{cluster(a)})
	defer before.Release()
	e, fault := before.Cluster("c").Pick(t.Context(), nil)
	if fault != nil {
		t.Fatal(fault)
	}
	after, _ := m.Apply([]*config.Cluster{cluster(b, a, c)})
	defer after.Release()
	list := before.Cluster("c").set.Load().list
	if len(list) != 3 || list[1] != e || e.active.Load() != 1 || e.retired.Load() {
		t.Errorf("endpoints %v, the busy one %v with %d in flight", before.Cluster("c").Endpoints(), e, e.active.Load())
	}
	e.Done()
	last, _ := m.Apply([]*config.Cluster{cluster(c)})
	defer last.Release()
	if !e.retired.Load() || len(after.Cluster("c").Endpoints()) != 1 {
		t.Error("the endpoint that left is still there")
	}
}

// TestRemovedEndpointKeepsNoConnection: whether the exchange began before its endpoint left or was only about to.
func TestRemovedEndpointKeepsNoConnection(t *testing.T) {
	for name, picksFirst := range map[string]bool{"in flight": false, "picked": true} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			o := newOrigin(t, originOptions{}, func(w http.ResponseWriter, _ *http.Request) {
				_ = http.NewResponseController(w).Flush()
				<-release
				_, _ = io.WriteString(w, "late")
			})
			m := newManager(t, Options{})
			lease, _ := m.Apply([]*config.Cluster{cluster(o.addr)})
			defer lease.Release()
			e, fault := lease.Cluster("c").Pick(t.Context(), nil)
			if fault != nil {
				t.Fatal(fault)
			}
			remove := func() {
				gone, _ := m.Apply([]*config.Cluster{cluster()})
				gone.Release()
			}
			if picksFirst {
				remove()
			}
			answer, fault := roundTrip(t.Context(), e, &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody})
			if fault != nil {
				t.Fatal(fault)
			}
			if !picksFirst {
				remove()
			}
			close(release)
			if got := drain(t, answer); got != "late" {
				t.Errorf("got %q", got)
			}
			e.Done()
			receive(t, o.closed, "closing the connection to an endpoint that left")
		})
	}
}

// TestConnectionsCounted: each connection is counted once when it opens and once when it closes, however often it is closed.
func TestConnectionsCounted(t *testing.T) {
	o := newOrigin(t, originOptions{}, hello)
	deltas := make(chan int, 10)
	m := newManager(t, Options{OnConnections: func(cluster string, delta int) {
		if cluster != "c" {
			t.Errorf("counted for %q", cluster)
		}
		deltas <- delta
	}})
	lease, _ := m.Apply([]*config.Cluster{cluster(o.addr)})
	get(t, lease.Cluster("c"))
	get(t, lease.Cluster("c"))
	if got := receive(t, deltas, "counting up"); got != 1 {
		t.Errorf("counted %d, want 1", got)
	}
	lease.Release()
	if got := receive(t, deltas, "counting down"); got != -1 {
		t.Errorf("counted %d, want -1", got)
	}
	if len(deltas) > 0 {
		t.Errorf("counted %d more", <-deltas)
	}
}

// TestBrokenCluster: a cluster that cannot be set up answers every attempt with the reason, and harms no other.
func TestBrokenCluster(t *testing.T) {
	bad := cluster(netip.MustParseAddrPort("127.0.0.1:9"))
	bad.TLS = &config.UpstreamTLS{ServerName: "a", CAs: "not PEM"}
	good := cluster()
	good.Name = "good"
	m := newManager(t, Options{})
	lease, problems := m.Apply([]*config.Cluster{bad, good})
	defer lease.Release()
	if len(problems) != 1 || problems["c"] == nil {
		t.Fatalf("problems %v", problems)
	}
	if _, fault := lease.Cluster("c").Pick(t.Context(), nil); fault == nil || fault.Kind != exchange.InvalidBackend {
		t.Errorf("got %v", fault)
	}
	if _, fault := lease.Cluster("good").Pick(t.Context(), nil); fault == nil || fault.Kind != exchange.NoEndpoints {
		t.Errorf("got %v", fault)
	}
	// What did not change is still broken, and an endpoint update does not mend it.
	next := *bad
	next.Endpoints = nil
	again, _ := m.Apply([]*config.Cluster{&next})
	defer again.Release()
	if _, fault := again.Cluster("c").Pick(t.Context(), nil); fault == nil || fault.Kind != exchange.InvalidBackend {
		t.Errorf("got %v", fault)
	}
	if lease.Cluster("none") != nil {
		t.Error("a cluster that is not configured exists")
	}
}

// stubborn is a Resolver that notices nothing until it is let go.
type stubborn struct{ asked, let chan struct{} }

func (s stubborn) Lookup(context.Context, string) ([]netip.Addr, time.Duration, error) {
	close(s.asked)
	<-s.let
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, time.Minute, nil
}

// TestReleaseLeavesManagerFree: giving up a cluster whose lookup hangs keeps nobody else from applying.
func TestReleaseLeavesManagerFree(t *testing.T) {
	r := stubborn{asked: make(chan struct{}), let: make(chan struct{})}
	m := newManager(t, Options{Resolve: r})
	slow := &config.Cluster{Name: "slow", Protocol: config.UpstreamHTTP1, DNS: &config.DNS{Host: "slow.test", Port: 80}}
	lease, _ := m.Apply([]*config.Cluster{slow})
	receive(t, r.asked, "the lookup")
	released := make(chan struct{})
	go func() {
		defer close(released)
		lease.Release()
	}()
	applied := make(chan *Lease)
	go func() {
		next, _ := m.Apply([]*config.Cluster{cluster()})
		applied <- next
	}()
	receive(t, applied, "applying meanwhile").Release()
	close(r.let)
	receive(t, released, "releasing")
	if got := lease.Cluster("slow").Endpoints(); len(got) != 0 {
		t.Errorf("a closed cluster has endpoints %v", got)
	}
}
