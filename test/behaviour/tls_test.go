package behaviour

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/test/harness"
)

// named is an HTTPS listener for one hostname that answers with its name, and its cluster.
func named(t *testing.T, name, hostname string, port uint16, cert *config.Certificate) (*config.Listener, *config.Cluster) {
	t.Helper()
	origin := harness.NewOrigin(t, harness.UpH1, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) })
	cluster := origin.Cluster(name)
	l := harness.Listener(harness.H2, port, harness.Route(name, &config.Rule{Name: "0", Backends: harness.To(cluster)}))
	l.Name, l.Hostname = "test/gw/"+name, hostname
	l.TLS.Certificates = []string{cert.Name}
	return l, cluster
}

// house is a socket with three HTTPS listeners: one exact, one wildcard, one for a third name.
func house(t *testing.T) (g *harness.Gateway, address string) {
	t.Helper()
	exact, wild, other := harness.NewCertificate(t, "exact", "a.wild.test"), harness.NewCertificate(t, "wild", "*.wild.test"),
		harness.NewCertificate(t, "other", "other.test")
	g = harness.NewGateway(t, harness.GatewayOptions{})
	port, _ := g.ApplyOnFreePort(func(port uint16) *config.Config {
		l1, c1 := named(t, "exact", "a.wild.test", port, exact)
		l2, c2 := named(t, "other", "other.test", port, other)
		l3, c3 := named(t, "wild", "*.wild.test", port, wild)
		return &config.Config{
			Listeners: []*config.Listener{l1, l2, l3}, Clusters: []*config.Cluster{c1, c2, c3},
			Certificates: []*config.Certificate{exact, other, wild},
		}
	})
	return g, harness.Address(port)
}

func handshakeState(t *testing.T, address string, conf *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, conf)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

func TestSNI(t *testing.T) {
	_, address := house(t)
	for sni, want := range map[string]string{
		"a.wild.test": "a.wild.test", "A.Wild.TEST": "a.wild.test", "b.wild.test": "*.wild.test", "x.y.wild.test": "*.wild.test",
		"other.test": "other.test", "wild.test": "", "nobody.test": "", "": "",
	} {
		conf := harness.ClientTLS(sni)
		conf.InsecureSkipVerify = true // the name in the certificate is what is looked at
		cs, err := handshakeState(t, address, conf)
		switch {
		case want == "" && err == nil:
			t.Errorf("SNI %q: got the certificate of %v, want a refused handshake", sni, cs.PeerCertificates[0].DNSNames)
		case want != "" && err != nil:
			t.Errorf("SNI %q: %v", sni, err)
		case want != "" && cs.PeerCertificates[0].DNSNames[0] != want:
			t.Errorf("SNI %q: got the certificate of %v, want %s", sni, cs.PeerCertificates[0].DNSNames, want)
		}
	}
}

func TestTLSVersionsAndGroups(t *testing.T) {
	_, address := house(t)
	for name, tc := range map[string]struct {
		min, max uint16
		want     uint16
	}{
		"TLS 1.1 is refused":   {tls.VersionTLS10, tls.VersionTLS11, 0},
		"TLS 1.2 is the least": {tls.VersionTLS12, tls.VersionTLS12, tls.VersionTLS12},
		"TLS 1.3 is preferred": {tls.VersionTLS12, tls.VersionTLS13, tls.VersionTLS13},
	} {
		conf := harness.ClientTLS("other.test")
		conf.MinVersion, conf.MaxVersion = tc.min, tc.max
		cs, err := handshakeState(t, address, conf)
		if (err == nil) != (tc.want != 0) || cs.Version != tc.want {
			t.Errorf("%s: got version %x, %v", name, cs.Version, err)
		}
	}
	cs, err := handshakeState(t, address, harness.ClientTLS("other.test"))
	if err != nil || cs.CurveID != tls.X25519MLKEM768 {
		t.Errorf("got the key exchange %v, %v, want X25519MLKEM768", cs.CurveID, err)
	}
}

func TestALPN(t *testing.T) {
	_, address := house(t)
	for offer, want := range map[string]string{"h2,http/1.1": "h2", "http/1.1,h2": "h2", "http/1.1": "http/1.1", "": ""} {
		conf := harness.ClientTLS("other.test")
		if offer != "" {
			conf.NextProtos = strings.Split(offer, ",")
		}
		cs, err := handshakeState(t, address, conf)
		if err != nil || cs.NegotiatedProtocol != want {
			t.Errorf("offer %q: got %q, %v, want %q", offer, cs.NegotiatedProtocol, err, want)
		}
	}
	conf := harness.ClientTLS("other.test")
	conf.NextProtos = []string{"spdy/3"}
	if cs, err := handshakeState(t, address, conf); err == nil {
		t.Errorf("an offer of nothing known: got %q, want a refused handshake", cs.NegotiatedProtocol)
	}
}

