package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
)

// Authority is a CA that signs client certificates, one of its own beside the CA of servers.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
	next atomic.Int64
}

// NewAuthority makes a CA.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authority{key: key, pem: encodePEM("CERTIFICATE", der)}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.next.Store(1)
	return a
}

// PEM returns the CA's certificate.
func (a *Authority) PEM() string { return a.pem }

// Client returns a fresh client certificate with this common name.
func (a *Authority) Client(t testing.TB, commonName string) tls.Certificate {
	t.Helper()
	return keyPair(t, a.ClientCertificate(t, commonName, commonName))
}

// ClientCertificate is Client as a configuration holds it, under "test/name".
func (a *Authority) ClientCertificate(t testing.TB, name, commonName string) *config.Certificate {
	t.Helper()
	return issue(t, name, a.cert, a.key, &x509.Certificate{
		SerialNumber: big.NewInt(a.next.Add(1)), Subject: pkix.Name{CommonName: commonName},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}
