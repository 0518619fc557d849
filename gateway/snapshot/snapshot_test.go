package snapshot

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/telemetry"
	"gatehouse.dev/gatehouse/gateway/upstream"
	"gatehouse.dev/gatehouse/routing"
)

// bench compiles configurations one after another.
type bench struct {
	t        *testing.T
	manager  *upstream.Manager
	compiler *Compiler
}

func newBench(t *testing.T) *bench {
	t.Helper()
	set, err := filters.NewSet()
	if err != nil {
		t.Fatal(err)
	}
	seen, err := telemetry.New(context.Background(), telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = seen.Shutdown(context.Background()) })
	return &bench{t: t, manager: upstream.NewManager(upstream.Options{}), compiler: NewCompiler(set, seen)}
}

func (b *bench) try(c *config.Config) (*Snapshot, error) {
	b.t.Helper()
	if err := c.Validate(); err != nil {
		b.t.Fatal(err)
	}
	lease, _ := b.manager.Apply(c.Clusters)
	s, err := b.compiler.Compile(c, lease)
	if err != nil {
		lease.Release()
	}
	return s, err
}

func (b *bench) compile(c *config.Config) *Snapshot {
	b.t.Helper()
	s, err := b.try(c)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func clusterNamed(name string) *config.Cluster {
	return &config.Cluster{Name: name, Protocol: config.UpstreamHTTP1, Endpoints: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}}
}

func routeTo(name string, hostnames []string, backends ...config.Backend) *config.Route {
	return &config.Route{
		Origin: config.Origin{Kind: "HTTPRoute", Namespace: "ns", Name: name}, Hostnames: hostnames,
		Rules: []*config.Rule{{Name: "0", Backends: backends}},
	}
}

func httpListener(name, hostname string, routes ...*config.Route) *config.Listener {
	return &config.Listener{Name: name, Port: 80, Protocol: config.HTTP, Hostname: hostname, Routes: routes}
}

func find(t *testing.T, s *Snapshot, peer exchange.Peer, authority string) (*Rule, *exchange.Fault) {
	t.Helper()
	head := &exchange.Head{Method: "GET", Scheme: "http", Authority: authority, Target: "/"}
	if err := head.Normalize(); err != nil {
		t.Fatal(err)
	}
	return s.Find(&peer, head)
}

// TestReuse: what did not change is not compiled again, and what a change touches is.
func TestReuse(t *testing.T) {
	b := newBench(t)
	one, two := routeTo("one", nil, config.Backend{Cluster: "c", Weight: 1}), routeTo("two", nil, config.Backend{Cluster: "d", Weight: 1})
	first := &config.Config{
		Listeners: []*config.Listener{httpListener("l", "", one), {Name: "m", Port: 81, Protocol: config.HTTP, Routes: []*config.Route{one, two}}},
		Clusters:  []*config.Cluster{clusterNamed("c"), clusterNamed("d")},
	}
	s1 := b.compile(first)
	before := b.compiler.routes

	t.Run("same routes", func(t *testing.T) {
		next := *first
		next.Clusters = []*config.Cluster{clusterNamed("c"), clusterNamed("d")} // made anew, to the same effect
		next.Clusters[0].Endpoints = nil
		s := b.compile(&next)
		defer s.Release()
		if b.compiler.routes[one] != before[one] || b.compiler.routes[two] != before[two] {
			t.Error("a route was compiled again")
		}
		if mustListener(t, s, "*:80").table != mustListener(t, s1, "*:80").table {
			t.Error("a table was compiled again")
		}
		if got := s.Cluster("c").Endpoints(); len(got) != 0 {
			t.Errorf("the new endpoints %v did not take effect", got)
		}
	})
	t.Run("a cluster is reached another way", func(t *testing.T) {
		next := *first
		next.Clusters = []*config.Cluster{clusterNamed("c"), clusterNamed("d")}
		next.Clusters[0].Protocol = config.UpstreamH2C
		s := b.compile(&next)
		defer s.Release()
		if b.compiler.routes[one] == before[one] {
			t.Error("a route goes to a cluster that is gone")
		}
		if b.compiler.routes[two] != before[two] {
			t.Error("a route was compiled again for another's cluster")
		}
		for _, bind := range []string{"*:80", "*:81"} {
			rule, fault := find(t, s, exchange.Peer{Bind: bind}, "a")
			if fault != nil || rule.Backends[0].Cluster != s.Cluster("c") {
				t.Errorf("%s: goes to the old cluster: %v", bind, fault)
			}
		}
		rule, fault := find(t, s1, exchange.Peer{Bind: "*:80"}, "a")
		if fault != nil || rule.Backends[0].Cluster != s1.Cluster("c") || s1.Cluster("c") == s.Cluster("c") {
			t.Errorf("the earlier snapshot changed: %v", fault)
		}
	})
	t.Run("gone", func(t *testing.T) {
		b.compile(&config.Config{}).Release()
		b.compiler.Sweep()
		if len(b.compiler.routes)+len(b.compiler.listeners) != 0 {
			t.Error("the compiler keeps what is gone")
		}
	})
	s1.Release()
}

