package snapshot

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// clientCA signs client certificates.
type clientCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newClientCA(t *testing.T) *clientCA {
	t.Helper()
	key := ecdsaKey(t).(*ecdsa.PrivateKey)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &clientCA{cert: cert, key: key, pem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

func (ca *clientCA) issue(t *testing.T, usage x509.ExtKeyUsage, end time.Time) tls.Certificate {
	t.Helper()
	key := ecdsaKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: end, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// validated is a configuration with one HTTPS listener for a.test.
func validated(cert *config.Certificate, rules *config.ClientValidation) *config.Config {
	c := tlsConfig([]*config.Certificate{cert}, "a.test")
	c.Listeners[0].TLS.ClientValidation = rules
	c.Listeners[0].Routes = []*config.Route{routeTo("r", nil)}
	return c
}

// TestClientRules: whom the handshake lets in, and who counts as known afterwards.
func TestClientRules(t *testing.T) {
	ca, other := newClientCA(t), newClientCA(t)
	later, earlier := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	good, foreign := ca.issue(t, x509.ExtKeyUsageClientAuth, later), other.issue(t, x509.ExtKeyUsageClientAuth, later)
	expired, server := ca.issue(t, x509.ExtKeyUsageClientAuth, earlier), ca.issue(t, x509.ExtKeyUsageServerAuth, later)
	strict, lax := &config.ClientValidation{CAs: ca.pem}, &config.ClientValidation{CAs: ca.pem, AllowInsecureFallback: true}
	tests := map[string]struct {
		rules  *config.ClientValidation
		client *tls.Certificate
		in     bool
		known  bool
	}{
		"good":                            {strict, &good, true, true},
		"none":                            {strict, nil, false, false},
		"of another CA":                   {strict, &foreign, false, false},
		"expired":                         {strict, &expired, false, false},
		"for servers":                     {strict, &server, false, false},
		"two CAs":                         {&config.ClientValidation{CAs: other.pem + ca.pem}, &good, true, true},
		"fallback: good":                  {lax, &good, true, true},
		"fallback: none":                  {lax, nil, true, false},
		"fallback: of another CA":         {lax, &foreign, true, false},
		"fallback: expired":               {lax, &expired, true, false},
		"fallback: for servers":           {lax, &server, true, false},
		"nobody asks":                     {nil, &good, true, false},
		"nobody asks and nobody presents": {nil, nil, true, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newBench(t).compile(validated(newCertificate(t, "x", ecdsaKey, "a.test"), tt.rules))
			defer s.Release()
			seen := exchange.TLSInfo{ServerName: "a.test"}
			client := &tls.Config{ServerName: "a.test"}
			if tt.client != nil {
				// Whatever CAs the listener asks for, as a hostile client does.
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					seen.PeerCertificates = tt.client.Certificate
					return tt.client, nil
				}
			}
			_, err := handshake(t, func(h *tls.ClientHelloInfo) (*tls.Config, error) { return s.TLS("*:443", false, h) }, client)
			if (err == nil) != tt.in {
				t.Fatalf("handshake: %v", err)
			}
			_, fault := find(t, s, exchange.Peer{Bind: "*:443", TLS: &seen}, "a.test")
			if (fault == nil) != tt.in || fault != nil && fault.Kind != exchange.Misdirected {
				t.Errorf("a request over such a connection: %v", fault)
			}
			if seen.TurnedAway() != (fault != nil) {
				t.Errorf("turned away: %t", seen.TurnedAway())
			}
			if seen.Verified() != tt.known {
				t.Errorf("known: %t, want %t", seen.Verified(), tt.known)
			}
		})
	}
	broken := validated(newCertificate(t, "x", ecdsaKey, "a.test"), &config.ClientValidation{CAs: "none"})
	if _, err := newBench(t).try(broken); err == nil {
		t.Error("a listener opened with CAs that do not parse")
	}
}

// TestRulesChange: requests over a connection that was made before are held against the rules of now.
func TestRulesChange(t *testing.T) {
	ca, other := newClientCA(t), newClientCA(t)
	client := ca.issue(t, x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour))
	b, cert := newBench(t), newCertificate(t, "x", ecdsaKey, "a.test")
	peer := exchange.Peer{Bind: "*:443", TLS: &exchange.TLSInfo{ServerName: "a.test", PeerCertificates: client.Certificate}}
	anonymous := exchange.Peer{Bind: "*:443", TLS: &exchange.TLSInfo{ServerName: "a.test"}}
	steps := []struct {
		name            string
		rules           *config.ClientValidation
		in, known, anon bool
	}{
		{"nobody asks", nil, true, false, true},
		{"the client's CA", &config.ClientValidation{CAs: ca.pem}, true, true, false},
		{"another CA", &config.ClientValidation{CAs: other.pem}, false, false, false},
		{"both", &config.ClientValidation{CAs: other.pem + ca.pem}, true, true, false},
		{"another CA, with the fallback", &config.ClientValidation{CAs: other.pem, AllowInsecureFallback: true}, true, false, true},
		{"nobody asks any more", nil, true, false, true},
	}
	for _, step := range steps {
		s := b.compile(validated(cert, step.rules))
		defer s.Release()
		for range 2 {
			_, fault := find(t, s, peer, "a.test")
			if (fault == nil) != step.in || peer.TLS.Verified() != step.known {
				t.Errorf("%s: %v, known %t", step.name, fault, peer.TLS.Verified())
			}
			if _, fault := find(t, s, anonymous, "a.test"); (fault == nil) != step.anon || anonymous.TLS.Verified() {
				t.Errorf("%s: without a certificate: %v", step.name, fault)
			}
		}
	}
}

