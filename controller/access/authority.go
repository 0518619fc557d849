// Package access is how proxies and controller know each other: the CA that the controller keeps in a Secret, its serving certificate, who
// the bearer of a service-account token is, and the address at which the leading controller is reached. It knows nothing of what is sent.
package access

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	// caLifetime is how long a CA is valid. Its successor is made when a third of that is left.
	caLifetime = 365 * 24 * time.Hour
	// spread is how long a new CA is in the bundle before it signs: proxies get the bundle by a ConfigMap, which takes minutes to arrive.
	spread = 24 * time.Hour
	// servingLifetime is how long a serving certificate is valid. It is made anew at half of that.
	servingLifetime = 7 * 24 * time.Hour
	// skew is how far clocks may differ.
	skew = 5 * time.Minute
)

// Authority is the CAs of a controller: the one that signs, its successor when there is one already, and all that proxies are to trust. It is
// immutable.
//
// The life of two CAs, A and B; proxies trust what is in brackets:
//
//	year 0              A signs                     [A]
//	8 months            B is made                   [A B]
//	a day later         B signs, A only in bundle   [B A]
//	12 months           A has ended                 [B]
type Authority struct {
	signer, next *pair
	bundle       []*x509.Certificate
}

// pair is a CA's certificate and key.
type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// rotate returns the authority as it should be now: with a signer that is valid, a successor in time, and a bundle without what has ended.
// a is nil at the beginning. The same pointer comes back when nothing is to change.
func rotate(a *Authority, now time.Time) (*Authority, error) {
	var out Authority
	if a != nil {
		out = *a
	}
	changed := a == nil
	if out.next != nil && now.Sub(out.next.certificate.NotBefore) >= spread {
		out.signer, out.next, changed = out.next, nil, true
	}
	if out.signer == nil || !now.Before(out.signer.certificate.NotAfter) {
		out.signer, changed = out.next, true
		out.next = nil
	}
	if out.signer == nil {
		made, err := newCA(now)
		if err != nil {
			return nil, err
		}
		out.signer, changed = made, true
	}
	if out.next == nil && out.signer.certificate.NotAfter.Sub(now) < caLifetime/3 {
		made, err := newCA(now)
		if err != nil {
			return nil, err
		}
		out.next, changed = made, true
	}
	bundle := []*x509.Certificate{out.signer.certificate}
	if out.next != nil {
		bundle = append(bundle, out.next.certificate)
	}
	for _, old := range out.bundle {
		if now.Before(old.NotAfter) && !contains(bundle, old) {
			bundle = append(bundle, old)
		}
	}
	changed = changed || len(bundle) != len(out.bundle)
	if !changed {
		return a, nil
	}
	out.bundle = bundle
	return &out, nil
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	for _, other := range list {
		if other.Equal(c) {
			return true
		}
	}
	return false
}

// newCA makes a self-signed CA with an ECDSA P-256 key that can sign end certificates only.
func newCA(now time.Time) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("the controller's CA cannot be made: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Gatehouse controller CA " + now.UTC().Format(time.DateOnly)},
		NotBefore: now, NotAfter: now.Add(caLifetime), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("the controller's CA cannot be made: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("the controller's CA cannot be made: %w", err)
	}
	return &pair{certificate, key}, nil
}

// serial returns a random positive number of at most 127 bits (RFC 5280 4.1.2.2 allows 20 octets).
func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] &= 0x7f
	b[15] |= 1
	return new(big.Int).SetBytes(b[:])
}

// issue makes a serving certificate for names, with a key of its own.
func (a *Authority) issue(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("the serving certificate cannot be made: %w", err)
	}
	end := now.Add(servingLifetime)
	if last := a.signer.certificate.NotAfter; end.After(last) {
		end = last
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: now.Add(-skew), NotAfter: end, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.signer.certificate, key.Public(), a.signer.key)
	if err != nil {
		return nil, fmt.Errorf("the serving certificate cannot be made: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("the serving certificate cannot be made: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// Bundle returns the PEM of the CAs to trust.
func (a *Authority) Bundle() []byte {
	var out bytes.Buffer
	for _, c := range a.bundle {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer does not fail
	}
	return out.Bytes()
}

// The keys of the Secret's data.
const (
	keyBundle          = "ca.crt"
	keyCertificate     = "tls.crt"
	keyPrivate         = "tls.key"
	keyNextCertificate = "next.crt"
	keyNextPrivate     = "next.key"
)

// encode returns the data of the Secret.
func (a *Authority) encode() (map[string][]byte, error) {
	data := map[string][]byte{keyBundle: a.Bundle()}
	for _, p := range []struct {
		pair             *pair
		certificate, key string
	}{{a.signer, keyCertificate, keyPrivate}, {a.next, keyNextCertificate, keyNextPrivate}} {
		if p.pair == nil {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(p.pair.key)
		if err != nil {
			return nil, fmt.Errorf("the controller's CA key cannot be encoded: %w", err)
		}
		data[p.certificate] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.pair.certificate.Raw})
		data[p.key] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	return data, nil
}

// decode is the other way round. An empty Secret gives nil.
func decode(data map[string][]byte) (*Authority, error) {
	if len(data) == 0 {
		return nil, nil
	}
	a := &Authority{}
	var err error
	if a.signer, err = decodePair(data[keyCertificate], data[keyPrivate]); err != nil {
		return nil, fmt.Errorf("%s, %s: %w", keyCertificate, keyPrivate, err)
	}
	if len(data[keyNextCertificate]) > 0 {
		if a.next, err = decodePair(data[keyNextCertificate], data[keyNextPrivate]); err != nil {
			return nil, fmt.Errorf("%s, %s: %w", keyNextCertificate, keyNextPrivate, err)
		}
	}
	for rest := data[keyBundle]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return a, nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", keyBundle, err)
		}
		a.bundle = append(a.bundle, certificate)
	}
}

func decodePair(certificatePEM, keyPEM []byte) (*pair, error) {
	// X509KeyPair also checks that the two belong together.
	both, err := tls.X509KeyPair(certificatePEM, keyPEM)
	if err != nil {
		return nil, err
	}
	key, ok := both.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !both.Leaf.IsCA {
		return nil, errors.New("not the certificate and ECDSA key of a CA")
	}
	return &pair{both.Leaf, key}, nil
}