// A request must come over a connection that was made for its listener: another listener's Host is 421, nobody's is 404 (Gateway API
// Listener.hostname).
func TestListenerIsolation(t *testing.T) {
	for _, d := range []harness.Down{harness.H1TLS, harness.H2, harness.H3} {
		t.Run(string(d), func(t *testing.T) {
			t.Parallel()
			_, address := house(t)
			for _, tc := range []struct {
				sni, host string
				status    int
				body      string
			}{
				{"a.wild.test", "a.wild.test", 200, "exact"},
				{"a.wild.test", "A.WILD.test:443", 200, "exact"},
				{"b.wild.test", "b.wild.test", 200, "wild"},
				{"b.wild.test", "c.wild.test", 200, "wild"},
				{"other.test", "other.test", 200, "other"},
				{"other.test", "a.wild.test", 421, ""},
				{"b.wild.test", "a.wild.test", 421, ""},
				{"a.wild.test", "b.wild.test", 421, ""},
				{"other.test", "nobody.test", 404, ""},
				{"other.test", "wild.test", 404, ""},
				{"other.test", "127.0.0.1", 404, ""},
			} {
				conf := harness.ClientTLS(tc.sni)
				conf.InsecureSkipVerify = true // crypto/tls takes *.wild.test for one label only
				client := harness.NewClient(t, d, harness.ClientOptions{Address: address, Host: tc.sni, TLS: conf})
				r := harness.MustDo(t, client, harness.Request{Authority: tc.host})
				if r.Status != tc.status || tc.body != "" && string(r.Body) != tc.body {
					t.Errorf("SNI %s, Host %s: got %d %q, want %d %q", tc.sni, tc.host, r.Status, r.Body, tc.status, tc.body)
				}
			}
		})
	}
}

// The most specific of the listeners on a plaintext port has the request to itself, even when only another has a route for it.
func TestPlaintextListenerIsolation(t *testing.T) {
	for _, d := range []harness.Down{harness.H1, harness.H2C} {
		t.Run(string(d), func(t *testing.T) {
			g := harness.NewGateway(t, harness.GatewayOptions{})
			port, _ := g.ApplyOnFreePort(func(port uint16) *config.Config {
				all, c1 := named(t, "all", "", port, &config.Certificate{})
				one, c2 := named(t, "one", "one.test", port, &config.Certificate{})
				empty, _ := named(t, "zempty", "*.empty.test", port, &config.Certificate{})
				empty.Routes = nil
				for _, l := range []*config.Listener{all, one, empty} {
					l.Protocol, l.TLS = config.HTTP, nil
				}
				return &config.Config{Listeners: []*config.Listener{all, one, empty}, Clusters: []*config.Cluster{c1, c2}}
			})
			client := harness.NewClient(t, d, harness.ClientOptions{Address: harness.Address(port), Host: "x.test"})
			for host, want := range map[string]string{"one.test": "one", "ONE.test:80": "one", "one.test.": "one", "two.test": "all", "127.0.0.1": "all", "a.empty.test": ""} {
				r := harness.MustDo(t, client, harness.Request{Authority: host})
				if want == "" && r.Status != 404 || want != "" && string(r.Body) != want {
					t.Errorf("%s: got %d %q, want %q", host, r.Status, r.Body, want)
				}
			}
		})
	}
}

// A session of one listener must not resume on another: it would carry the identity established there.
func TestSessionTicketsStayWithTheirListener(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			_, address := house(t)
			cache := &oneSession{}
			resumed := func(sni string) bool {
				conf := harness.ClientTLS(sni)
				conf.MaxVersion, conf.ClientSessionCache, conf.InsecureSkipVerify = version, cache, true
				conf.NextProtos = []string{"http/1.1"}
				conn, err := tls.Dial("tcp", address, conf)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+sni+"\r\nConnection: close\r\n\r\n")
				io.Copy(io.Discard, conn) // tickets of TLS 1.3 come after the handshake
				return conn.ConnectionState().DidResume
			}
			if resumed("other.test") {
				t.Fatal("the first handshake resumed")
			}
			if !resumed("other.test") {
				t.Fatal("a session does not resume on its own listener")
			}
			if resumed("a.wild.test") {
				t.Error("a session of other.test resumed on a.wild.test")
			}
		})
	}
}

// oneSession offers the one session it has to every server, as a hostile client does.
type oneSession struct{ state *tls.ClientSessionState }

func (s *oneSession) Get(string) (*tls.ClientSessionState, bool) { return s.state, s.state != nil }
func (s *oneSession) Put(_ string, state *tls.ClientSessionState) {
	if state != nil {
		s.state = state
	}
}

func TestAltSvcLeadsToHTTP3(t *testing.T) {
	for _, d := range []harness.Down{harness.H1TLS, harness.H2} {
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
		r := harness.MustDo(t, env.Client, harness.Request{})
		port, ok := strings.CutPrefix(r.Fields.Get("Alt-Svc"), `h3=":`)
		port, _, _ = strings.Cut(port, `"`)
		if !ok || !strings.HasSuffix(env.Address(), ":"+port) {
			t.Fatalf("%s: got Alt-Svc %q", d, r.Fields.Get("Alt-Svc"))
		}
		h3 := harness.NewClient(t, harness.H3, harness.ClientOptions{Address: "127.0.0.1:" + port, Host: harness.DefaultHost})
		if r := harness.MustDo(t, h3, harness.Request{}); string(r.Body) != "ok" {
			t.Errorf("%s: http/3 answered %d %q", d, r.Status, r.Body)
		}
	}
	for _, d := range []harness.Down{harness.H1, harness.H2C} {
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, teapot)
		if r := harness.MustDo(t, env.Client, harness.Request{}); r.Fields.Has("Alt-Svc") {
			t.Errorf("%s: got Alt-Svc %q on a listener without TLS", d, r.Fields.Get("Alt-Svc"))
		}
	}
}
