package snapshot

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

func flowListener(p config.Protocol, name, hostname string, routes ...*config.StreamRoute) *config.Listener {
	return &config.Listener{Name: name, Port: 443, Protocol: p, Hostname: hostname, Streams: routes}
}

func streamTo(name string, hostnames []string, backends ...config.Backend) *config.StreamRoute {
	return &config.StreamRoute{Origin: config.Origin{Kind: "TLSRoute", Namespace: "ns", Name: name}, Hostnames: hostnames, Rule: "0", Backends: backends}
}

// TestStreamPrecedence: of a listener's routes the most specific hostname wins, then the earlier route; a route is asked about nothing that
// the listener does not serve.
func TestStreamPrecedence(t *testing.T) {
	to := config.Backend{Cluster: "c", Weight: 1}
	for name, tc := range map[string]struct {
		hostname string
		routes   map[string][]string // in the order of their names
		want     map[string]string   // server name -> route; "" for none
	}{
		"exact listener": {"abc.example.com", map[string][]string{"1 older": {"*.example.com"}, "2 newer": {"abc.example.com"}},
			map[string]string{"abc.example.com": "2 newer", "x.example.com": "", "": ""}},
		"wildcard listener": {"*.example.com", map[string][]string{"1 older": {"*.com"}, "2 newer": {"*.example.com"}},
			map[string]string{"abc.example.com": "2 newer", "a.b.example.com": "2 newer", "other.com": ""}},
		"wider route alone": {"*.example.com", map[string][]string{"1": {"*.com"}},
			map[string]string{"abc.example.com": "1", "other.com": "", "example.com": ""}},
		"no hostname at the listener": {"", map[string][]string{"1": {"*.com"}, "2": {"a.com", "b.com"}},
			map[string]string{"a.com": "2", "x.com": "1", "b.com": "2", "b.org": "", "": ""}},
		"same hostname": {"", map[string][]string{"1": {"a.com"}, "2": {"a.com"}}, map[string]string{"a.com": "1"}},
		"no hostnames":  {"", map[string][]string{"1": nil}, map[string]string{"a.com": "1", "": "1"}},
		"disjoint":      {"*.org", map[string][]string{"1": {"a.com"}}, map[string]string{"a.com": "", "a.org": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			l := flowListener(config.TLS, "l", tc.hostname)
			for _, route := range slices.Sorted(func(yield func(string) bool) {
				for r := range tc.routes {
					if !yield(r) {
						return
					}
				}
			}) {
				l.Streams = append(l.Streams, streamTo(route, tc.routes[route], to))
			}
			s := newBench(t).compile(&config.Config{Listeners: []*config.Listener{l}, Clusters: []*config.Cluster{clusterNamed("c")}})
			defer s.Release()
			for sni, want := range tc.want {
				_, rule, fault := s.FindStream(&exchange.Peer{Bind: "*:443", TLS: &exchange.TLSInfo{ServerName: sni}}, false)
				got := ""
				if fault == nil {
					got = strings.TrimPrefix(rule.Ref.Route, "TLSRoute/ns/")
				}
				if got != want || fault != nil && fault.Kind != exchange.NoRoute {
					t.Errorf("%q goes to %q (%v), want %q", sni, got, fault, want)
				}
			}
		})
	}
}

