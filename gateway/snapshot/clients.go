package snapshot

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// clientRules is how one listener verifies the certificates of its clients (Gateway API: FrontendTLSValidation).
//
// They are enforced twice. The handshake turns a client away whose certificate does not pass. And a request is served only over a
// connection whose certificate passes the rules as they are now, which a connection that was made under earlier rules may not:
//
//	handshake under rules 1 -> requests -> rules 2 replace them -> the next request holds the certificate against rules 2, once
//
// With the insecure fallback neither turns anybody away; the second still tells who the client is, or that nobody knows.
type clientRules struct {
	source config.ClientValidation
	// number is the rules' own, never 0. The same CAs and mode at one listener keep it.
	number uint64
	roots  *x509.CertPool
}

// clientRules makes the rules of a listener, or takes over those that it had. It returns nil when clients are asked for no certificate.
func (b *build) clientRules(l *config.Listener) (*clientRules, error) {
	want := l.TLS.ClientValidation
	if want == nil {
		return nil, nil
	}
	if before := b.Compiler.tls[l.Name]; before != nil && before.clients != nil && before.clients.source == *want {
		return before.clients, nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(want.CAs)) {
		return nil, errors.New("the CAs for client certificates hold none; they must be PEM blocks of type CERTIFICATE")
	}
	b.Compiler.rules++
	return &clientRules{source: *want, number: b.Compiler.rules, roots: roots}, nil
}

// ask makes a handshake ask for a certificate. With the fallback crypto/tls verifies nothing, for it would end the handshake; verify does
// it at the first request.
func (r *clientRules) ask(conf *tls.Config) {
	conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, r.roots
	if r.source.AllowInsecureFallback {
		conf.ClientAuth = tls.RequestClientCert
	}
}

// admit reports whether a request may come over a connection, and notes in info whether the client is known.
func (r *clientRules) admit(info *exchange.TLSInfo) *exchange.Fault {
	number, passed := info.Verdict()
	if number != r.number {
		passed = r.verify(info.PeerCertificates) == nil
		info.SetVerdict(r.number, passed)
	}
	if passed || r.source.AllowInsecureFallback {
		return nil
	}
	info.TurnAway()
	return exchange.NewFault(exchange.Misdirected, errors.New("the connection's client certificate does not pass the listener's rules"))
}

// verify holds a chain, DER, leaf first, against the rules.
func (r *clientRules) verify(chain [][]byte) error {
	if len(chain) == 0 {
		return errors.New("there is no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return fmt.Errorf("the certificate does not parse: %w", err)
	}
	with := x509.VerifyOptions{Roots: r.roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, der := range chain[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			with.Intermediates.AddCert(c)
		}
	}
	_, err = leaf.Verify(with)
	return err
}

// ticketScope names the session ticket keys of a listener: those of its rules for clients alone. A session keeps the client's certificate,
// and one that other rules let in must not be resumed.
func ticketScope(l *config.Listener) string {
	want := l.TLS.ClientValidation
	if want == nil {
		return l.Name
	}
	sum := sha256.Sum256([]byte(want.CAs))
	return l.Name + "\x00" + strconv.FormatBool(want.AllowInsecureFallback) + string(sum[:])
}