// TestRulesAndSessions: a session resumes under the rules that it began with, with its certificate, and under no others.
func TestRulesAndSessions(t *testing.T) {
	ca, other := newClientCA(t), newClientCA(t)
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			client := &tls.Config{
				ServerName: "a.test", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(10),
				Certificates: []tls.Certificate{ca.issue(t, x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour))},
			}
			connect := func(rules *config.ClientValidation) (resumed bool, err error) {
				s := b.compile(validated(newCertificate(t, "x", ecdsaKey, "a.test"), rules))
				defer s.Release()
				state, err := handshake(t, func(h *tls.ClientHelloInfo) (*tls.Config, error) { return s.TLS("*:443", false, h) }, client)
				return state.DidResume, err
			}
			steps := []struct {
				name     string
				rules    *config.ClientValidation
				resumes  bool
				turnsOut bool
			}{
				{"first", &config.ClientValidation{CAs: ca.pem}, false, false},
				{"same rules", &config.ClientValidation{CAs: ca.pem}, true, false},
				{"another mode", &config.ClientValidation{CAs: ca.pem, AllowInsecureFallback: true}, false, false},
				{"another CA", &config.ClientValidation{CAs: other.pem}, false, true},
				{"no rules", nil, false, false},
				{"no rules again", nil, true, false},
				{"the first rules again", &config.ClientValidation{CAs: ca.pem}, false, false},
			}
			for _, step := range steps {
				resumed, err := connect(step.rules)
				if resumed != step.resumes || (err != nil) != step.turnsOut {
					t.Errorf("%s: resumed %t, %v", step.name, resumed, err)
				}
			}
		})
	}
}

// TestRulesAndExplain: what would be done with a request is explained for a client that passes.
func TestRulesAndExplain(t *testing.T) {
	s := newBench(t).compile(validated(newCertificate(t, "x", ecdsaKey, "a.test"), &config.ClientValidation{CAs: newClientCA(t).pem}))
	defer s.Release()
	head := &exchange.Head{Method: "GET", Scheme: "https", Authority: "a.test", Target: "/"}
	if err := head.Normalize(); err != nil {
		t.Fatal(err)
	}
	peer := &exchange.Peer{Bind: "*:443", TLS: &exchange.TLSInfo{ServerName: "a.test"}}
	if d := s.Explain(peer, head, func(config.Policy) string { return "" }, 3); d.Refused != nil || d.Rule == nil {
		t.Errorf("got %+v", d)
	}
}

// TestRulesAreKept: what did not change keeps its number, so that no connection is verified again.
func TestRulesAreKept(t *testing.T) {
	ca := newClientCA(t)
	b := newBench(t)
	rules := func(cert *config.Certificate, v config.ClientValidation) *clientRules {
		s := b.compile(validated(cert, &v))
		defer s.Release()
		return b.compiler.tls["listener a.test"].clients
	}
	cert := newCertificate(t, "x", ecdsaKey, "a.test")
	first := rules(cert, config.ClientValidation{CAs: ca.pem})
	if rules(newCertificate(t, "x", ecdsaKey, "a.test"), config.ClientValidation{CAs: ca.pem}) != first {
		t.Error("another server certificate made other rules")
	}
	if next := rules(cert, config.ClientValidation{CAs: ca.pem, AllowInsecureFallback: true}); next == first || next.number == first.number {
		t.Error("another mode kept the rules")
	}
}

// TestAdmitAllocs: a request over a connection that was verified before costs no allocation.
func TestAdmitAllocs(t *testing.T) {
	ca := newClientCA(t)
	client := ca.issue(t, x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour))
	b := newBench(t)
	s := b.compile(validated(newCertificate(t, "x", ecdsaKey, "a.test"), &config.ClientValidation{CAs: ca.pem}))
	defer s.Release()
	info := &exchange.TLSInfo{ServerName: "a.test", PeerCertificates: client.Certificate}
	l := b.compiler.listeners["listener a.test"]
	if fault := l.admitClient(info); fault != nil {
		t.Fatal(fault)
	}
	if n := testing.AllocsPerRun(100, func() { _ = l.admitClient(info) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