// TestHandshakeDecisions: what becomes of a ClientHello on a port that has everything.
func TestHandshakeDecisions(t *testing.T) {
	cert := newCertificate(t, "x", ecdsaKey, "opened.test", "web.test")
	to := config.Backend{Cluster: "c", Weight: 1}
	opened, web := flowListener(config.TLS, "opened", "opened.test", streamTo("r", nil, to)), &config.Listener{Name: "web", Port: 443, Protocol: config.HTTPS, Hostname: "web.test"}
	broken := flowListener(config.TLS, "broken", "broken.test", streamTo("r", nil, config.Backend{Invalid: "BackendNotFound", Weight: 1}))
	routeless := flowListener(config.TLS, "routeless", "*.routeless.test", streamTo("r", []string{"a.routeless.test"}, to))
	for _, l := range []*config.Listener{opened, web, broken, routeless} {
		l.TLS = &config.ListenerTLS{Certificates: []string{"x"}}
	}
	pass := flowListener(config.TLS, "pass", "pass.test", streamTo("r", nil, to))
	s := newBench(t).compile(&config.Config{
		Listeners: []*config.Listener{broken, opened, pass, routeless, web}, Clusters: []*config.Cluster{clusterNamed("c")}, Certificates: []*config.Certificate{cert},
	})
	defer s.Release()
	if got := s.Sockets(); len(got) != 1 || got[0] != (downstream.Bind{Port: 443, Kind: downstream.KindTLS, Passthrough: true, HTTP3: true}) {
		t.Errorf("got the sockets %+v", got)
	}
	for sni, want := range map[string]struct {
		refused, opened, stream bool
		alpn                    int
		quicRefused             bool
	}{
		"web.test":         {opened: true, alpn: 2},
		"opened.test":      {opened: true, stream: true, quicRefused: true},
		"OPENED.test.":     {opened: true, stream: true, quicRefused: true},
		"pass.test":        {stream: true, quicRefused: true},
		"broken.test":      {stream: true, quicRefused: true}, // gets no certificate
		"a.routeless.test": {opened: true, stream: true, quicRefused: true},
		"b.routeless.test": {stream: true, quicRefused: true},
		"nobody.test":      {refused: true, quicRefused: true},
		"":                 {refused: true, quicRefused: true},
	} {
		got, err := s.Handshake("*:443", false, &tls.ClientHelloInfo{ServerName: sni})
		if (err != nil) != want.refused || (got.Config != nil) != want.opened || got.Stream != want.stream {
			t.Errorf("%q: got %+v, %v", sni, got, err)
		}
		if got.Config != nil && len(got.Config.NextProtos) != want.alpn {
			t.Errorf("%q: offers %q", sni, got.Config.NextProtos)
		}
		if _, err := s.Handshake("*:443", true, &tls.ClientHelloInfo{ServerName: sni}); (err != nil) != want.quicRefused {
			t.Errorf("%q over QUIC: %v", sni, err)
		}
	}
	// What a handshake was made for decides too: the listener may have changed since.
	peer := func(sni string) *exchange.Peer {
		return &exchange.Peer{Bind: "*:443", TLS: &exchange.TLSInfo{ServerName: sni}}
	}
	for _, tc := range []struct {
		sni    string
		opened bool
		want   exchange.Kind
	}{
		{"pass.test", false, ""}, {"opened.test", true, ""}, {"broken.test", false, ""}, // its backend is refused later
		{"pass.test", true, exchange.Misdirected}, {"opened.test", false, exchange.Misdirected}, {"web.test", true, exchange.NoRoute},
		{"nobody.test", false, exchange.NoRoute}, {"b.routeless.test", false, exchange.NoRoute},
	} {
		_, _, fault := s.FindStream(peer(tc.sni), tc.opened)
		if tc.want == "" && fault != nil || tc.want != "" && (fault == nil || fault.Kind != tc.want) {
			t.Errorf("%s, opened %v: got %v, want %q", tc.sni, tc.opened, fault, tc.want)
		}
	}
	// HTTP of one listener does not reach another that serves none.
	if _, fault := find(t, s, *peer("pass.test"), "pass.test"); fault == nil || fault.Kind != exchange.NoRoute {
		t.Errorf("got %v", fault)
	}
}

func TestSocketsOfFlows(t *testing.T) {
	cert := newCertificate(t, "x", ecdsaKey, "web.test")
	web := func(addrs ...netip.Addr) *config.Listener {
		return &config.Listener{Name: "web", Port: 443, Protocol: config.HTTPS, Addresses: addrs, TLS: &config.ListenerTLS{Certificates: []string{"x"}}}
	}
	here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	udp := func(port uint16, addrs ...netip.Addr) *config.Listener {
		return &config.Listener{Name: "udp", Port: port, Protocol: config.UDP, Addresses: addrs}
	}
	for name, tc := range map[string]struct {
		listeners []*config.Listener
		http3     bool
		want      int
	}{
		"UDP on another port":                      {[]*config.Listener{udp(53), web()}, true, 2},
		"UDP on the port":                          {[]*config.Listener{udp(443), web()}, false, 2},
		"UDP on the port of one address":           {[]*config.Listener{udp(443, here), web()}, false, 2},
		"UDP on every address, HTTPS on one":       {[]*config.Listener{udp(443), web(here)}, false, 2},
		"UDP on the port of another address":       {[]*config.Listener{udp(443, there), web(here)}, true, 2},
		"TLS alone has no HTTP/3":                  {[]*config.Listener{flowListener(config.TLS, "l", "")}, false, 1},
		"TCP and UDP listeners of one port, alone": {[]*config.Listener{udp(443), flowListener(config.TCP, "l", "")}, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newBench(t).compile(&config.Config{Listeners: tc.listeners, Certificates: []*config.Certificate{cert}})
			defer s.Release()
			got := s.Sockets()
			if len(got) != tc.want {
				t.Errorf("got %+v", got)
			}
			for _, b := range got {
				if b.Kind != downstream.KindUDP && b.HTTP3 != tc.http3 {
					t.Errorf("got %+v", b)
				}
			}
		})
	}
}

