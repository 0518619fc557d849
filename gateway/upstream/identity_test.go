package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"sync"
	"testing"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// certificateOf writes a pair as a configuration holds it.
func certificateOf(t *testing.T, name string, pair tls.Certificate) *config.Certificate {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &config.Certificate{
		Name: name, Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})),
		Key: config.Secret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	}
}

// curious is an origin that asks for client certificates of a CA and tells by whose each request came: the certificate's first DNS name.
type curious struct {
	*origin
	ca *testCA

	mu      sync.Mutex
	callers []string // guarded by mu
	resumed int      // handshakes that resumed; guarded by mu
}

func newCurious(t *testing.T, server, clients *testCA, protocols func(*http.Protocols)) *curious {
	t.Helper()
	a := &curious{ca: clients}
	cert := server.issue(t, "backend.test", "", nil)
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.DidResume {
			a.mu.Lock()
			a.resumed++
			a.mu.Unlock()
		}
		return nil
	}
	a.origin = newOrigin(t, originOptions{protocols: protocols, tls: conf}, func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.callers = append(a.callers, r.TLS.PeerCertificates[0].DNSNames[0])
		a.mu.Unlock()
		hello(w, r)
	})
	return a
}

func (a *curious) last() (caller string, resumed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.callers) == 0 {
		return "", a.resumed
	}
	return a.callers[len(a.callers)-1], a.resumed
}

func asClient(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }

// TestClientCertificate: an endpoint that asks gets the cluster's certificate, and one that is renewed without another change of the
// cluster is used by new connections, which resume no session of the old one.
func TestClientCertificate(t *testing.T) {
	for name, protocol := range map[string]config.UpstreamProtocol{"HTTP/1.1": config.UpstreamHTTP1, "HTTP/2": config.UpstreamHTTP2} {
		t.Run(name, func(t *testing.T) {
			ca := newCA(t)
			o := newCurious(t, ca, ca, h1AndH2)
			conf := cluster(o.addr)
			conf.Protocol = protocol
			conf.TLS = &config.UpstreamTLS{ServerName: "backend.test", CAs: ca.pem, ClientCertificate: "n/client"}
			first := certificateOf(t, "n/client", ca.issue(t, "first", "", asClient))
			second := certificateOf(t, "n/client", ca.issue(t, "second", "", asClient))
			m := newManager(t, Options{})
			apply := func(certs ...*config.Certificate) *Lease {
				t.Helper()
				lease, problems := m.Apply([]*config.Cluster{conf}, certs...)
				if len(problems) > 0 {
					t.Fatal(problems)
				}
				t.Cleanup(lease.Release)
				return lease
			}
			ask := func(l *Lease) {
				t.Helper()
				answer, fault := send(t.Context(), l.Cluster("c"), &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody})
				if fault != nil {
					t.Fatal(fault)
				}
				drain(t, answer)
			}
			fresh := func(l *Lease) { // the next request needs a new connection
				t.Helper()
				l.Cluster("c").set.Load().list[0].client.retire()
			}
			before := apply(first)
			ask(before)
			if got, _ := o.last(); got != "first" {
				t.Fatalf("the endpoint saw %q", got)
			}
			after := apply(second)
			if after.Cluster("c") != before.Cluster("c") {
				t.Error("the renewed certificate made another cluster")
			}
			ask(after)
			if got, _ := o.last(); got != "first" {
				t.Errorf("an open connection now stands for %q", got)
			}
			fresh(after)
			o.CloseClientConnections()
			ask(after)
			if got, resumed := o.last(); got != "second" || resumed != 0 {
				t.Errorf("the endpoint saw %q after the renewal, %d resumed", got, resumed)
			}
		})
	}
}

