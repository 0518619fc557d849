package gatewayapi

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// clientCertificate follows a reference to a certificate that the gateway presents to backends. from is the kind that refers, of a
// namespace. A fault's reason is "" when the certificate can be used.
func (p *pass) clientCertificate(fromGroup, from, namespace string, ref *gatewayv1.SecretObjectReference) (
	*config.Certificate, bundleUse, fault) {
	key, group, kind := types.NamespacedName{Namespace: namespace, Name: string(ref.Name)}, "", "Secret"
	if ref.Namespace != nil {
		key.Namespace = string(*ref.Namespace)
	}
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	switch {
	case group != "" || kind != "Secret":
		return nil, bundleUse{}, fault{"", problem.InvalidClientCertificateRef, fmt.Sprintf("kind %q in group %q holds no certificate; name a "+
			"Secret", kind, group)}
	case !p.grants.permits(reference{fromGroup, from, namespace, "", "Secret", key.Namespace, key.Name}):
		return nil, bundleUse{}, fault{"", problem.RefNotPermitted, fmt.Sprintf("no ReferenceGrant in namespace %s lets %ss of namespace %s use "+
			"Secret %s; create one or copy the Secret", key.Namespace, from, namespace, key.Name)}
	}
	p.want("Secret", key.Namespace, key.Name)
	use := bundleUse{key: bundleKey{"Secret", key.Namespace, key.Name}}
	use.object = p.bundleObject(use.key)
	cert := p.certificate(key)
	if cert.err != nil {
		return nil, use, fault{"", problem.InvalidClientCertificateRef, fmt.Sprintf("Secret %s %v", key, cert.err)}
	}
	return cert.config, use, fault{}
}

// readClientCertificate reads spec.tls.backend. Without a usable certificate none is presented: a backend that asks for one then turns the
// gateway away.
func (p *pass) readClientCertificate(v *view, g *gateway) {
	if g.obj.Spec.TLS == nil || g.obj.Spec.TLS.Backend == nil || g.obj.Spec.TLS.Backend.ClientCertificateRef == nil {
		return
	}
	cert, use, wrong := p.clientCertificate(gatewayGroup, "Gateway", g.obj.Namespace, g.obj.Spec.TLS.Backend.ClientCertificateRef)
	if use.key.kind != "" {
		v.places[objectName{"Secret", use.key.namespace, use.key.name}] = p.place("Secret", use.key.namespace, use.key.name)
	}
	if wrong.reason != "" {
		g.clientFault = wrong
		v.problem(gatewayProblem(g.obj, "spec.tls.backend.clientCertificateRef", wrong.reason, "the client certificate", "%s", wrong.message))
		return
	}
	g.client = cert
	if v.clients == nil {
		v.clients = make(map[string]*config.Certificate)
	}
	v.clients[cert.Name] = cert
}
