package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
)

// authority signs every certificate of the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
	pool *x509.CertPool
	next atomic.Int64
}

// theCA is made once for a test binary.
var theCA = sync.OnceValue(func() *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "harness CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	ca := &authority{cert: cert, key: key, pem: encodePEM("CERTIFICATE", der), pool: x509.NewCertPool()}
	ca.pool.AddCert(cert)
	ca.next.Store(1)
	return ca
})

// CAPEM returns the CA's certificate.
func CAPEM() string { return theCA().pem }

// ClientTLS returns settings that trust the CA and send host as SNI.
func ClientTLS(host string) *tls.Config {
	return &tls.Config{RootCAs: theCA().pool, ServerName: host}
}

// NewCertificate returns a fresh certificate for the names.
func NewCertificate(t testing.TB, name string, hosts ...string) *config.Certificate {
	t.Helper()
	ca := theCA()
	return issue(t, name, ca.cert, ca.key, &x509.Certificate{
		SerialNumber: big.NewInt(ca.next.Add(1)), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// issue completes a template and signs it for a fresh key. It returns the certificate as a configuration holds it, under "test/name".
func issue(t testing.TB, name string, ca *x509.Certificate, caKey *ecdsa.PrivateKey, template *x509.Certificate) *config.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(12*time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &config.Certificate{
		Origin: config.Origin{Kind: "Secret", Namespace: "test", Name: name}, Name: "test/" + name,
		Chain: encodePEM("CERTIFICATE", der), Key: config.Secret(encodePEM("PRIVATE KEY", keyDER)),
	}
}

// sharedCertificate is the certificate of origins and of listeners whose names do not matter.
var sharedCertificate = sync.OnceValue(func() *config.Certificate {
	return NewCertificate(panicTB{}, "shared", DefaultHost, "*."+DefaultHost, OriginHost)
})

// panicTB stands in for a test where none is at hand.
type panicTB struct{ testing.TB }

func (panicTB) Helper()           {}
func (panicTB) Fatal(args ...any) { panic(args) }

func keyPair(t testing.TB, c *config.Certificate) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(c.Chain), c.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// OriginTLS returns the server settings of an origin.
func OriginTLS() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{keyPair(panicTB{}, sharedCertificate())}, NextProtos: []string{"h2"}}
}

// Serial returns the serial number of a certificate.
func Serial(t testing.TB, c *config.Certificate) *big.Int {
	t.Helper()
	return keyPair(t, c).Leaf.SerialNumber
}