func mustListener(t *testing.T, s *Snapshot, bind string) *Listener {
	t.Helper()
	l, ok := s.binds[bind].listeners.Find("a")
	if !ok {
		t.Fatal("no listener")
	}
	return l
}

// TestFailedCompile leaves the compiler as it was.
func TestFailedCompile(t *testing.T) {
	b := newBench(t)
	good := routeTo("good", nil)
	s := b.compile(&config.Config{Listeners: []*config.Listener{httpListener("l", "", good)}})
	defer s.Release()
	kept := b.compiler.routes[good]
	bad := routeTo("bad", nil)
	bad.Rules[0].Filters = []config.Policy{{Kind: "NoSuchFilter"}}
	_, err := b.try(&config.Config{Listeners: []*config.Listener{httpListener("l", "", good, bad)}})
	if err == nil || !strings.Contains(err.Error(), "HTTPRoute/ns/bad rule 0") || !strings.Contains(err.Error(), "listener l") {
		t.Errorf("got %v", err)
	}
	if b.compiler.routes[good] != kept || len(b.compiler.routes) != 1 {
		t.Error("a failed compilation changed what the next one starts from")
	}
}

// TestConflicts: listeners that cannot share a socket are refused together, with both names.
func TestConflicts(t *testing.T) {
	secure := &config.Listener{Name: "secure", Port: 80, Protocol: config.HTTPS, Hostname: "b", TLS: &config.ListenerTLS{Certificates: []string{"x"}}}
	cert := newCertificate(t, "x", ecdsaKey, "b")
	tests := map[string]struct {
		listeners []*config.Listener
		want      string
	}{
		"same hostname":       {[]*config.Listener{httpListener("one", "a"), httpListener("two", "a")}, "listener two: listener one has the same address and hostname"},
		"both every host":     {[]*config.Listener{httpListener("one", ""), httpListener("two", "")}, "listener two: listener one"},
		"with TLS and not":    {[]*config.Listener{httpListener("one", "a"), secure}, "listener secure: *:80 has listeners of another kind; HTTP, TCP and TLS do not go together"},
		"another hostname":    {[]*config.Listener{httpListener("one", "a"), httpListener("two", "*.a"), httpListener("three", "")}, ""},
		"another port":        {[]*config.Listener{httpListener("one", "a"), {Name: "two", Port: 81, Protocol: config.HTTP, Hostname: "a"}}, ""},
		"another address":     {[]*config.Listener{httpListener("one", "a"), {Name: "two", Port: 80, Protocol: config.HTTP, Hostname: "a", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}}, ""},
		"no such certificate": {[]*config.Listener{{Name: "one", Port: 443, Protocol: config.HTTPS, TLS: &config.ListenerTLS{}}}, "listener one: there is no certificate"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := newBench(t).try(&config.Config{Listeners: tt.listeners, Certificates: []*config.Certificate{cert}})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if s != nil {
				s.Release()
			}
		})
	}
}

// TestRefCount: the clusters go with the last reference, whoever holds it, and no reference is had after.
func TestRefCount(t *testing.T) {
	b := newBench(t)
	s := b.compile(&config.Config{Clusters: []*config.Cluster{clusterNamed("c")}})
	c := s.Cluster("c")
	var exchanges sync.WaitGroup
	for range 50 {
		if !s.Acquire() {
			t.Fatal("refused while the Engine holds the snapshot")
		}
		exchanges.Go(func() {
			if s.Acquire() {
				s.Release()
			}
			if len(c.Endpoints()) != 1 {
				t.Error("the cluster is closed under an exchange")
			}
			s.Release()
		})
	}
	s.Release()
	exchanges.Wait()
	if s.refs.Load() != 0 || s.Acquire() {
		t.Errorf("%d references are left", s.refs.Load())
	}
	if len(c.Endpoints()) != 0 {
		t.Error("the cluster is not closed after the last exchange")
	}
	empty := Empty()
	empty.Release()
	if empty.Acquire() || empty.Cluster("c") != nil || len(empty.Sockets()) != 0 {
		t.Error("the empty snapshot is not")
	}
}