// TestClientCertificateMissing: a cluster whose certificate is missing or broken gets nothing through, until it is mended.
func TestClientCertificateMissing(t *testing.T) {
	ca := newCA(t)
	o := newCurious(t, ca, ca, h1Only)
	conf := cluster(o.addr)
	conf.TLS = &config.UpstreamTLS{ServerName: "backend.test", CAs: ca.pem, ClientCertificate: "n/client"}
	good := certificateOf(t, "n/client", ca.issue(t, "good", "", asClient))
	broken := &config.Certificate{Name: "n/client", Chain: good.Chain, Key: config.Secret("x")}
	m := newManager(t, Options{})
	steps := []struct {
		name    string
		certs   []*config.Certificate
		problem bool
		serves  bool
	}{
		{"missing", nil, true, false},
		{"of another name", []*config.Certificate{{Name: "n/other", Chain: good.Chain, Key: good.Key}}, true, false},
		{"broken", []*config.Certificate{broken}, true, false},
		{"mended", []*config.Certificate{good}, false, true},
		{"broken again: the one before stays", []*config.Certificate{broken}, true, true},
		{"missing again", nil, true, false},
	}
	for _, step := range steps {
		lease, problems := m.Apply([]*config.Cluster{conf}, step.certs...)
		t.Cleanup(lease.Release)
		if (problems["c"] != nil) != step.problem {
			t.Errorf("%s: problems %v", step.name, problems)
		}
		answer, fault := send(t.Context(), lease.Cluster("c"), &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody})
		if (fault == nil) != step.serves {
			t.Errorf("%s: fault %v", step.name, fault)
		}
		if fault == nil {
			drain(t, answer)
		}
	}
}

// TestVerificationChanges: connections that were verified in one way carry nothing after the way changed.
func TestVerificationChanges(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	o := newOrigin(t, originOptions{protocols: h1Only, tls: &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "backend.test", "", nil)}}}, hello)
	for name, change := range map[string]func(*config.UpstreamTLS){
		"the CAs":  func(c *config.UpstreamTLS) { c.CAs = other.pem },
		"the name": func(c *config.UpstreamTLS) { c.ServerName = "other.test" },
		"other names": func(c *config.UpstreamTLS) {
			c.SubjectAltNames = []config.SubjectAltName{{Type: "URI", Value: "spiffe://x/y"}}
		},
		"system's roots": func(c *config.UpstreamTLS) { c.CAs = "" },
	} {
		t.Run(name, func(t *testing.T) {
			conf := cluster(o.addr)
			conf.TLS = &config.UpstreamTLS{ServerName: "backend.test", CAs: ca.pem}
			m := newManager(t, Options{})
			before, _ := m.Apply([]*config.Cluster{conf})
			defer before.Release()
			answer, fault := send(t.Context(), before.Cluster("c"), &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody})
			if fault != nil {
				t.Fatal(fault)
			}
			drain(t, answer)
			changed := *conf
			settings := *conf.TLS
			change(&settings)
			changed.TLS = &settings
			after, _ := m.Apply([]*config.Cluster{&changed})
			defer after.Release()
			if _, fault := send(t.Context(), after.Cluster("c"), &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody}); fault == nil {
				t.Error("the request went through")
			}
		})
	}
}

// TestWildcardNames: a policy's "*.x" stands for that name in a certificate, or one with one label in its place.
func TestWildcardNames(t *testing.T) {
	ca := newCA(t)
	for name, tt := range map[string]struct {
		certificate, policy string
		want                bool
	}{
		"the wildcard itself": {"*.example.com", "*.example.com", true},
		"one label":           {"A.Example.com", "*.example.com", true},
		"two labels":          {"a.b.example.com", "*.example.com", false},
		"the apex":            {"example.com", "*.example.com", false},
		"a longer name":       {"a.badexample.com", "*.example.com", false},
		"exact":               {"*.example.com", "a.example.com", true},
	} {
		pair := ca.issue(t, tt.certificate, "", nil)
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if got := carries(leaf, config.SubjectAltName{Type: "Hostname", Value: tt.policy}); got != tt.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}
