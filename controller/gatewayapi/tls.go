package gatewayapi

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// certificate is what a Secret gave.
type certificate struct {
	secret *corev1.Secret
	at     place
	// config is nil when err says why.
	config *config.Certificate
	err    error
	used   uint64
}

// readTLS reads a listener's certificates and how it verifies its clients, and refuses what it cannot enforce.
func (p *pass) readTLS(v *view, l *listener) {
	l.config.TLS = &config.ListenerTLS{}
	if l.spec.TLS != nil {
		l.readOptions(v)
		for i, ref := range l.spec.TLS.CertificateRefs {
			p.readCertificate(v, l, fmt.Sprintf("tls.certificateRefs[%d]", i), ref)
		}
	}
	switch {
	case len(l.certificates) > 0:
	case l.resolved.Status || l.resolved.Reason == string(problem.InvalidRouteKinds):
		l.unresolved(v, "tls", problem.InvalidCertificateRef, l.setAside(),
			"the listener has no certificate; name a Secret in tls.certificateRefs")
	default:
		v.problem(l.problem("tls.certificateRefs", problem.InvalidCertificateRef, l.setAside(),
			"none of the certificates can be used; the listener opens when one can"))
	}
	if l.config.Protocol == config.HTTPS {
		p.readClientValidation(v, l)
	}
}

// readOptions judges tls.options, none of which this version knows. Those that are meant for this gateway (its own prefix, or none,
// which Gateway API reserves) may demand more security than it would give: the listener stays closed. Those of other implementations
// are theirs.
func (l *listener) readOptions(v *view) {
	var ours []string
	for key := range l.spec.TLS.Options {
		if strings.HasPrefix(string(key), optionPrefix) || !strings.Contains(string(key), "/") {
			ours = append(ours, string(key))
		} else {
			v.problem(l.problem("tls.options", problem.UnsupportedValue, "the option",
				"option %q belongs to another implementation and has no effect here; remove it", key))
		}
	}
	if len(ours) > 0 {
		slices.Sort(ours)
		l.refuse(v, "tls.options", problem.UnsupportedValue, "options %q are not known to this version; remove them", ours)
	}
}

// readCertificate follows one certificateRef.
func (p *pass) readCertificate(v *view, l *listener, field string, ref gatewayv1.SecretObjectReference) {
	namespace, group, kind := l.owner.Namespace, "", "Secret"
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	name := namespace + "/" + string(ref.Name)
	setAside := "certificate " + name
	switch {
	case group != "" || kind != "Secret":
		l.unresolved(v, field, problem.InvalidCertificateRef, setAside, "kind %q in group %q holds no certificate; name a Secret", kind, group)
		return
	case !p.grants.permits(reference{gatewayv1.GroupName, l.owner.Kind, l.owner.Namespace, "", "Secret", namespace, string(ref.Name)}):
		l.unresolved(v, field, problem.RefNotPermitted, setAside,
			"no ReferenceGrant in namespace %s lets %ss of namespace %s use Secret %s; create one or copy the Secret", namespace,
			l.owner.Kind, l.owner.Namespace, ref.Name)
		return
	}
	p.want("Secret", namespace, string(ref.Name))
	v.places[objectName{"Secret", namespace, string(ref.Name)}] = p.place("Secret", namespace, string(ref.Name))
	cert := p.certificate(types.NamespacedName{Namespace: namespace, Name: string(ref.Name)})
	if cert.err != nil {
		l.unresolved(v, field, problem.InvalidCertificateRef, setAside, "Secret %s %v", name, cert.err)
		return
	}
	if !slices.Contains(l.certificates, cert.config) {
		l.certificates = append(l.certificates, cert.config)
		l.config.TLS.Certificates = append(l.config.TLS.Certificates, cert.config.Name)
	}
}

// certificate reads a Secret, once for each version of it.
func (p *pass) certificate(key types.NamespacedName) *certificate {
	secret, at := p.st.Secrets[key], p.place("Secret", key.Namespace, key.Name)
	old := p.certs[key]
	if old != nil && old.secret == secret && old.at == at {
		old.used = p.run
		return old
	}
	c := &certificate{secret: secret, at: at, used: p.run}
	p.certs[key] = c
	if secret == nil {
		c.err = fmt.Errorf("does not exist; create it with tls.crt and tls.key")
		return c
	}
	if c.err = checkPair(secret); c.err != nil {
		return c
	}
	c.config = &config.Certificate{
		Origin: p.origin("Secret", key.Namespace, key.Name, secret.Generation, ""),
		Name:   key.Namespace + "/" + key.Name,
		Chain:  string(secretValue(secret, corev1.TLSCertKey)),
		Key:    secretValue(secret, corev1.TLSPrivateKeyKey),
	}
	if old != nil && reflect.DeepEqual(old.config, c.config) {
		c.config = old.config
	}
	return c
}

// checkPair checks that a Secret holds a certificate and the key to it. Errors never quote the Secret.
func checkPair(secret *corev1.Secret) error {
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if len(secretValue(secret, key)) == 0 {
			return fmt.Errorf("has no %s; it needs tls.crt and tls.key", key)
		}
	}
	if _, err := tls.X509KeyPair(secretValue(secret, corev1.TLSCertKey), secretValue(secret, corev1.TLSPrivateKeyKey)); err != nil {
		return fmt.Errorf("holds no usable certificate and key: %w; put the certificate in tls.crt, leaf first, and its own key in tls.key", err)
	}
	return nil
}

// secretValue reads stringData too, which an API server merges into data and a file may still hold.
func secretValue(secret *corev1.Secret, key string) []byte {
	if v, ok := secret.StringData[key]; ok {
		return []byte(v)
	}
	return secret.Data[key]
}

// forgetCertificates drops what no listener names any more.
func (p *pass) forgetCertificates() {
	for key, c := range p.certs {
		if c.used != p.run {
			delete(p.certs, key)
		}
	}
}

// Expiry returns a problem for each certificate of a configuration that is not valid at the given time. They are warnings: the
// certificates are served all the same, for a client that does not check is better off than one that gets no answer. A translation
// knows no time, so whoever does asks here.
func Expiry(c *config.Config, now time.Time) []problem.Problem {
	var list []problem.Problem
	for _, cert := range c.Certificates {
		leaf, err := leafOf(cert)
		if err != nil {
			continue // checkPair let it in, so it parses
		}
		one := problem.Problem{Kind: cert.Origin.Kind, Namespace: cert.Origin.Namespace, Name: cert.Origin.Name, File: cert.Origin.File,
			Line: cert.Origin.Line, Field: "data", Reason: problem.InvalidCertificateRef}
		switch {
		case now.After(leaf.NotAfter):
			one.Message = fmt.Sprintf("the certificate expired on %s; renew it", leaf.NotAfter.UTC().Format(time.DateTime))
		case now.Before(leaf.NotBefore):
			one.Message = fmt.Sprintf("the certificate is valid only from %s; check the clock", leaf.NotBefore.UTC().Format(time.DateTime))
		default:
			continue
		}
		list = append(list, one)
	}
	return list
}

// leafOf parses the first certificate of a chain. It leaves the key alone, whose checks cost a hundred times more: this is done for every
// certificate whenever something changes.
func leafOf(c *config.Certificate) (*x509.Certificate, error) {
	for rest := []byte(c.Chain); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("certificate %s: no PEM block of type CERTIFICATE", c.Name)
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
}