// TestDraw: each number below the total falls on exactly one backend, as many on each as it weighs.
func TestDraw(t *testing.T) {
	const huge = 1_000_000
	tests := map[string]struct{ weights []uint32 }{
		"one":          {[]uint32{1}},
		"two":          {[]uint32{1, 1}},
		"zeros aside":  {[]uint32{0, 3, 0, 0, 5, 0}},
		"90 to 10":     {[]uint32{90, 10}},
		"many":         {[]uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 11}},
		"with big one": {[]uint32{1, huge, 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var backends []config.Backend
			var clusters []*config.Cluster
			for i, w := range tt.weights {
				id := string(rune('a' + i))
				backends = append(backends, config.Backend{Cluster: id, Weight: w})
				clusters = append(clusters, clusterNamed(id))
			}
			s := newBench(t).compile(&config.Config{Listeners: []*config.Listener{httpListener("l", "", routeTo("r", nil, backends...))}, Clusters: clusters})
			defer s.Release()
			rule, fault := find(t, s, exchange.Peer{Bind: "*:80"}, "a")
			if fault != nil {
				t.Fatal(fault)
			}
			var number uint64
			for i, w := range tt.weights {
				for _, n := range []uint64{number, number + uint64(w) - 1} { // the first and the last that fall on it
					if w > 0 && rule.Draw(n).Name != backends[i].Cluster {
						t.Errorf("%d falls on %s, want %s", n, rule.Draw(n).Name, backends[i].Cluster)
					}
				}
				number += uint64(w)
			}
			if rule.TotalWeight != number {
				t.Errorf("total %d, want %d", rule.TotalWeight, number)
			}
		})
	}
}

// TestNoWeight: a rule whose backends all weigh 0 has none (HTTPBackendRef.weight), and one that does not resolve keeps its share.
func TestNoWeight(t *testing.T) {
	s := newBench(t).compile(&config.Config{
		Listeners: []*config.Listener{
			httpListener("l", "", routeTo("zero", []string{"zero"}, config.Backend{Cluster: "c"}), routeTo("invalid", []string{"invalid"},
				config.Backend{Cluster: "c", Weight: 1}, config.Backend{Invalid: "BackendNotFound", Weight: 3})),
		},
		Clusters: []*config.Cluster{clusterNamed("c")},
	})
	defer s.Release()
	rule, fault := find(t, s, exchange.Peer{Bind: "*:80"}, "zero")
	if fault != nil || rule.TotalWeight != 0 || len(rule.Backends) != 0 {
		t.Errorf("rule %+v, %v", rule, fault)
	}
	rule, fault = find(t, s, exchange.Peer{Bind: "*:80"}, "invalid")
	if fault != nil || rule.TotalWeight != 4 || rule.Draw(1).Invalid == "" || rule.Draw(1).Cluster != nil || rule.Draw(0).Cluster == nil {
		t.Errorf("rule %+v, %v", rule, fault)
	}
}

// TestListenerChoice: the most specific listener of the socket serves a host alone, and TLS holds a connection to its own.
func TestListenerChoice(t *testing.T) {
	cert := newCertificate(t, "x", ecdsaKey, "x")
	listener := func(name, hostname string, routeHosts ...string) *config.Listener {
		return &config.Listener{
			Name: name, Port: 443, Protocol: config.HTTPS, Hostname: hostname, TLS: &config.ListenerTLS{Certificates: []string{"x"}},
			Routes: []*config.Route{routeTo(name, routeHosts)},
		}
	}
	s := newBench(t).compile(&config.Config{
		Listeners: []*config.Listener{
			listener("exact", "a.example.com"), listener("wild", "*.example.com", "b.example.com", "*.c.example.com"),
			httpListener("plain", "", routeTo("plain", []string{"only.example.com"})),
		},
		Certificates: []*config.Certificate{cert},
	})
	defer s.Release()
	onTLS := func(sni string) exchange.Peer {
		return exchange.Peer{Bind: "*:443", TLS: &exchange.TLSInfo{ServerName: sni}}
	}
	tests := map[string]struct {
		peer exchange.Peer
		host string
		want string // the route, or
		kind exchange.Kind
	}{
		"exact":                         {onTLS("a.example.com"), "a.example.com", "exact", ""},
		"port and case":                 {onTLS("a.example.com"), "A.example.COM.:443", "exact", ""},
		"wildcard":                      {onTLS("b.example.com"), "b.example.com", "wild", ""},
		"another name of the wildcard":  {onTLS("z.example.com"), "x.c.example.com", "wild", ""},
		"listener, but no route":        {onTLS("z.example.com"), "z.example.com", "", exchange.NoRoute},
		"SNI of the more specific one":  {onTLS("a.example.com"), "b.example.com", "", exchange.Misdirected},
		"host of the more specific one": {onTLS("b.example.com"), "a.example.com", "", exchange.Misdirected},
		"no SNI":                        {onTLS(""), "a.example.com", "", exchange.Misdirected},
		"unknown SNI":                   {onTLS("evil.test"), "a.example.com", "", exchange.Misdirected},
		"unknown host":                  {onTLS("a.example.com"), "evil.test", "", exchange.NoRoute},
		"apex of the wildcard":          {onTLS("example.com"), "example.com", "", exchange.NoRoute},
		"no TLS needs no SNI":           {exchange.Peer{Bind: "*:80"}, "only.example.com", "plain", ""},
		"no such route":                 {exchange.Peer{Bind: "*:80"}, "", "", exchange.NoRoute},
		"socket that is gone":           {exchange.Peer{Bind: "*:81"}, "only.example.com", "", exchange.NoRoute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rule, fault := find(t, s, tt.peer, tt.host)
			switch {
			case tt.kind != "" && (fault == nil || fault.Kind != tt.kind):
				t.Errorf("got %v, want %s", fault, tt.kind)
			case tt.kind == "" && (fault != nil || rule.Route.Origin.Name != tt.want):
				t.Errorf("got %v, want %s", fault, tt.want)
			}
			head := &exchange.Head{Method: "GET", Scheme: "http", Authority: tt.host, Target: "/"}
			if err := head.Normalize(); err != nil {
				t.Fatal(err)
			}
			d := s.Explain(&tt.peer, head, func(config.Policy) string { return "" }, 3)
			if (d.Refused == nil) != (fault == nil) || d.Refused != nil && d.Refused.Kind != fault.Kind || (d.Rule == nil) != (rule == nil) {
				t.Errorf("Explain says %+v, %+v; Find says %v", d.Refused, d.Rule, fault)
			}
		})
	}
}

