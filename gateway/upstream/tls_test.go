package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// testCA signs certificates of endpoints.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newCA(t *testing.T) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{cert: cert, key: key, pem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// issue returns a server's certificate; change may be nil.
func (ca *testCA) issue(t *testing.T, dnsName, uri string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{dnsName}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if uri != "" {
		parsed, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{parsed}
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestUpstreamTLS: what an endpoint must show, and that one that does not gets not a byte of a request.
func TestUpstreamTLS(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	const name, id = "backend.example.com", "spiffe://cluster.local/ns/a/sa/b"
	good := ca.issue(t, name, id, nil)
	expired := ca.issue(t, name, id, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	forClients := ca.issue(t, name, id, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	sans := func(pairs ...string) (list []config.SubjectAltName) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, config.SubjectAltName{Type: pairs[i], Value: pairs[i+1]})
		}
		return list
	}
	tests := map[string]struct {
		cert tls.Certificate
		conf config.UpstreamTLS
		ok   bool
	}{
		"server name":                   {good, config.UpstreamTLS{ServerName: name, CAs: ca.pem}, true},
		"two CAs":                       {good, config.UpstreamTLS{ServerName: name, CAs: other.pem + ca.pem}, true},
		"another server name":           {good, config.UpstreamTLS{ServerName: "other.example.com", CAs: ca.pem}, false},
		"another CA":                    {good, config.UpstreamTLS{ServerName: name, CAs: other.pem}, false},
		"system roots":                  {good, config.UpstreamTLS{ServerName: name}, false},
		"expired":                       {expired, config.UpstreamTLS{ServerName: name, CAs: ca.pem}, false},
		"not for servers":               {forClients, config.UpstreamTLS{ServerName: name, CAs: ca.pem}, false},
		"SAN hostname":                  {good, config.UpstreamTLS{ServerName: "sni.example.com", CAs: ca.pem, SubjectAltNames: sans("Hostname", name)}, true},
		"SAN URI":                       {good, config.UpstreamTLS{ServerName: "sni.example.com", CAs: ca.pem, SubjectAltNames: sans("URI", id)}, true},
		"one SAN of two":                {good, config.UpstreamTLS{ServerName: "x", CAs: ca.pem, SubjectAltNames: sans("Hostname", "y", "URI", id)}, true},
		"another SAN":                   {good, config.UpstreamTLS{ServerName: name, CAs: ca.pem, SubjectAltNames: sans("Hostname", "y", "URI", id+"2")}, false},
		"SAN of the other type":         {good, config.UpstreamTLS{ServerName: name, CAs: ca.pem, SubjectAltNames: sans("URI", name, "Hostname", id)}, false},
		"SAN, another CA":               {good, config.UpstreamTLS{ServerName: name, CAs: other.pem, SubjectAltNames: sans("URI", id)}, false},
		"SAN, system roots":             {good, config.UpstreamTLS{ServerName: name, SubjectAltNames: sans("URI", id)}, false},
		"SAN, expired":                  {expired, config.UpstreamTLS{ServerName: name, CAs: ca.pem, SubjectAltNames: sans("URI", id)}, false},
		"SAN, certificate not for this": {forClients, config.UpstreamTLS{ServerName: name, CAs: ca.pem, SubjectAltNames: sans("URI", id)}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var sni atomic.Value
			o := newOrigin(t, originOptions{protocols: h1AndH2, tls: &tls.Config{
				GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { sni.Store(h.ServerName); return &tt.cert, nil },
			}}, hello)
			conf := cluster(o.addr)
			conf.TLS = &tt.conf
			c := single(t, conf)
			answer, fault := send(t.Context(), c, &Attempt{Request: request(t, "POST", "/"), Body: exchange.Bytes([]byte("secret"))})
			if !tt.ok {
				if fault == nil || fault.Kind != exchange.UpstreamTLS || !fault.Retryable || fault.Status != 503 {
					t.Errorf("fault %v", fault)
				}
				if o.requests.Load() != 0 {
					t.Error("the endpoint got the request")
				}
				return
			}
			if fault != nil {
				t.Fatal(fault)
			}
			drain(t, answer)
			if got := sni.Load(); got != tt.conf.ServerName {
				t.Errorf("SNI %q, want %q", got, tt.conf.ServerName)
			}
		})
	}
}

// TestUpstreamALPN: a cluster speaks what it is configured for, whatever the endpoint could do.
func TestUpstreamALPN(t *testing.T) {
	ca := newCA(t)
	cert := ca.issue(t, "b.test", "", nil)
	tests := map[string]struct {
		cluster config.UpstreamProtocol
		origin  func(*http.Protocols)
		want    string
	}{
		"HTTP/1.1 cluster":                 {config.UpstreamHTTP1, h1AndH2, "HTTP/1.1"},
		"HTTP/2 cluster":                   {config.UpstreamHTTP2, h1AndH2, "HTTP/2.0"},
		"HTTP/2 cluster, HTTP/1.1 answers": {config.UpstreamHTTP2, h1Only, "HTTP/1.1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, originOptions{protocols: tt.origin, tls: &tls.Config{Certificates: []tls.Certificate{cert}}},
				func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Proto)) })
			conf := cluster(o.addr)
			conf.Protocol, conf.TLS = tt.cluster, &config.UpstreamTLS{ServerName: "b.test", CAs: ca.pem}
			if got := get(t, single(t, conf)); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestHandshakeFaults: whatever keeps TLS from coming about is its own kind of fault.
func TestHandshakeFaults(t *testing.T) {
	ca := newCA(t)
	cert := ca.issue(t, "b.test", "", nil)
	serve := func(conf *tls.Config) func(net.Conn) {
		conf.Certificates = []tls.Certificate{cert}
		return func(raw net.Conn) {
			conn := tls.Server(raw, conf)
			if conn.Handshake() == nil {
				_, _ = conn.Read(make([]byte, 1))
			}
		}
	}
	tests := map[string]func(net.Conn){
		"plaintext": func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) },
		"old version": func(c net.Conn) {
			serve(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})(c)
		},
		"client certificate wanted": serve(&tls.Config{ClientAuth: tls.RequireAnyClientCert}),
		"client certificate wanted, TLS 1.2": serve(&tls.Config{
			ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12,
		}),
	}
	for name, script := range tests {
		t.Run(name, func(t *testing.T) {
			conf := cluster(scripted(t, script))
			conf.TLS = &config.UpstreamTLS{ServerName: "b.test", CAs: ca.pem}
			_, fault := send(t.Context(), single(t, conf), &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody})
			if fault == nil || fault.Kind != exchange.UpstreamTLS {
				t.Errorf("fault %v", fault)
			}
		})
	}
}
