package snapshot

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
)

func ecdsaKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newCertificate makes a self-signed certificate whose serial number is found again in what a server shows.
func newCertificate(t *testing.T, name string, newKey func(*testing.T) crypto.Signer, hosts ...string) *config.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes([]byte(name)), DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &config.Certificate{
		Name: name, Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

// handshake connects a client to server settings and returns what the client saw.
func handshake(t *testing.T, server func(*tls.ClientHelloInfo) (*tls.Config, error), client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	defer served.Wait()
	defer near.Close()
	served.Go(func() {
		far, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		conn := tls.Server(far, &tls.Config{GetConfigForClient: server})
		if conn.Handshake() == nil {
			_, _ = conn.Write([]byte("x")) // after the session tickets
		}
	})
	client = client.Clone()
	client.InsecureSkipVerify = true
	conn := tls.Client(near, client)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return tls.ConnectionState{}, err
	}
	return conn.ConnectionState(), nil
}

// TestChooser: the exact name before the wildcard before the first listed, and of each what the client can verify.
func TestChooser(t *testing.T) {
	chooser, err := newChooser([]*config.Certificate{
		newCertificate(t, "other", ecdsaKey, "other.test"),
		newCertificate(t, "wild", ecdsaKey, "*.Example.com"),
		newCertificate(t, "exact", ecdsaKey, "a.example.com"),
		newCertificate(t, "both-rsa", rsaKey, "both.example.com"),
		newCertificate(t, "both-ecdsa", ecdsaKey, "both.example.com"),
	})
	if err != nil {
		t.Fatal(err)
	}
	onlyRSA := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	onlyECDSA := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	tests := map[string]struct {
		name   string
		suites []uint16 // of a client that speaks TLS 1.2 at most; nil for any
		want   string   // "" when the handshake fails
	}{
		"exact":                        {"a.example.com", nil, "exact"},
		"wildcard":                     {"b.example.com", nil, "wild"},
		"none":                         {"c.test", nil, "other"},
		"no server name":               {"", nil, "other"},
		"first of two":                 {"both.example.com", nil, "both-rsa"},
		"client without RSA":           {"both.example.com", onlyECDSA, "both-ecdsa"},
		"client without ECDSA":         {"both.example.com", onlyRSA, "both-rsa"},
		"name's own does not fit":      {"a.example.com", onlyRSA, ""}, // rather than a certificate for another name
		"no server name without ECDSA": {"", onlyRSA, "both-rsa"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			client := &tls.Config{ServerName: tt.name, CipherSuites: tt.suites}
			if tt.suites != nil {
				client.MaxVersion = tls.VersionTLS12
			}
			state, err := handshake(t, func(*tls.ClientHelloInfo) (*tls.Config, error) {
				return &tls.Config{GetCertificate: chooser.choose}, nil
			}, client)
			if tt.want == "" {
				if err == nil {
					t.Errorf("got %s", state.PeerCertificates[0].SerialNumber.Bytes())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := string(state.PeerCertificates[0].SerialNumber.Bytes()); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	hello := &tls.ClientHelloInfo{ServerName: "A.EXAMPLE.COM.", SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}
	if cert, err := chooser.choose(hello); err != nil || string(cert.Leaf.SerialNumber.Bytes()) != "exact" {
		t.Errorf("case and trailing dot: got %v, %v", cert, err)
	}
	if _, err := newChooser([]*config.Certificate{{Name: "broken", Chain: "x", Key: config.Secret("private")}}); err == nil {
		t.Error("a broken certificate was taken")
	}
	if _, err := newChooser(nil); err == nil {
		t.Error("no certificate was taken")
	}
}

func tlsConfig(certs []*config.Certificate, hostnames ...string) *config.Config {
	c := &config.Config{Certificates: certs}
	for _, h := range hostnames {
		c.Listeners = append(c.Listeners, &config.Listener{
			Name: "listener " + h, Port: 443, Protocol: config.HTTPS, Hostname: h, TLS: &config.ListenerTLS{Certificates: []string{certs[0].Name}},
		})
	}
	return c
}

// TestSessions: a client resumes on the listener that it was at, also after its certificate changed, and on no other.
func TestSessions(t *testing.T) {
	b := newBench(t)
	conf := tlsConfig([]*config.Certificate{newCertificate(t, "x", ecdsaKey, "a.test", "b.test")}, "a.test", "b.test")
	s := b.compile(conf)
	defer s.Release()
	client := &tls.Config{ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(10), NextProtos: []string{"h2"}}
	resumes := func(on *Snapshot, as string) bool {
		t.Helper()
		state, err := handshake(t, func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			asked := *h
			asked.ServerName = as
			return on.TLS("*:443", false, &asked)
		}, client)
		if err != nil {
			t.Fatal(err)
		}
		if state.NegotiatedProtocol != "h2" {
			t.Errorf("negotiated %q", state.NegotiatedProtocol)
		}
		return state.DidResume
	}
	if resumes(s, "a.test") {
		t.Error("the first handshake resumed")
	}
	if !resumes(s, "a.test") {
		t.Error("the second handshake did not resume")
	}
	if resumes(s, "b.test") {
		t.Error("a session of one listener resumed on another")
	}
	if _, err := s.TLS("*:443", false, &tls.ClientHelloInfo{ServerName: "c.test"}); err == nil {
		t.Error("a name that no listener serves got settings")
	}
	if _, err := s.TLS("*:444", false, &tls.ClientHelloInfo{ServerName: "a.test"}); err == nil {
		t.Error("a socket that is none got settings")
	}
	quic, err := s.TLS("*:443", true, &tls.ClientHelloInfo{ServerName: "A.test."})
	if err != nil || quic.MinVersion != tls.VersionTLS13 || !slices.Equal(quic.NextProtos, []string{"h3"}) {
		t.Errorf("QUIC settings %v, %v", quic, err)
	}

	resumes(s, "a.test")
	same := b.compile(conf)
	defer same.Release()
	if b.compiler.tls["listener a.test"].tcp != mustTLS(t, s, "a.test") {
		t.Error("settings were made anew for the same certificate")
	}
	next := b.compile(tlsConfig([]*config.Certificate{newCertificate(t, "x", ecdsaKey, "a.test", "b.test")}, "a.test", "b.test"))
	defer next.Release()
	if mustTLS(t, next, "a.test") == mustTLS(t, s, "a.test") {
		t.Error("the new certificate is not used")
	}
	if !resumes(next, "a.test") {
		t.Error("a new certificate ended the clients' sessions")
	}
}

func mustTLS(t *testing.T, s *Snapshot, name string) *tls.Config {
	t.Helper()
	conf, err := s.TLS("*:443", false, &tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// TestRotation: a ticket key is used for half a day and opens tickets for a day more.
func TestRotation(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := newRotation(start)
	first, generation := r.at(start.Add(ticketKeyAge - 1))
	if len(first) != 1 || generation != 1 {
		t.Fatalf("%d keys of generation %d", len(first), generation)
	}
	for i := range 5 {
		keys, generation := r.at(start.Add(time.Duration(i+1) * ticketKeyAge))
		if generation != uint64(i+2) || len(keys) != min(i+2, ticketKeysOld) {
			t.Fatalf("rotation %d: %d keys of generation %d", i, len(keys), generation)
		}
		if keys[0] == first[0] || slices.Contains(keys, first[0]) != (i+1 < ticketKeysOld) {
			t.Errorf("rotation %d: the first key is kept for the wrong time", i)
		}
	}
	if len(first) != 1 {
		t.Error("keys that were handed out changed")
	}
}

// TestRotationReachesAll: settings of two configurations share a listener's keys, whichever of them notices that one is due.
func TestRotationReachesAll(t *testing.T) {
	b := newBench(t)
	old := b.compile(tlsConfig([]*config.Certificate{newCertificate(t, "x", ecdsaKey, "a.test")}, "a.test"))
	defer old.Release()
	before := b.compiler.tls["listener a.test"]
	current := b.compile(tlsConfig([]*config.Certificate{newCertificate(t, "y", ecdsaKey, "a.test")}, "a.test"))
	defer current.Release()
	after := b.compiler.tls["listener a.test"]
	if before == after || before.keys != after.keys {
		t.Fatal("the two share no keys")
	}
	due := time.Now().Add(ticketKeyAge)
	var handshakes sync.WaitGroup
	for _, l := range []*listenerTLS{before, after, before, after} {
		handshakes.Go(func() { l.refresh(due) })
	}
	handshakes.Wait()
	if before.generation.Load() != 2 || after.generation.Load() != 2 {
		t.Errorf("generations %d and %d, want 2", before.generation.Load(), after.generation.Load())
	}
}

// TestKeysOfGoneListeners are forgotten.
func TestKeysOfGoneListeners(t *testing.T) {
	b := newBench(t)
	certs := []*config.Certificate{newCertificate(t, "x", ecdsaKey, "a.test")}
	b.compile(tlsConfig(certs, "a.test", "b.test")).Release()
	b.compile(tlsConfig(certs, "b.test")).Release()
	if n := len(b.compiler.tickets.listeners); n != 1 {
		t.Errorf("the keys of %d listeners are kept, want 1", n)
	}
}