func TestFlowConflicts(t *testing.T) {
	for name, tc := range map[string]struct {
		listeners []*config.Listener
		want      string
	}{
		"two for TCP":        {[]*config.Listener{flowListener(config.TCP, "one", "a"), flowListener(config.TCP, "two", "b")}, "listener two: listener one has the same address"},
		"two for UDP":        {[]*config.Listener{flowListener(config.UDP, "one", ""), flowListener(config.UDP, "two", "")}, "listener two: listener one has the same address"},
		"TCP and TLS":        {[]*config.Listener{flowListener(config.TCP, "one", ""), flowListener(config.TLS, "two", "")}, "listener two: *:443 has listeners of another kind"},
		"TLS, same name":     {[]*config.Listener{flowListener(config.TLS, "one", "a"), flowListener(config.TLS, "two", "a")}, "listener two: listener one has the same address and hostname"},
		"TLS, other name":    {[]*config.Listener{flowListener(config.TLS, "one", "a"), flowListener(config.TLS, "two", "")}, ""},
		"TCP beside UDP":     {[]*config.Listener{flowListener(config.TCP, "one", ""), flowListener(config.UDP, "two", "")}, ""},
		"HTTP and TCP ports": {[]*config.Listener{httpListener("one", ""), flowListener(config.TCP, "two", "")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := newBench(t).try(&config.Config{Listeners: tc.listeners})
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if s != nil {
				s.Release()
			}
		})
	}
}

// TestStreamReuse: a table lives on as long as routes and clusters do; a listener that becomes another kind does not keep what it was.
func TestStreamReuse(t *testing.T) {
	b := newBench(t)
	route := streamTo("r", nil, config.Backend{Cluster: "c", Weight: 2}, config.Backend{Cluster: "d", Weight: 0}, config.Backend{Invalid: "X", Weight: 1})
	table := func(c *config.Config) *streamTable {
		t.Helper()
		s := b.compile(c)
		t.Cleanup(s.Release)
		return b.compiler.listeners["l"].streams
	}
	listen := func(p config.Protocol, clusters ...*config.Cluster) *config.Config {
		return &config.Config{Listeners: []*config.Listener{flowListener(p, "l", "", route)}, Clusters: clusters}
	}
	first := table(listen(config.TCP, clusterNamed("c"), clusterNamed("d")))
	rule := first.rules[0]
	if len(rule.Backends) != 2 || rule.TotalWeight != 3 || rule.Draw(0) != &rule.Backends[0] || rule.Draw(1) != &rule.Backends[0] || rule.Draw(2) != &rule.Backends[1] {
		t.Errorf("got %+v", rule)
	}
	if table(listen(config.TCP, clusterNamed("c"), clusterNamed("d"))) != first {
		t.Error("what did not change was compiled again")
	}
	other := clusterNamed("c")
	other.Protocol = config.UpstreamTCP
	second := table(listen(config.TCP, other, clusterNamed("d")))
	if second == first {
		t.Error("the route goes to a cluster that is gone")
	}
	if table(listen(config.TLS, other, clusterNamed("d"))) == second {
		t.Error("a TLS listener has the table of a TCP listener")
	}
	if table(&config.Config{Listeners: []*config.Listener{httpListener("l", "")}}) != nil || b.compiler.listeners["l"].table == nil {
		t.Error("an HTTP listener has the table of a TLS listener")
	}
	if table(listen(config.UDP, other, clusterNamed("d"))) == nil || b.compiler.listeners["l"].table != nil {
		t.Error("a UDP listener has the table of an HTTP listener")
	}
}
