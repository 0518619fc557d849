package behaviour

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/test/harness"
)

// guarded is a socket whose HTTPS listener for in.test asks for client certificates; the one for out.test does as its rules say.
func guarded(t *testing.T, rules, outside *config.ClientValidation) (g *harness.Gateway, address string, cfg *config.Config) {
	t.Helper()
	cert := harness.NewCertificate(t, "both", "in.test", "out.test")
	g = harness.NewGateway(t, harness.GatewayOptions{})
	port, cfg := g.ApplyOnFreePort(func(port uint16) *config.Config {
		l1, c1 := named(t, "in", "in.test", port, cert)
		l2, c2 := named(t, "out", "out.test", port, cert)
		l1.TLS.ClientValidation, l2.TLS.ClientValidation = rules, outside
		return &config.Config{
			Listeners: []*config.Listener{l1, l2}, Clusters: []*config.Cluster{c1, c2}, Certificates: []*config.Certificate{cert},
		}
	})
	return g, harness.Address(port), cfg
}

// as are the settings of a client that presents a certificate, whatever CAs it is asked for; nil presents none.
func as(host string, cert *tls.Certificate) *tls.Config {
	conf := harness.ClientTLS(host)
	if cert != nil {
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return conf
}

// TestClientValidation: with the right certificate a client is served, with another or none it gets nowhere, and the Host of another
// listener is no way around.
func TestClientValidation(t *testing.T) {
	ours, other := harness.NewAuthority(t), harness.NewAuthority(t)
	good, foreign := ours.Client(t, "good"), other.Client(t, "foreign")
	strict, lax := &config.ClientValidation{CAs: ours.PEM()}, &config.ClientValidation{CAs: ours.PEM(), AllowInsecureFallback: true}
	tests := map[string]struct {
		rules     *config.ClientValidation
		cert      *tls.Certificate
		sni, host string
		status    int // 0: turned away
	}{
		"good":                           {strict, &good, "in.test", "in.test", 200},
		"of another CA":                  {strict, &foreign, "in.test", "in.test", 0},
		"none":                           {strict, nil, "in.test", "in.test", 0},
		"the open listener":              {strict, nil, "out.test", "out.test", 200},
		"by the open listener":           {strict, nil, "out.test", "in.test", 421},
		"by the open listener, good":     {strict, &good, "out.test", "in.test", 421},
		"with the fallback":              {lax, &good, "in.test", "in.test", 200},
		"with the fallback, another CA":  {lax, &foreign, "in.test", "in.test", 200},
		"with the fallback, none":        {lax, nil, "in.test", "in.test", 200},
		"with the fallback, other hosts": {lax, nil, "in.test", "out.test", 421},
	}
	for _, d := range []harness.Down{harness.H1TLS, harness.H2, harness.H3} {
		for name, tt := range tests {
			t.Run(string(d)+"/"+name, func(t *testing.T) {
				_, address, _ := guarded(t, tt.rules, nil)
				client := harness.NewClient(t, d, harness.ClientOptions{Address: address, Host: tt.sni, TLS: as(tt.sni, tt.cert)})
				r, err := harness.Do(client, harness.Request{Authority: tt.host})
				switch {
				case tt.status == 0 && err == nil:
					t.Errorf("got %d, want to be turned away", r.Status)
				case tt.status != 0 && (err != nil || r.Status != tt.status):
					t.Errorf("got %+v, %v, want %d", r, err, tt.status)
				}
			})
		}
	}
}

// TestClientValidationChanges: a connection that is open when the rules change is held against the new ones, and so is a session that it
// could resume.
func TestClientValidationChanges(t *testing.T) {
	ours, other := harness.NewAuthority(t), harness.NewAuthority(t)
	good := ours.Client(t, "good")
	for _, d := range []harness.Down{harness.H1TLS, harness.H2, harness.H3} {
		t.Run(string(d), func(t *testing.T) {
			g, address, cfg := guarded(t, &config.ClientValidation{CAs: ours.PEM()}, nil)
			conf := as("in.test", &good)
			conf.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			client := harness.NewClient(t, d, harness.ClientOptions{Address: address, Host: "in.test", TLS: conf})
			if r := harness.MustDo(t, client, harness.Request{}); r.Status != 200 {
				t.Fatalf("got %d", r.Status)
			}
			apply := func(cas string) {
				next := *cfg
				next.Listeners = append([]*config.Listener(nil), cfg.Listeners...)
				l, settings := *cfg.Listeners[0], *cfg.Listeners[0].TLS
				settings.ClientValidation = &config.ClientValidation{CAs: cas}
				l.TLS, next.Listeners[0] = &settings, &l
				g.Apply(&next)
			}
			apply(other.PEM() + ours.PEM())
			if r := harness.MustDo(t, client, harness.Request{}); r.Status != 200 {
				t.Errorf("a CA more: got %d, want 200", r.Status)
			}
			apply(other.PEM())
			if r := harness.MustDo(t, client, harness.Request{}); r.Status != 421 {
				t.Errorf("over the open connection: got %d, want 421", r.Status)
			}
			// The connection ends with the answer: who does not know what 421 means comes again by itself, and is turned away.
			for began := time.Now(); ; {
				r, err := harness.Do(client, harness.Request{})
				if err != nil {
					break
				}
				if r.Status != 421 || time.Since(began) > harness.Patience {
					t.Fatalf("the client is still there, with %d", r.Status)
				}
			}
			again := harness.NewClient(t, d, harness.ClientOptions{Address: address, Host: "in.test", TLS: conf})
			if r, err := harness.Do(again, harness.Request{}); err == nil {
				t.Errorf("a new connection with the old session: got %d, want to be turned away", r.Status)
			}
		})
	}
}

// TestUpstreamClientCertificate: an origin that asks for a certificate gets that of the cluster, and a renewed one after it is renewed.
func TestUpstreamClientCertificate(t *testing.T) {
	ours := harness.NewAuthority(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(ours.PEM()))
	for name, protocol := range map[string]config.UpstreamProtocol{"h1": config.UpstreamHTTP1, "h2": config.UpstreamHTTP2} {
		t.Run(name, func(t *testing.T) {
			origin := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
			}))
			origin.EnableHTTP2 = true
			origin.TLS = harness.OriginTLS()
			origin.TLS.NextProtos = nil
			origin.TLS.ClientAuth, origin.TLS.ClientCAs = tls.RequireAndVerifyClientCert, pool
			origin.StartTLS()
			defer origin.Close()
			cluster := harness.Cluster("origin", harness.UpH2TLS, netip.MustParseAddrPort(origin.Listener.Addr().String()))
			cluster.Protocol = protocol
			cluster.TLS.ClientCertificate = "test/client"
			g := harness.NewGateway(t, harness.GatewayOptions{})
			with := func(port uint16, cert *config.Certificate) *config.Config {
				cfg := harness.Config([]*config.Listener{harness.Listener(harness.H1, port, harness.Route("r",
					&config.Rule{Name: "0", Backends: harness.To(cluster)}))}, cluster)
				cfg.Certificates = append(cfg.Certificates, cert)
				return cfg
			}
			port, _ := g.ApplyOnFreePort(func(port uint16) *config.Config { return with(port, ours.ClientCertificate(t, "client", "first")) })
			client := harness.NewClient(t, harness.H1, harness.ClientOptions{Address: harness.Address(port), Host: "a.test"})
			if r := harness.MustDo(t, client, harness.Request{}); string(r.Body) != "first" {
				t.Fatalf("got %d %q", r.Status, r.Body)
			}
			g.Apply(with(port, ours.ClientCertificate(t, "client", "second")))
			origin.CloseClientConnections()
			if r := harness.MustDo(t, client, harness.Request{}); string(r.Body) != "second" {
				t.Errorf("after the renewal: got %d %q", r.Status, r.Body)
			}
		})
	}
}