func TestExplainBackends(t *testing.T) {
	r := routeTo("r", nil, config.Backend{Cluster: "c", Weight: 3}, config.Backend{Cluster: "d"}, config.Backend{Invalid: "BackendNotFound", Weight: 1})
	r.Rules[0].Retry = &config.Retry{Attempts: 2}
	r.Rules = append(r.Rules, &config.Rule{Name: "1", Matches: []routing.Match{{Path: "/x", Method: "POST"}}})
	s := newBench(t).compile(&config.Config{
		Listeners: []*config.Listener{httpListener("l", "", r)}, Clusters: []*config.Cluster{clusterNamed("c"), clusterNamed("d")},
	})
	defer s.Release()
	head := &exchange.Head{Method: "GET", Authority: "a", Target: "/x"}
	if err := head.Normalize(); err != nil {
		t.Fatal(err)
	}
	d := s.Explain(&exchange.Peer{Bind: "*:80"}, head, func(config.Policy) string { return "" }, 3)
	if d.Rule == nil || len(d.Rule.Backends) != 3 || d.Rule.Retries != 2 || len(d.Losers) != 1 || d.Losers[0].Rule != "1" {
		t.Fatalf("got %+v, losers %+v", d.Rule, d.Losers)
	}
	b := d.Rule.Backends
	if b[0].Percent != 75 || len(b[0].Endpoints) != 1 || b[1].Percent != 0 || b[2].Percent != 25 || b[2].Invalid == "" {
		t.Errorf("backends %+v", b)
	}
}

func TestBindFor(t *testing.T) {
	at := func(name string, port uint16, addrs ...string) *config.Listener {
		l := &config.Listener{Name: name, Port: port, Protocol: config.HTTP}
		for _, a := range addrs {
			l.Addresses = append(l.Addresses, netip.MustParseAddr(a))
		}
		return l
	}
	s := newBench(t).compile(&config.Config{Listeners: []*config.Listener{
		at("a", 80, "192.0.2.2", "192.0.2.1"), at("b", 81, "127.0.0.1"), at("c", 81),
	}})
	defer s.Release()
	for name, tt := range map[string]struct {
		port uint16
		tls  bool
		want string
	}{
		"least address":     {80, false, "192.0.2.1:80"},
		"all interfaces":    {81, false, "*:81"},
		"not with TLS":      {80, true, ""},
		"not on that port":  {82, false, ""},
		"not on port 0":     {0, false, ""},
		"not TLS elsewhere": {81, true, ""},
	} {
		if got, ok := s.BindFor(tt.port, tt.tls); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: got %q, %t", name, got, ok)
		}
	}
	var keys []string
	for _, b := range s.Sockets() {
		keys = append(keys, b.Key())
	}
	if got := strings.Join(keys, " "); got != "*:81 127.0.0.1:81 192.0.2.1:80 192.0.2.2:80" {
		t.Errorf("sockets %s", got)
	}
}

func TestNewRefusal(t *testing.T) {
	if r := NewRefusal(exchange.NewFault(exchange.NoRoute, errors.New("why"))); r.Status != 404 || r.Detail != "why" || r.Kind != exchange.NoRoute {
		t.Errorf("got %+v", r)
	}
	if r := NewRefusal(exchange.NewFault(exchange.NoBackends, nil)); r.Detail != "" {
		t.Errorf("got %+v", r)
	}
}
