package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"gatehouse.dev/gatehouse/gateway/config"
)

// sessionsKept bounds the TLS sessions that a cluster may resume. They are kept by server name, so that one would nearly do.
const sessionsKept = 64

// identity is a certificate that clusters present as clients. It is shared by all that name it, and what it holds is replaced when the
// certificate is renewed: connections made after that present the new one.
type identity struct {
	source  *config.Certificate // what current was made from; guarded by Manager.mu
	current atomic.Pointer[tls.Certificate]
}

// secure is how the endpoints of one cluster are authenticated, and how the gateway authenticates itself to them.
type secure struct {
	base *tls.Config
	// identity is nil for clusters that present no certificate.
	identity *identity
	made     atomic.Pointer[tlsSettings]
}

// tlsSettings are for handshakes with one client certificate. They have a session cache of their own: a session that an endpoint resumes
// stands for the certificate that it began with.
type tlsSettings struct {
	certificate *tls.Certificate // nil for none

	http1 *tls.Config
	http2 *tls.Config // lets the endpoint choose between HTTP/2 and HTTP/1.1
	raw   *tls.Config // without ALPN, for streams
}

// newSecure makes the settings of a cluster. id is nil when it names no client certificate.
func newSecure(t *config.UpstreamTLS, id *identity) (*secure, error) {
	conf, err := serverVerification(t)
	if err != nil {
		return nil, err
	}
	if t.ClientCertificate != "" && id == nil {
		return nil, fmt.Errorf("there is no certificate %s to present to endpoints", t.ClientCertificate)
	}
	return &secure{base: conf, identity: id}, nil
}

// settings returns what a handshake that begins now uses.
func (s *secure) settings() *tlsSettings {
	var certificate *tls.Certificate
	if s.identity != nil {
		certificate = s.identity.current.Load()
	}
	made := s.made.Load()
	if made != nil && made.certificate == certificate {
		return made
	}
	base := s.base.Clone()
	base.ClientSessionCache = tls.NewLRUClientSessionCache(sessionsKept)
	if certificate != nil {
		// GetClientCertificate presents it whatever CAs the endpoint says that it trusts: Certificates would leave it out without a word.
		base.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	fresh := &tlsSettings{certificate: certificate, http1: base, http2: base.Clone(), raw: base.Clone()}
	fresh.http1.NextProtos = []string{"http/1.1"}
	fresh.http2.NextProtos = []string{"h2", "http/1.1"}
	if s.made.CompareAndSwap(made, fresh) {
		return fresh
	}
	return s.settings()
}

// certify brings the certificates that clusters present up to date and returns them by name, with what is wrong with those that cannot be
// used. It is called with mu held.
func (m *Manager) certify(clusters []*config.Cluster, certificates []*config.Certificate) (map[string]*identity, map[string]error) {
	var named map[string]*identity
	for _, c := range clusters {
		if c.TLS != nil && c.TLS.ClientCertificate != "" {
			if named == nil {
				named = map[string]*identity{}
			}
			named[c.TLS.ClientCertificate] = nil
		}
	}
	if named == nil {
		m.identities = nil
		return nil, nil
	}
	broken := map[string]error{}
	for _, source := range certificates {
		if _, wanted := named[source.Name]; !wanted {
			continue
		}
		id := m.identities[source.Name]
		if id == nil {
			id = &identity{}
		}
		named[source.Name] = id
		if id.source == source || id.source != nil && id.source.Chain == source.Chain && string(id.source.Key) == string(source.Key) {
			continue
		}
		pair, err := tls.X509KeyPair([]byte(source.Chain), source.Key)
		if err != nil {
			broken[source.Name] = fmt.Errorf("certificate %s: %w", source.Name, err)
			if id.source == nil {
				named[source.Name] = nil
			}
			continue // the one before stays in use
		}
		id.source = source
		id.current.Store(&pair)
	}
	m.identities = named
	return named, broken
}

// serverVerification is how an endpoint's certificate is verified.
func serverVerification(t *config.UpstreamTLS) (*tls.Config, error) {
	conf := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CAs != "" {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(t.CAs)) {
			return nil, errors.New("the CA bundle holds no certificate; it must be PEM blocks of type CERTIFICATE")
		}
	}
	if len(t.SubjectAltNames) > 0 {
		// The chain is verified here with the names that the policy lists in place of ServerName.
		conf.InsecureSkipVerify = true
		roots, names := conf.RootCAs, t.SubjectAltNames
		conf.VerifyConnection = func(cs tls.ConnectionState) error {
			if err := verifyNames(cs, roots, names); err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
			}
			return nil
		}
	}
	return conf, nil
}

func verifyNames(cs tls.ConnectionState, roots *x509.CertPool, names []config.SubjectAltName) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the endpoint sent no certificate")
	}
	leaf := cs.PeerCertificates[0]
	chain := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		chain.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(chain); err != nil {
		return err
	}
	if !slices.ContainsFunc(names, func(name config.SubjectAltName) bool { return carries(leaf, name) }) {
		return errors.New("the endpoint's certificate carries none of the subject alternative names that the policy lists")
	}
	return nil
}

// carries reports whether a certificate is for a name. "*.example.com" stands for that very name in the certificate, or any one with one
// label in place of the star.
func carries(leaf *x509.Certificate, name config.SubjectAltName) bool {
	if name.Type == "URI" {
		for _, uri := range leaf.URIs {
			if uri.String() == name.Value {
				return true
			}
		}
		return false
	}
	suffix, wild := strings.CutPrefix(name.Value, "*")
	if !wild {
		return leaf.VerifyHostname(name.Value) == nil
	}
	for _, san := range leaf.DNSNames {
		label, ok := strings.CutSuffix(strings.ToLower(san), strings.ToLower(suffix))
		if ok && label != "" && !strings.Contains(label, ".") {
			return true
		}
	}
	return false
}
