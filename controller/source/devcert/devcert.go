// Package devcert is a certificate authority for development: it makes certificates for the names that a Secret asks for, so that
// HTTPS works on the first run of a fresh machine. In flow names, out flow PEM certificates and keys. It knows nothing of
// Kubernetes. Nothing trusts the authority unless a person says so (`curl --cacert`).
//
// Everything is kept in one folder of the state folder, so that a restart serves the same certificates:
//
//	DIR/development-ca/          0700
//	    ca.pem                   0600  the authority's certificate and key
//	    ca.crt                   0644  its certificate alone, to be handed out
//	    leaf-HASH.pem            0600  certificate and key for one set of names
package devcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long certificates live, and how long before their end they are made anew.
const (
	authorityLife  = 10 * 365 * 24 * time.Hour
	authorityRenew = 180 * 24 * time.Hour
	leafLife       = 90 * 24 * time.Hour
	leafRenew      = 30 * 24 * time.Hour
	// clockSkew is how far behind a client's clock may be.
	clockSkew = time.Hour
)

// MaxNames bounds the names of one certificate.
const MaxNames = 100

// Authority is the development certificate authority. It is safe for concurrent use, also by several processes on one folder.
type Authority struct {
	dir string
	now func() time.Time

	mu     sync.Mutex
	ca     *pair            // guarded by mu
	leaves map[string]*pair // by hash of the names; guarded by mu
}

// Option changes how an Authority works.
type Option func(*Authority)

// WithClock sets the clock; the default is time.Now.
func WithClock(now func() time.Time) Option { return func(a *Authority) { a.now = now } }

// Open opens the authority that the state folder keeps, and makes folder and authority where there are none. It refuses a folder or
// key file that others can read.
func Open(state string, options ...Option) (*Authority, error) {
	a := &Authority{dir: filepath.Join(state, "development-ca"), now: time.Now, leaves: map[string]*pair{}}
	for _, option := range options {
		option(a)
	}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w; pass --state with a folder that can be written", err)
	}
	if err := private(a.dir); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a, a.renew()
}

// private refuses what others can read or write.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s: mode %04o lets other users in; run: chmod go= %s", path, info.Mode().Perm(), path)
	}
	return nil
}

// Path is the file that holds the authority's certificate, for `curl --cacert`.
func (a *Authority) Path() string { return filepath.Join(a.dir, "ca.crt") }

// Authority returns the authority's certificate as PEM.
func (a *Authority) Authority() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.renew(); err != nil {
		return nil, err
	}
	return slices.Clone(a.ca.chain), nil
}

// Issue returns the certificate chain and key for the names, DNS names or IP addresses, as PEM. It is the same until it must be
// renewed, also after a restart.
func (a *Authority) Issue(names []string) (chain, key []byte, err error) {
	names, err = canonical(names)
	if err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.renew(); err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256([]byte(strings.Join(names, ",")))
	id := hex.EncodeToString(sum[:8])
	if leaf := a.leaves[id]; leaf != nil && a.usable(leaf, names) {
		return slices.Clone(leaf.chain), slices.Clone(leaf.key), nil
	}
	path := filepath.Join(a.dir, "leaf-"+id+".pem")
	leaf, err := readPair(path)
	if err != nil || !a.usable(leaf, names) {
		if leaf, err = a.sign(names); err != nil {
			return nil, nil, err
		}
		if err := leaf.write(path, true); err != nil {
			return nil, nil, err
		}
	}
	a.leaves[id] = leaf
	return slices.Clone(leaf.chain), slices.Clone(leaf.key), nil
}

// renew loads the authority, makes it when there is none and replaces it before it ends. a.mu is held.
func (a *Authority) renew() error {
	if a.ca != nil && a.fresh(a.ca, authorityRenew) {
		return nil
	}
	path := filepath.Join(a.dir, "ca.pem")
	// Another process may make it at the same moment: the first one to link its file wins, and both read it.
	ca, err := readPair(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if ca, err = a.newAuthority(); err != nil {
			return err
		}
		if err := ca.write(path, false); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if ca, err = readPair(path); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("development authority: %w; remove %s to make a new one", err, a.dir)
	case !a.fresh(ca, authorityRenew):
		if ca, err = a.newAuthority(); err != nil {
			return err
		}
		if err := ca.write(path, true); err != nil {
			return err
		}
	}
	if err := replace(a.Path(), ca.chain, 0o644); err != nil {
		return err
	}
	a.ca = ca
	return nil
}

func (a *Authority) fresh(p *pair, before time.Duration) bool {
	now := a.now()
	return now.After(p.cert.NotBefore) && now.Add(before).Before(p.cert.NotAfter)
}

// usable reports whether the leaf has the names, comes from the present authority and does not end soon.
func (a *Authority) usable(leaf *pair, names []string) bool {
	var have []string
	have = append(have, leaf.cert.DNSNames...)
	for _, ip := range leaf.cert.IPAddresses {
		have = append(have, ip.String())
	}
	slices.Sort(have)
	return slices.Equal(have, names) && a.fresh(leaf, leafRenew) && leaf.cert.CheckSignatureFrom(a.ca.cert) == nil
}

func (a *Authority) newAuthority() (*pair, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unnamed host"
	}
	now := a.now()
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Gatehouse development"}, CommonName: "Gatehouse development CA, " + host},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return newPair(template, nil)
}

func (a *Authority) sign(names []string) (*pair, error) {
	now := a.now()
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Gatehouse development"}},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(leafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if template.NotAfter.After(a.ca.cert.NotAfter) {
		template.NotAfter = a.ca.cert.NotAfter
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return newPair(template, a.ca)
}

// newPair makes a key and the certificate for it, signed by parent, or by itself.
func newPair(template *x509.Certificate, parent *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.cert, parent.private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return encode(der, key)
}

// canonical returns the names lower-case, sorted and each once, and refuses what is neither a DNS name nor an IP address.
func canonical(names []string) ([]string, error) {
	var out []string
	for _, name := range names {
		name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
		if ip := net.ParseIP(name); ip != nil {
			name = ip.String()
		} else if !dnsName(strings.TrimPrefix(name, "*.")) {
			return nil, fmt.Errorf("%q is neither a DNS name nor an IP address", name)
		}
		out = append(out, name)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	switch {
	case len(out) == 0:
		return nil, errors.New("no name to make a certificate for")
	case len(out) > MaxNames:
		return nil, fmt.Errorf("%d names, the limit for one certificate is %d", len(out), MaxNames)
	}
	return out, nil
}

// dnsName follows RFC 1123 2.1: labels of letters, digits and inner hyphens.
func dnsName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}
